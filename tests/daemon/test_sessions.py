"""Sessions through the whole daemon, on the scripted fake engine: affinity, failover, deletion, what is shown."""

import os
import signal
import uuid
from typing import Any

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import Daemon
from tests.support.pools import a_fake_pool
from tests.support.streams import Stream
from tests.support.waiting import wait_until

SESSION = "c9f0f895-fb98-4b2c-8a6e-1d2f3a4b5c6d"
BEST_EFFORT: dict[str, Any] = {"determinism": "best_effort", "slots": 2}


def ask(daemon: Daemon, prompt: str, session_id: str = SESSION, **fields: Any) -> Stream:
    """One turn of a session, read to its end."""
    turn = {"determinism": "best_effort", "kv_hint": "reuse", "session_id": session_id, "prompt": prompt}
    return daemon.read_stream(daemon.accept(**{**turn, **fields}))


def warmth(stream: Stream) -> tuple[bool, bool]:
    """What `started` and `end` say."""
    return stream.events[0].data["kv_warmth"], stream.end.data["kv_warmth"]


def where(stream: Stream) -> str:
    replica_id: str = stream.events[0].data["replica_id"]
    return replica_id


def session(daemon: Daemon, session_id: str = SESSION) -> dict[str, Any]:
    found: dict[str, Any] = daemon.ask("GET", f"/v1/sessions/{session_id}").json
    return found


@pytest.mark.orch("ORCH-3009", "ORCH-3021", "ORCH-3023")
def test_a_session_stays_with_its_worker_and_survives_its_loss_cold(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool("one", **BEST_EFFORT), a_fake_pool("two", **BEST_EFFORT)).start_ready()
    first, second = ask(daemon, "a b c"), ask(daemon, "a b c d")
    other = ask(daemon, "quite another", str(uuid.uuid4()))
    kept = session(daemon)
    home = where(second).split("/")[0]
    os.kill(daemon.pool(home)["pid"], signal.SIGKILL)
    wait_until(lambda: not daemon.pool(home)["ready"], what="the loss of the worker")
    lost = session(daemon)
    third = ask(daemon, "a b c d e")
    fourth = ask(daemon, "a b c d e f")

    assert [warmth(each) for each in (first, second, other)] == [(False, False), (True, True), (False, False)]
    assert where(first) == where(second)
    assert (kept["turns"], kept["kv_warmth"], lost["turns"], lost["kv_warmth"]) == (2, True, 2, False)
    assert 0 < kept["ttl_ms_remaining"] <= 600_000
    assert kept["kv_bytes"] > lost["kv_bytes"] == 0
    assert [warmth(each) for each in (third, fourth)] == [(False, False), (True, True)]
    assert where(third).split("/")[0] != home
    assert not any(each.end.data["kv_migrated"] for each in (first, second, third, fourth))


@pytest.mark.orch("ORCH-3027", "ORCH-3022")
def test_log_view_and_metrics_say_whether_a_turn_was_warm(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool(determinism="best_effort")).start_ready()
    ask(daemon, "a b c")
    ask(daemon, "a b c d")
    usage = max(daemon.series("kv_cache_usage_ratio").values())
    daemon.read_stream(daemon.accept(prompt="no session", determinism="best_effort"))
    ask(daemon, "a b c d e")

    views = daemon.ask("GET", "/v1/tasks").json["tasks"]
    lines = daemon.wait_tasks_logged(4)
    assert [line["kv_warmth"] for line in lines] == [False, True, False, False]
    assert [line["eviction_events"] for line in lines] == [0, 0, 1, 1]
    assert [view["kv_warmth"] for view in reversed(views)] == [False, True, False, False]
    assert 0 < usage < 1
    (labels,) = daemon.series("eviction_events_total")
    assert daemon.series("eviction_events_total") == {labels: 1}
    assert set(labels.strip("{}").replace('"', "").split(",")) == {
        "engine=llamacpp", "engine_version=b11434-fake", "pool_id=tiny",
    }  # fmt: skip
    assert sum(daemon.series("kv_warmth_misses_total").values()) == 0


@pytest.mark.orch("ORCH-3021")
def test_a_deleted_session_starts_anew(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool(determinism="best_effort")).start_ready()
    ask(daemon, "a b c")
    unknown = daemon.ask("DELETE", f"/v1/sessions/{uuid.uuid4()}")
    deleted = [daemon.ask("DELETE", f"/v1/sessions/{SESSION}") for _ in range(2)]
    gone = daemon.ask("GET", f"/v1/sessions/{SESSION}")
    listed = daemon.ask("GET", "/v1/sessions").json["sessions"]
    turn = ask(daemon, "a b c d")

    assert [reply.status for reply in (unknown, *deleted, gone)] == [404, 204, 204, 404]
    assert listed == []
    assert warmth(turn) == (False, False)
    assert session(daemon)["turns"] == 1


@pytest.mark.orch("ORCH-3021")
def test_the_caps_are_those_of_the_config(make_daemon: MakeDaemon) -> None:
    settings = {"sessions": {"ttl_ms": 60_000, "turns_max": 2}}
    daemon = make_daemon(a_fake_pool(determinism="best_effort"), settings=settings).start_ready()

    turns = [ask(daemon, "a b c") for _ in range(4)]

    assert [warmth(turn)[1] for turn in turns] == [False, True, False, True]
    assert session(daemon)["ttl_ms_remaining"] <= 60_000


@pytest.mark.orch("ORCH-3045")
@pytest.mark.parametrize("fields", [{"determinism": "strict"}, {"kv_hint": "cold"}], ids=["strict", "cold"])
def test_who_asks_for_no_reuse_gets_none_and_makes_no_session(make_daemon: MakeDaemon, fields: dict[str, str]) -> None:
    daemon = make_daemon(a_fake_pool(determinism="best_effort")).start_ready()

    turns = [ask(daemon, "a b c", **fields) for _ in range(2)]

    assert [warmth(turn) for turn in turns] == [(False, False)] * 2
    assert daemon.ask("GET", f"/v1/sessions/{SESSION}").status == 404
