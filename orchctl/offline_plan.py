"""The memory plan of a config file, made by the daemon's own code in a process of its own. Decides nothing."""

import subprocess
import sys
from pathlib import Path

import msgspec

from orchctl.exits import ExitCode, VerbError
from supervisor.wire.plan import MemoryPlan

PLAN_S_MAX = 60


def plan_offline(config: Path, simulate_gpus: str | None) -> MemoryPlan:
    """The plan of a config on the GPUs of this host, or on simulated ones. Raises VerbError."""
    argv = [sys.executable, "-P", "-m", "supervisor.planning", "--config", str(config)]
    argv += ["--simulate-gpus", simulate_gpus] if simulate_gpus is not None else []
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=PLAN_S_MAX, check=False)
    except (OSError, subprocess.TimeoutExpired):
        raise VerbError(ExitCode.FAILED, "the plan could not be made in time", "try again") from None
    if done.returncode == ExitCode.CONFIG:
        cause = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"{config} cannot be used"
        raise VerbError(ExitCode.CONFIG, cause, f"see `orchctl validate {config}`")
    if done.returncode == ExitCode.NOT_PERMITTED:
        raise VerbError(ExitCode.NOT_PERMITTED, done.stderr.strip().splitlines()[-1], "run it as who may read it")
    try:
        return msgspec.json.decode(done.stdout, type=MemoryPlan)
    except msgspec.DecodeError:
        raise VerbError(ExitCode.FAILED, "the plan could not be made", f"see `orchctl validate {config}`") from None
