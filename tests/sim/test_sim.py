"""A few seeds of the simulated world, those that once failed, and the promise that a seed tells one story only."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.kept import keep_seed, kept_seeds
from tests.sim.run import run_seed

GROUPS = 4
SEEDS_PER_GROUP = 10


@pytest.mark.orch("ORCH-3051", "ORCH-3053", "ORCH-3010", "ORCH-1101", "ORCH-3024", "ORCH-3026")
@pytest.mark.parametrize("group", range(GROUPS))
def test_every_accepted_task_ends_exactly_once_in_a_faulty_world(group: int) -> None:
    reports = [run_seed(seed) for seed in range(group * SEEDS_PER_GROUP, (group + 1) * SEEDS_PER_GROUP)]

    assert sum(report.acked for report in reports) > 10 * SEEDS_PER_GROUP
    assert sum(report.lives for report in reports) > SEEDS_PER_GROUP


@pytest.mark.parametrize("seed", kept_seeds())
def test_a_seed_that_failed_once_never_fails_again(seed: int) -> None:
    assert run_seed(seed).events > 0


@pytest.mark.parametrize("seed", [7, 48, 83])
def test_the_same_seed_tells_the_same_story(seed: int) -> None:
    assert run_seed(seed) == run_seed(seed)


def test_other_seeds_tell_other_stories() -> None:
    assert len({run_seed(seed).digest for seed in range(5)}) == 5


def digests(hash_seed: str) -> str:
    order = [sys.executable, "-m", "tests.sim", "--seeds", "6", "--first", "60", "--jobs", "1", "--digests"]
    done = subprocess.run(
        order,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.partition(" seeds,")[0]


def test_no_story_depends_on_the_order_of_a_set() -> None:
    one, other = digests("1"), digests("2")

    assert one == other
    assert len(one.splitlines()) == 7


def test_a_failing_seed_is_kept_once(tmp_path: Path) -> None:
    file = tmp_path / "seeds.txt"
    file.write_text("# kept\n5  # a reason\n")
    for seed in (9, 5, 9):
        keep_seed(seed, file)

    assert kept_seeds(file) == [5, 9]
