"""The long versions: damage at every byte, a kill at every call, and 20,000 tasks through one journal."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.support.crash_sweep import a_quick_folder, sweep
from tests.support.crashed_journal import CrashedJournal, flipped
from tests.support.turnover import turn_over

pytestmark = pytest.mark.accept

TIMES = 100
TASKS = 20_000
KEPT = 500
FILE_BYTES_MAX = 32 * 2**20
FLIPS_ELSEWHERE = int(os.environ.get("ACCEPT_FLIPS", "500"))
FLIP_STRIDE = int(os.environ.get("ACCEPT_FLIP_STRIDE", "29"))
"""Of a page's bytes; one checksum covers them all. 1 is every byte, and takes an hour."""


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder where a sync costs nothing: there are tens of thousands of restarts."""
    with tempfile.TemporaryDirectory(dir=a_quick_folder(tmp_path)) as place:
        yield Path(place)


@pytest.fixture
def crashed(scratch: Path) -> CrashedJournal:
    return CrashedJournal(scratch / "crashed")


def test_any_kind_of_call_may_be_the_last_a_hundred_times(tmp_path: Path) -> None:
    print(f"\n{sweep(tmp_path, TIMES, timeout_s=3_500)}")


def test_the_log_may_be_cut_at_every_byte_of_its_last_commit(crashed: CrashedJournal, scratch: Path) -> None:
    places = range(crashed.last_commit_at, len(crashed.log) + 1)
    for at in places:
        restored = crashed.restore_damaged(scratch / "s", log=crashed.log[:at])
        crashed.check_log_damage(restored, at, is_cut=True)
    print(f"\n{len(places)} cuts")


def test_bytes_of_the_last_two_commits_may_be_flipped_and_others(crashed: CrashedJournal, scratch: Path) -> None:
    chance = Random(8)
    tail = crashed.commits[-3].log_end
    places = [*range(tail, len(crashed.log), FLIP_STRIDE), *(chance.randrange(tail) for _ in range(FLIPS_ELSEWHERE))]
    damages = 0
    for at in places:
        restored = crashed.restore_damaged(scratch / "s", log=flipped(crashed.log, at))
        crashed.check_log_damage(restored, at, is_cut=False)
        damages += restored.damage is not None
    print(f"\n{len(places)} flips, {damages} reported")


async def test_twenty_thousand_tasks_leave_a_bounded_file(tmp_path: Path) -> None:
    sizes = await turn_over(tmp_path, tasks=TASKS, kept=KEPT)

    print(f"\n{TASKS} tasks, {KEPT} kept: {max(sizes) / 2**20:.1f} MiB at most, {sizes[-1] / 2**20:.1f} MiB at the end")
    assert max(sizes) < FILE_BYTES_MAX
    assert max(sizes[len(sizes) // 2 :]) <= max(sizes[: len(sizes) // 2])
