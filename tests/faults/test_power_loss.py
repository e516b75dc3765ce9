"""Power is lost after any system call: what was acknowledged is there, whatever of the rest came to the disk."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.journals import finished_ids, unfinished_ids, what_is_left
from tests.support.pools import ROOT
from tests.support.power_loss import Disk, Step, losses, read_trace
from tests.support.small_disks import build_preload

EVERY = int(os.environ.get("POWER_EVERY", "1"))
SEEDS = (None, 1, 2)


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("power") / "state"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture(scope="module")
def steps(state_dir: Path) -> list[Step]:
    """Every call of one whole story."""
    library = build_preload(ROOT / "tests" / "support" / "power_trace.c", state_dir.parent / "trace.so")
    trace = state_dir.parent / "trace"
    env = {**os.environ, "LD_PRELOAD": str(library), "POWER_FOLDER": str(state_dir), "POWER_TRACE": str(trace)}
    command = [sys.executable, "-m", "tests.support.power_writer", str(state_dir)]
    subprocess.run(command, env=env, cwd=ROOT, check=True, timeout=60)
    return read_trace(trace)


def broken_promises(disk: Disk, scratch: Path, chance: random.Random | None) -> set[str]:
    """Acknowledged tasks that are not there after this loss."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    disk.after_power_loss(scratch, chance)
    left = what_is_left(scratch)
    said = {verb: {line.split()[1] for line in disk.acked if line.startswith(verb)} for verb in VERBS}
    there, ended = {*unfinished_ids(left), *finished_ids(left)}, set(finished_ids(left))
    return (said["accepted"] - said["forgotten"] - there) | (said["finished"] - said["forgotten"] - ended)


VERBS = ("accepted", "finished", "forgotten")


@pytest.mark.fault("F09")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_acknowledged_survives_a_power_loss_after_any_call(
    steps: list[Step], state_dir: Path, tmp_path: Path, seed: int | None
) -> None:
    broken = {}
    for number, disk in losses(steps, state_dir, EVERY):
        chance = None if seed is None else random.Random(seed * 100_000 + number)
        if lost := broken_promises(disk, tmp_path / "found", chance):
            broken[number] = lost

    assert broken == {}
    assert len(steps) > 100


def test_the_model_of_the_disk_sees_an_ack_before_its_sync(steps: list[Step], state_dir: Path, tmp_path: Path) -> None:
    """Without the syncs in the trace the same judge finds what was lost."""
    careless = [step for step in steps if step.op.name != "SYNC"]

    lost = [broken_promises(disk, tmp_path / "found", None) for _, disk in losses(careless, state_dir, 50)]

    assert any(lost)
