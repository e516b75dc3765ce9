"""One run of the load generator: what is asked of it, and what it reports. A run with a wrong stream is no result."""

import subprocess
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

RUN_S_MAX = 900


class Mode(StrEnum):
    """What the clients do: the engine's own API (also through a proxy), accept and stream, or only accept."""

    DIRECT = "direct"
    TASKS = "tasks"
    ACCEPT = "accept"


class InvalidRunError(Exception):
    """A stream was wrong, or the load generator failed: the figures of this run mean nothing."""


class Times(msgspec.Struct, frozen=True):
    """A distribution in milliseconds."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What the load generator saw in its window. `watched_cpu_s` is the CPU time of the process in the middle.

    `latency_ms` is engine to client, one way, per token; `gap_beyond_tick_ms` what a gap between two tokens of a
    stream has above the engine's tick.
    """

    seconds: float
    clients: int
    tokens: int
    tokens_per_s: float
    streams: int
    accepted: int
    accepted_per_s: float
    refused: int
    started: int
    wrong: int
    first_wrong: str
    reconnects: int
    prompt_bytes: int
    watched_cpu_s: float
    own_cpu_s: float
    latency_ms: Times
    gap_beyond_tick_ms: Times
    first_token_ms: Times
    accept_ms: Times
    whole_ms: Times

    @property
    def us_per_token(self) -> float:
        """CPU microseconds of the middle process for each token it relayed."""
        return self.watched_cpu_s * 1e6 / max(1, self.tokens)

    @property
    def cpu_percent(self) -> float:
        """Of one core."""
        return 100 * self.watched_cpu_s / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """What to do: `clients` in a closed loop, `tokens` the mean length, lengths varied by `seed` unless fixed.

    `is_cut` drops the streams that run when the window closes instead of reading them to their end.
    """

    mode: Mode
    port: int
    clients: int
    tokens: int
    seed: int
    seconds: float = 5
    warmup_s: float = 1
    tick_ms: float = 0
    think_ms: float = 0
    total: int = 0
    watch_pid: int = 0
    has_fixed_length: bool = False
    is_cut: bool = False
    model: str = "bench"
    ctx: int = 4096

    def argv(self, loadgen: Path, cpu: int) -> list[str]:
        """The command line."""
        options = {
            "mode": self.mode,
            "port": self.port,
            "clients": self.clients,
            "tokens": self.tokens,
            "seed": self.seed,
            "seconds": self.seconds,
            "warmup-s": self.warmup_s,
            "tick-ms": self.tick_ms,
            "think-ms": self.think_ms,
            "total": self.total,
            "watch": self.watch_pid,
            "model": self.model,
            "ctx": self.ctx,
            "cpu": cpu,
        }
        argv = [str(loadgen), *(f"--{name}={value}" for name, value in options.items())]
        return [*argv, *(["--fixed"] if self.has_fixed_length else []), *(["--cut"] if self.is_cut else [])]


def run_load(plan: LoadPlan, loadgen: Path, cpu: int) -> Load:
    """Run it and read its report. Raises InvalidRunError."""
    done = subprocess.run(plan.argv(loadgen, cpu), capture_output=True, check=False, timeout=RUN_S_MAX)
    try:
        load = msgspec.json.decode(done.stdout, type=Load)
    except msgspec.MsgspecError:
        raise InvalidRunError(f"the load generator failed: {done.stderr.decode()[-400:]}") from None
    if load.wrong or (plan.mode != Mode.ACCEPT and load.refused):
        detail = done.stderr.decode()[-400:]
        raise InvalidRunError(f"{load.wrong} wrong streams, {load.refused} refused: {load.first_wrong} {detail}")
    return load
