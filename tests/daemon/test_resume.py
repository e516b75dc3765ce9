"""A client that comes back with Last-Event-ID gets exactly the rest, whoever was killed in the middle of its stream."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import Daemon, a_request
from tests.support.fake_engine_script import Script
from tests.support.pools import a_fake_pool, a_scripted_pool
from tests.support.streams import Event, Stream
from tests.support.waiting import wait_until

SLOW = "[[slow_ms@10]]"
TOKENS = 60


def read_some(daemon: Daemon, task_id: str, events_count: int, after: int | None = None) -> list[Event]:
    """The first lasting events of a stream; then the client leaves."""
    with daemon.open_stream(task_id, after) as events:
        lasting = (event for event in events if event.name != "metrics")
        return [next(lasting) for _ in range(events_count)]


def joined(seen: list[Event], rest: Stream) -> Stream:
    """Both parts as one stream, which must be as if nothing had happened."""
    return Stream([*seen, *(event for event in rest.events if event.name != "metrics")]).check()


def kill_engines(daemon: Daemon) -> None:
    for pid in daemon.engine_pids():
        os.kill(pid, signal.SIGKILL)


# The daemon is killed


@pytest.mark.parametrize("seen_count", [1, 2, 25])
@pytest.mark.orch("ORCH-3024", "ORCH-3045")
def test_a_strict_stream_goes_on_after_a_kill_of_the_daemon(make_daemon: MakeDaemon, seen_count: int) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    whole = daemon.read_stream(daemon.accept(prompt=f"go on {SLOW}", max_tokens=TOKENS, seed=3))
    task_id = daemon.accept(prompt=f"go on {SLOW}", max_tokens=TOKENS, seed=3)
    seen = read_some(daemon, task_id, seen_count)
    daemon.kill()
    daemon.start()

    rest = daemon.read_stream(task_id, after=seen[-1].seq)

    assert joined(seen, rest).text == whole.text
    assert rest.end.data["tokens_out"] == TOKENS
    assert daemon.read_stream(task_id).text == whole.text


def test_it_goes_on_after_one_kill_upon_another(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    whole = daemon.read_stream(daemon.accept(prompt=f"again {SLOW}", max_tokens=TOKENS, seed=3))
    task_id = daemon.accept(prompt=f"again {SLOW}", max_tokens=TOKENS, seed=3)
    seen = read_some(daemon, task_id, 20)
    for more in (1, 15):
        daemon.kill()
        daemon.start()
        seen += read_some(daemon, task_id, more, after=seen[-1].seq)

    rest = daemon.read_stream(task_id, after=seen[-1].seq)

    assert joined(seen, rest).text == whole.text
    assert daemon.ask("GET", f"/v1/tasks/{task_id}").json["attempt"] == 3


def test_a_cancel_after_a_restart_says_how_much_was_delivered(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    task_id = daemon.accept(prompt=SLOW, max_tokens=400)
    seen = read_some(daemon, task_id, 30)
    daemon.kill()
    daemon.start()

    reply = daemon.ask("POST", f"/v1/tasks/{task_id}/cancel")

    emitted = int(reply.headers["X-Tokens-Emitted"])
    assert emitted >= 29
    with daemon.open_stream(task_id, after=seen[-1].seq) as events:
        (end,) = [event for event in events if event.name != "metrics"]
    assert (end.name, end.data["finish_reason"], end.seq) == ("end", "canceled", emitted + 2)


@pytest.mark.parametrize("change", [{"tokens": ("other",)}, {"eos_after": 3}], ids=["differs", "ends too early"])
def test_a_rerun_that_differs_from_what_was_delivered_is_told_and_counted(
    make_daemon: MakeDaemon, tmp_path: Path, change: dict[str, Any]
) -> None:
    script = tmp_path / "script.json"
    daemon = make_daemon(a_scripted_pool(script, Script())).start_ready()
    task_id = daemon.accept(prompt=SLOW, max_tokens=TOKENS)
    seen = read_some(daemon, task_id, 20)
    daemon.kill()
    script.write_text(Script(**change).to_json())
    daemon.start()

    with daemon.open_stream(task_id, after=seen[-1].seq) as events:
        (error,) = [event for event in events if event.name != "metrics"]

    assert (error.data["code"], error.data["reason"]) == ("WORKER_RESET", "determinism")
    assert sum(daemon.series("streams_diverged_total").values()) == 1


def test_a_best_effort_stream_that_delivered_is_told_to_retry(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool(determinism="best_effort")).start_ready()
    task_id = daemon.accept(prompt=SLOW, max_tokens=400)
    seen = read_some(daemon, task_id, 2)
    daemon.kill()
    daemon.start()

    with daemon.open_stream(task_id, after=seen[-1].seq) as events:
        (error,) = list(events)

    assert (error.name, error.data["code"], error.data["retriable"]) == ("error", "WORKER_RESET", True)
    assert daemon.ask("GET", f"/v1/tasks/{task_id}").json["tokens_emitted"] >= 1


def test_a_best_effort_stream_that_delivered_nothing_runs_again_unnoticed(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    script = tmp_path / "script.json"
    daemon = make_daemon(a_scripted_pool(script, Script(), determinism="best_effort")).start_ready()
    script.write_text(Script(fault="hang", fault_at=0).to_json())
    task_id = daemon.accept(max_tokens=TOKENS)
    seen = read_some(daemon, task_id, 1)
    script.write_text(Script().to_json())
    daemon.kill()
    daemon.start()

    rest = daemon.read_stream(task_id, after=seen[-1].seq)

    assert joined(seen, rest).end.name == "end"


def test_a_task_under_which_every_daemon_dies_ends(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    task_id = daemon.accept(prompt=SLOW, max_tokens=400)
    seen = read_some(daemon, task_id, 2)
    for _ in range(4):
        daemon.kill()
        daemon.start()
        wait_until(
            lambda: daemon.ask("GET", f"/v1/tasks/{task_id}").json["state"] == "running", within_s=30, what="a run"
        )
    daemon.kill()
    daemon.start_ready()

    with daemon.open_stream(task_id, after=seen[-1].seq) as events:
        (error,) = list(events)

    assert (error.data["code"], error.data["reason"], error.data["retriable"]) == ("WORKER_RESET", "poison", False)
    assert daemon.read_stream(daemon.accept(prompt="fine")).end.name == "end"


def test_the_deadline_goes_on_counting_while_no_daemon_runs(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    daemon.accept(prompt=SLOW, max_tokens=500)
    waiting = daemon.accept(prompt="late", deadline_ms=400)
    daemon.kill()
    daemon.start()

    stream = daemon.read_stream(waiting)

    assert (stream.end.data["code"], stream.end.data["reason"]) == ("DECODE_TIMEOUT", "deadline")


@pytest.mark.fault("F51")
@pytest.mark.orch("ORCH-3024")
def test_a_storm_of_one_submit_is_one_job_also_over_a_restart(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    request = a_request(prompt="once")

    def submit(_: int) -> tuple[int, str]:
        reply = daemon.ask("POST", "/v1/tasks", request)
        return reply.status, reply.json["job_id"]

    with ThreadPoolExecutor(20) as crowd:
        before = set(crowd.map(submit, range(100)))
        with daemon.silence():
            daemon.kill()
            daemon.start()
        after = set(crowd.map(submit, range(100)))

    assert len(before) == 1
    assert after == before
    assert {status for status, _ in after} == {202}
    assert daemon.read_stream(str(request["task_id"])).end.name == "end"


# The engine is killed


@pytest.mark.parametrize("has_sibling", [True, False], ids=["sibling", "alone"])
@pytest.mark.parametrize("seen_count", [1, 2, 25])
@pytest.mark.orch("ORCH-3045")
def test_a_strict_stream_has_no_seam_where_its_engine_was_killed(
    make_daemon: MakeDaemon, seen_count: int, *, has_sibling: bool
) -> None:
    names = ("a", "b") if has_sibling else ("a",)
    daemon = make_daemon(*(a_fake_pool(name) for name in names), simulate="2x8GiB").start_ready()
    whole = daemon.read_stream(daemon.accept(prompt=f"no seam {SLOW}", max_tokens=TOKENS, seed=3))
    task_id = daemon.accept(prompt=f"no seam {SLOW}", max_tokens=TOKENS, seed=3)
    with daemon.open_stream(task_id) as events:
        lasting = (event for event in events if event.name != "metrics")
        seen = [next(lasting) for _ in range(seen_count)]
        replica = daemon.ask("GET", f"/v1/tasks/{task_id}").json["replica_id"]
        os.kill(daemon.pool(replica.partition("/")[0])["pid"], signal.SIGKILL)
        stream = Stream([*seen, *lasting]).check()

    assert stream.end.name == "end"
    assert stream.text == whole.text
    assert daemon.ask("GET", f"/v1/tasks/{task_id}").json["attempt"] == 2


def test_a_reader_that_left_before_the_kill_gets_the_rest(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    whole = daemon.read_stream(daemon.accept(prompt=f"left {SLOW}", max_tokens=TOKENS, seed=3))
    task_id = daemon.accept(prompt=f"left {SLOW}", max_tokens=TOKENS, seed=3)
    seen = read_some(daemon, task_id, 20)
    kill_engines(daemon)

    rest = daemon.read_stream(task_id, after=seen[-1].seq)

    assert joined(seen, rest).text == whole.text


def test_a_best_effort_task_without_a_token_survives_its_engine(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    daemon = make_daemon(a_scripted_pool(script, Script(), determinism="best_effort")).start_ready()
    script.write_text(Script(fault="hang", fault_at=0).to_json())
    task_id = daemon.accept(max_tokens=TOKENS)
    read_some(daemon, task_id, 1)
    script.write_text(Script().to_json())
    kill_engines(daemon)

    end = daemon.read_stream(task_id).end

    assert end.name == "end", end


@pytest.mark.fault("F52")
def test_poison_ends_after_two_workers_and_the_tasks_behind_it_are_served(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    poison = daemon.accept(prompt="x [[die@3]] [[slow_ms@100]]")
    behind = [daemon.accept(prompt=f"fine {number}") for number in range(5)]
    stream = daemon.read_stream(poison)

    assert stream.names == ["started", "token", "token", "token", "error"]
    assert (stream.end.data["reason"], stream.end.data["retriable"]) == ("poison", False)
    assert daemon.ask("GET", f"/v1/tasks/{poison}").json["attempt"] == 2
    assert {daemon.read_stream(task_id).end.name for task_id in behind} == {"end"}
    assert daemon.pool("tiny")["metrics"]["restarts_total"] == 2


def test_the_counters_conserve_tasks_over_a_restart_too(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    task_ids = [daemon.accept(prompt=SLOW, max_tokens=TOKENS) for _ in range(3)]
    read_some(daemon, task_ids[0], 5)
    daemon.kill()
    daemon.start()

    for task_id in task_ids:
        daemon.wait_terminal(task_id)

    ended = sum(sum(daemon.series(f"tasks_{how}_total").values()) for how in ("finished", "canceled", "dropped"))
    assert sum(daemon.series("tasks_enqueued_total").values()) == ended == len(task_ids)
