"""What an operator brought back holds over crashes, restarts and upgrades, until the file says something else."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.daemon.test_upgrade import upgrade
from tests.support.change_crashes import put_other_queue, put_pool, reload_config
from tests.support.daemon import Daemon
from tests.support.pools import a_fake_pool

pytestmark = pytest.mark.orch("ORCH-3031")


@pytest.fixture
def daemon(make_daemon: MakeDaemon) -> Daemon:
    """One that took up a file and was brought back from it."""
    daemon = make_daemon(a_fake_pool()).start_ready()
    put_other_queue(daemon)
    reload_config(daemon, revert=True)
    return daemon


def restart(daemon: Daemon) -> None:
    assert daemon.stop() == 0
    daemon.start_ready()


def crash(daemon: Daemon) -> None:
    daemon.kill()
    daemon.start_ready()


def differs(daemon: Daemon) -> list[str]:
    """The keys of the file that are not in force."""
    changes: list[dict[str, Any]] = reload_config(daemon, dry_run=True)["changes"]
    return [each["key"] for each in changes]


def standing(daemon: Daemon) -> tuple[int, list[str], list[str]]:
    status = daemon.status()
    return status["config_generation"], status["causes"], differs(daemon)


@pytest.mark.parametrize("begin_again", [crash, restart, upgrade])
def test_what_was_brought_back_is_in_force_in_the_next_life(
    daemon: Daemon, begin_again: Callable[[Daemon], object]
) -> None:
    before = standing(daemon)

    begin_again(daemon)

    assert standing(daemon) == before
    generation, causes, keys = before
    assert (generation, len(causes), len(keys)) == (3, 1, 1)
    assert "mend the file" in causes[0]


def test_a_file_that_says_something_else_since_is_taken_up_at_the_next_start(daemon: Daemon) -> None:
    put_pool(daemon, queue={"capacity": 11})

    crash(daemon)

    assert standing(daemon) == (4, [], [])


def test_a_reload_takes_the_file_up_again_for_good(daemon: Daemon) -> None:
    reload_config(daemon)

    crash(daemon)

    assert standing(daemon) == (4, [], [])


def test_two_reverts_are_none(daemon: Daemon) -> None:
    reload_config(daemon, revert=True)
    in_force = standing(daemon)

    crash(daemon)

    assert standing(daemon) == in_force == (4, [], [])


def test_what_was_brought_back_and_cannot_be_used_any_more_gives_way_to_the_file(daemon: Daemon) -> None:
    daemon.kill()
    kept = daemon.folder / "state" / "config.json"
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "text": "pools: 7"}))

    daemon.start_ready()

    assert standing(daemon) == (4, [], [])
    assert "cannot be used any more" in daemon.log_text()
