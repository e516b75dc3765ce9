"""Back to the revision before: one action, at once where it is loaded, idempotent, also over a restart (ORCH-3033)."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.changes import a_fake_config, change, rollout, served_by, settle
from tests.support.daemon import Daemon
from tests.support.waiting import wait_until

SWITCH_S_MAX = 1.0


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A pool that was reloaded: revision 2 serves, revision 1 is still loaded."""
    daemon = Daemon(tmp_path, a_fake_config(tmp_path)).start_ready()
    change(daemon, "reload", {"new_model_ref": "other"})
    settle(daemon)
    yield daemon
    daemon.close()


@pytest.mark.orch("ORCH-3033")
def test_a_rollback_is_one_request_and_the_next_task_goes_to_the_old_model(daemon: Daemon) -> None:
    begun_s = time.monotonic()

    answer = change(daemon, "rollback")
    started = served_by(daemon)

    assert time.monotonic() - begun_s < SWITCH_S_MAX
    assert answer["revision"] == 1
    assert started["replica_id"] == "tiny/1"
    assert rollout(daemon)["history"][0]["kind"] == "rollback"


@pytest.mark.orch("ORCH-3033")
def test_asking_twice_is_asking_once(daemon: Daemon) -> None:
    first = change(daemon, "rollback")

    second = change(daemon, "rollback")

    assert first == second
    assert served_by(daemon)["replica_id"] == "tiny/1"
    assert [note["kind"] for note in rollout(daemon)["history"]] == ["rollback", "reload"]


@pytest.mark.orch("ORCH-3033")
def test_after_a_restart_the_model_before_is_loaded_anew(daemon: Daemon) -> None:
    daemon.stop()
    daemon.start_ready()
    assert rollout(daemon)["standby"] is None

    answer = change(daemon, "rollback")
    page = settle(daemon)

    assert (answer["revision"], page["revision"], page["model_ref"]) == (3, 3, "tiny")
    assert page["history"][0]["kind"] == "rollback"
    assert served_by(daemon)["replica_id"].startswith("tiny+3/")


@pytest.mark.orch("ORCH-3033")
def test_a_rollback_outlives_a_restart(daemon: Daemon) -> None:
    change(daemon, "rollback")
    wait_until(
        lambda: b'"is_rolled_back":true' in (daemon.folder / "state" / "intent.json").read_bytes(),
        what="the wish on disk",
    )

    daemon.kill()
    daemon.start_ready()

    page = rollout(daemon)
    assert (page["revision"], page["model_ref"]) == (1, "tiny")
    assert change(daemon, "rollback")["revision"] == 1


def test_a_pool_that_never_changed_has_nothing_to_go_back_to(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, a_fake_config(tmp_path)).start_ready()
    try:
        reply = daemon.ask_control("POST", "/v1/pools/tiny/rollback", {})

        assert reply.status == 404
        assert reply.json["reason"] == "not_found"
    finally:
        daemon.close()
