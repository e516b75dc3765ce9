import random
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.runtime.journal.records import Restored
from tests.support.journals import finished_ids, unfinished_ids, what_is_left

ROUNDS = 10
ACKS_MAX = 400


def _acknowledged_until_killed(state_dir: Path, durability: str, run: int) -> list[tuple[str, str]]:
    """Kill the writer after a random number of acknowledgements; returns all that it had printed by then."""
    kill_after = random.Random(run).randrange(1, ACKS_MAX)
    command = [sys.executable, "-m", "tests.support.crash_writer", str(state_dir), durability, str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(kill_after)]
        writer.kill()
        lines += writer.stdout.readlines()
    assert writer.returncode == -9
    whole = [line.split() for line in lines if line.endswith("\n")]
    return [(verb, job_id) for verb, job_id in whole]


def _check(restored: Restored, acknowledged: list[tuple[str, str]]) -> None:
    waiting, ended = set(unfinished_ids(restored)), set(finished_ids(restored))
    accepted_acks = {job_id for verb, job_id in acknowledged if verb == "accepted"}
    finished_acks = {job_id for verb, job_id in acknowledged if verb == "finished"}
    assert restored.damage is None
    assert waiting & ended == set()
    assert accepted_acks <= waiting | ended
    assert finished_acks <= ended


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_what_was_acknowledged_survives_kill_9_at_any_moment(tmp_path: Path, durability: str) -> None:
    acknowledged: list[tuple[str, str]] = []

    for run in range(ROUNDS):
        acknowledged += _acknowledged_until_killed(tmp_path, durability, run)
        _check(what_is_left(tmp_path), acknowledged)

    assert len(acknowledged) > ROUNDS
    assert any(verb == "finished" for verb, _ in acknowledged)
