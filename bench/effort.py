"""How long a bench takes: seconds, rounds and sizes of each part. Two sets: a quick look, and figures to keep."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    """Times are seconds of the measured window, without its warm-up and without reading streams to their end."""

    rounds: int
    warmup_s: float
    paced_s: float
    flood_s: float
    first_token_s: float
    accept_s: float
    idle_s: float
    waiting: int
    restart_waiting: int
    starts: int
    sweep: tuple[int, ...]
    paced_tokens: int
    core_tasks: int


QUICK = Effort(
    rounds=2,
    warmup_s=2,
    paced_s=5,
    flood_s=3,
    first_token_s=4,
    accept_s=3,
    idle_s=8,
    waiting=100_000,
    restart_waiting=10_000,
    starts=2,
    sweep=(16, 64),
    paced_tokens=150,
    core_tasks=4_000,
)
FULL = Effort(
    rounds=4,
    warmup_s=3,
    paced_s=15,
    flood_s=8,
    first_token_s=15,
    accept_s=10,
    idle_s=60,
    waiting=100_000,
    restart_waiting=10_000,
    starts=5,
    sweep=(16, 32, 64, 128),
    paced_tokens=400,
    core_tasks=20_000,
)
