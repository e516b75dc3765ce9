"""`python -m tests.sim --seeds N`: play N seeds, say how fast, and keep those that fail."""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from tests.sim.kept import SEEDS_FILE, keep_seed
from tests.sim.run import Report, SimulationError, run_seed

CHUNK = 20


def play(seed: int) -> Report | tuple[int, str]:
    """One seed in a worker process; a failure comes back as its seed and its story."""
    try:
        return run_seed(seed)
    except SimulationError as failure:
        return seed, str(failure)


def main() -> int:
    """Gives the exit code: 1 when a seed failed."""
    asked = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    asked.add_argument("--seeds", type=int, default=200, help="how many")
    asked.add_argument("--first", type=int, default=0, help="the first one")
    asked.add_argument("--jobs", type=int, default=2, help="processes")
    asked.add_argument("--digests", action="store_true", help="print the digest of each story")
    order = asked.parse_args()
    seeds = range(order.first, order.first + order.seeds)
    began = time.perf_counter()
    failed, events, acked = 0, 0, 0
    with ProcessPoolExecutor(order.jobs) as pool:
        for result in pool.map(play, seeds, chunksize=CHUNK):
            if isinstance(result, tuple):
                failed += 1
                keep_seed(result[0])
                print(result[1], end="\n\n")
                continue
            events, acked = events + result.events, acked + result.acked
            if order.digests:
                print(result.seed, result.digest)
    minutes = (time.perf_counter() - began) / 60
    print(
        f"{order.seeds} seeds, {failed} failed; {acked} tasks accepted, {events} events; "
        f"{minutes * 60:.1f} s, {order.seeds / minutes:.0f} seeds/minute with {order.jobs} jobs"
    )
    if failed:
        print(f"the failing seeds are kept in {SEEDS_FILE.name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
