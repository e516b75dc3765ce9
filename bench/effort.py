"""How long a bench takes: seconds, rounds and sizes of each part. Two sets: a quick look, and figures to keep."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    """Times are seconds of the measured window, without its warm-up and without reading streams to their end.

    `sweep` are the numbers of streams that are measured beside the table's own, for the plots. `is_cut` does not wait
    for the ends of paced streams: their tokens are checked all the same.
    """

    rounds: int
    sweep_rounds: int
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
    is_cut: bool
    core_tasks: int


QUICK = Effort(
    rounds=2,
    sweep_rounds=1,
    warmup_s=1.5,
    paced_s=4,
    flood_s=3,
    first_token_s=3,
    accept_s=3,
    idle_s=8,
    waiting=100_000,
    restart_waiting=10_000,
    starts=2,
    sweep=(64,),
    is_cut=True,
    core_tasks=4_000,
)
FULL = Effort(
    rounds=4,
    sweep_rounds=2,
    warmup_s=3,
    paced_s=12,
    flood_s=8,
    first_token_s=10,
    accept_s=10,
    idle_s=60,
    waiting=100_000,
    restart_waiting=10_000,
    starts=5,
    sweep=(16, 64, 128),
    is_cut=False,
    core_tasks=20_000,
)
