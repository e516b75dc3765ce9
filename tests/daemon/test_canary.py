"""A share of a pool's sessions for another model: sticky, shown, promoted or taken back (ORCH-3033)."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.changes import a_fake_config, change, rollout, served_by, settle, share
from tests.support.daemon import Daemon
from tests.support.waiting import wait_until

SESSIONS = 40


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A Ready pool, and a second model for it."""
    daemon = Daemon(tmp_path, a_fake_config(tmp_path)).start_ready()
    yield daemon
    daemon.close()


def side_of(daemon: Daemon, session_id: str) -> str:
    """The worker that serves a session."""
    worker: str = served_by(daemon, session_id=session_id, max_tokens=2)["replica_id"].split("/")[0]
    return worker


@pytest.mark.orch("ORCH-3033")
def test_a_canary_takes_its_share_of_the_sessions_and_keeps_each_of_them(daemon: Daemon) -> None:
    sessions = [str(uuid.UUID(int=index * 7919 * 2**90, version=4)) for index in range(SESSIONS)]
    change(daemon, "canary", {"new_model_ref": "other", "percent": 50})
    share(daemon)

    sides = {session: side_of(daemon, session) for session in sessions}

    assert set(sides.values()) == {"tiny", "tiny+2"}
    assert {session: side_of(daemon, session) for session in sessions} == sides


@pytest.mark.orch("ORCH-3033")
def test_a_share_of_nothing_and_of_everything(daemon: Daemon) -> None:
    change(daemon, "canary", {"new_model_ref": "other", "percent": 0})
    shown = share(daemon)["rollout"]
    session = str(uuid.uuid4())
    before = side_of(daemon, session)

    change(daemon, "rollout/share", {"percent": 100})

    assert (shown["kind"], shown["percent"], shown["to_model"], shown["judged"]) == ("canary", 0.0, "other", False)
    assert (before, side_of(daemon, session)) == ("tiny", "tiny+2")
    assert daemon.pool("tiny")["rollout"]["percent"] == 100.0


@pytest.mark.orch("ORCH-3033")
def test_a_promoted_canary_serves_everybody(daemon: Daemon) -> None:
    change(daemon, "canary", {"new_model_ref": "other", "percent": 0})
    share(daemon)

    promoted = change(daemon, "rollout/promote")

    page = rollout(daemon)
    assert (promoted["revision"], page["revision"], page["standby"]) == (2, 2, 1)
    assert served_by(daemon)["replica_id"].startswith("tiny+2/")


@pytest.mark.orch("ORCH-3033")
def test_an_aborted_canary_is_gone_and_its_sessions_go_back(daemon: Daemon) -> None:
    change(daemon, "canary", {"new_model_ref": "other", "percent": 100})
    share(daemon)
    session = str(uuid.uuid4())
    canary = side_of(daemon, session)

    change(daemon, "rollout/abort")

    assert (canary, side_of(daemon, session)) == ("tiny+2", "tiny")
    assert settle(daemon)["revision"] == 1
    wait_until(lambda: len(daemon.engine_pids()) == 1, within_s=20, what="the end of the canary's engine")


@pytest.mark.orch("ORCH-3033")
def test_a_canary_under_judgement_with_nothing_against_it_takes_over(daemon: Daemon) -> None:
    terms = {"min_tasks": 3, "promote_after_tasks": 4, "parity_min": 1.0}
    change(daemon, "canary", {"new_model_ref": "other", "percent": 100, "auto": True, "judge": terms})
    shown = share(daemon)["rollout"]

    for _ in range(5):
        served_by(daemon, max_tokens=2)

    page = settle(daemon)
    assert shown["judged"]
    assert (page["revision"], page["history"][0]["outcome"]) == (2, "switched")
    compared = daemon.wait_lines("golden prompts compared")
    assert [(line["matched"], line["total"]) for line in compared] == [(4, 4)]


@pytest.mark.orch("ORCH-3033")
def test_golden_prompts_that_cannot_be_compared_condemn_nobody_and_are_in_no_log(tmp_path: Path) -> None:
    prompts = {"golden_prompts": ["say it [[eos@1]]", "and this [[error@1]]"]}
    daemon = Daemon(tmp_path, a_fake_config(tmp_path, rollout=prompts)).start_ready()
    try:
        terms = {"parity_min": 1.0}
        change(daemon, "canary", {"new_model_ref": "other", "percent": 0, "auto": True, "judge": terms})
        share(daemon)

        line = daemon.wait_lines("golden prompts compared")[0]

        assert line["total"] == 0
        assert "golden prompt 2" in line["cause"]
        assert "[[error" not in daemon.log_text()
    finally:
        daemon.close()


@pytest.mark.orch("ORCH-3033")
def test_a_canary_goes_on_after_a_restart(daemon: Daemon) -> None:
    change(daemon, "canary", {"new_model_ref": "other", "percent": 100})
    share(daemon)
    wait_until(lambda: b'"canary":{' in (daemon.folder / "state" / "intent.json").read_bytes(), what="the wish on disk")

    daemon.kill()
    daemon.start_ready()

    assert share(daemon)["rollout"]["percent"] == 100.0
    assert served_by(daemon)["model_digest"] != daemon.pool("tiny")["model_digest"]
