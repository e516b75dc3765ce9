"""A task's way through the whole daemon, on the real llama.cpp server with a tiny model."""

import os
import signal
import uuid

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import Daemon, a_request
from tests.support.pools import a_fake_pool
from tests.support.waiting import wait_until

pytestmark = pytest.mark.engines

ORCH_3027 = [
    "job_id",
    "session_id",
    "client_id",
    "engine",
    "pool_id",
    "replica_id",
    "model_id",
    "quant",
    "ctx",
    "tensor_split",
    "engine_version",
    "sampler_profile_version",
    "kv_warmth",
    "queue_time_ms",
    "decode_time_ms",
    "tokens_in",
    "tokens_out",
    "eviction_events",
    "oom_events",
    "driver_reset_events",
]


@pytest.mark.orch("ORCH-2002", "ORCH-3024", "ORCH-3029", "ORCH-3032", "ORCH-3054")
def test_a_task_is_accepted_streamed_and_remembered(daemon: Daemon) -> None:
    reply = daemon.submit(max_tokens=24)
    stream = daemon.read_stream(reply.json["task_id"])

    assert reply.status == 202
    assert set(reply.json) == {"task_id", "job_id", "queue_position", "predicted_start_ms", "backoff_ms"}
    assert reply.headers["X-Queue-Position"] == "0"
    started = stream.events[0]
    assert started.name == "started"
    assert started.data["queue_position"] == 0
    assert started.data["pool_id"] == "tiny"
    assert started.data["engine_version"]
    assert started.data["model_digest"].startswith("sha256:")
    assert stream.end.name == "end"
    assert stream.end.data["finish_reason"] == "length"
    assert stream.end.data["tokens_out"] == 24
    view = daemon.ask("GET", f"/v1/tasks/{reply.json['task_id']}").json
    assert view["state"] == "ended"
    assert view["result"]["text"] == stream.text != ""
    assert view["result"]["tokens_out"] == 24


def test_a_reader_resumes_after_any_event(daemon: Daemon) -> None:
    task_id = daemon.accept(max_tokens=12)
    whole = daemon.read_stream(task_id)
    last = whole.end.seq

    for after in range(1, last):
        rest = daemon.read_stream(task_id, after=after)
        assert rest.events == [event for event in whole.events if event.seq > after]


@pytest.mark.orch("ORCH-3045")
def test_the_same_task_twice_gives_the_same_bytes_also_after_a_worker_restart(daemon: Daemon) -> None:
    def run() -> str:
        fields = {"prompt": "once upon a time", "max_tokens": 64, "seed": 7, "sampler": {"temperature": 0.9}}
        return daemon.read_stream(daemon.accept(**fields)).text

    first, second = run(), run()
    pid = daemon.pool("tiny")["pid"]
    (worker,) = daemon.engine_pids()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: daemon.pool("tiny")["pid"] not in (pid, None), what="a new worker")
    daemon.wait_ready()
    third = run()

    assert first == second == third != ""


@pytest.mark.orch("ORCH-3017", "ORCH-3026")
def test_a_cancelled_task_shows_no_token_more_than_was_said(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    task_id = daemon.accept(prompt="x [[slow_ms@10]]", max_tokens=480)
    with daemon.open_stream(task_id) as events:
        seen = [next(events) for _ in range(4)]
        reply = daemon.ask("POST", f"/v1/tasks/{task_id}/cancel")
        seen += list(events)

    emitted = int(reply.headers["X-Tokens-Emitted"])
    assert reply.status == 204
    assert sum(event.name == "token" for event in seen) == emitted
    assert seen[-1].name == "end"
    assert seen[-1].data["finish_reason"] == "canceled"
    again = daemon.ask("POST", f"/v1/tasks/{task_id}/cancel")
    assert (again.status, int(again.headers["X-Tokens-Emitted"])) == (204, emitted)
    wait_until(lambda: daemon.pool("tiny")["metrics"]["slots_busy"] == 0, what="a free slot")


def test_a_repeated_submit_is_the_same_task_and_another_body_is_refused(daemon: Daemon) -> None:
    request = a_request()
    first = daemon.ask("POST", "/v1/tasks", request)
    again = daemon.ask("POST", "/v1/tasks", request)
    other = daemon.ask("POST", "/v1/tasks", {**request, "max_tokens": 3})

    assert (first.status, again.status) == (202, 202)
    assert first.json["job_id"] == again.json["job_id"]
    assert other.status == 400
    assert other.json["code"] == "INVALID_PARAMS"


@pytest.mark.orch("ORCH-3014", "ORCH-3015")
def test_what_does_not_fit_the_context_is_refused_before_the_queue(daemon: Daemon) -> None:
    too_wide = daemon.submit(ctx=4096)
    too_long = daemon.submit(prompt="word " * 600, max_tokens=16)
    just_fits = daemon.submit(prompt="word " * 100, max_tokens=8)

    assert (too_wide.status, too_wide.json["reason"]) == (400, "ctx")
    assert (too_long.status, too_long.json["reason"]) == (400, "token_budget")
    assert just_fits.status == 202
    assert daemon.wait_terminal(just_fits.json["task_id"])["state"] == "ended"


@pytest.mark.orch("ORCH-3004", "ORCH-3005", "ORCH-2007")
def test_a_full_queue_refuses_with_an_honest_hint(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool(queue={"capacity": 2, "full_policy": "reject"})).start_ready()
    slow = {"prompt": "x [[slow_ms@10]]", "max_tokens": 480}
    running = daemon.accept(**slow)
    waiting = [daemon.accept(**slow) for _ in range(2)]

    refused = daemon.submit(max_tokens=500)

    assert refused.status == 429
    assert refused.json["code"] == "ADMISSION_REJECT"
    assert refused.json["policy"] == refused.json["policy_label"] == "reject"
    assert int(refused.headers["Retry-After"]) >= 1
    assert int(refused.headers["X-Backoff-Ms"]) == refused.json["retry_after_ms"]
    for task_id in [running, *waiting]:
        daemon.ask("POST", f"/v1/tasks/{task_id}/cancel")


def test_unknown_things_are_not_found(daemon: Daemon) -> None:
    unknown = str(uuid.uuid4())
    paths = [
        ("GET", f"/v1/tasks/{unknown}"),
        ("GET", f"/v1/tasks/{unknown}/stream"),
        ("POST", f"/v1/tasks/{unknown}/cancel"),
        ("GET", "/v1/pools/nope/health"),
        ("GET", "/v2/tasks"),
    ]

    for method, path in paths:
        reply = daemon.ask(method, path)
        assert (reply.status, reply.json["code"], reply.json["reason"]) == (404, "INVALID_PARAMS", "not_found"), path


@pytest.mark.orch("ORCH-3027", "ORCH-3028")
def test_a_task_leaves_its_line_in_the_log_and_the_counters_conserve(daemon: Daemon) -> None:
    ended = [daemon.accept(prompt="a secret prompt", max_tokens=4) for _ in range(3)]
    for task_id in ended:
        daemon.read_stream(task_id)
    cancelled = daemon.accept(max_tokens=450)
    daemon.ask("POST", f"/v1/tasks/{cancelled}/cancel")
    daemon.wait_terminal(cancelled)

    lines = daemon.wait_tasks_logged(4)
    assert all(set(ORCH_3027) <= set(line) for line in lines)
    assert "secret" not in daemon.log_text()
    total = {name: sum(daemon.series(f"tasks_{name}_total").values()) for name in ("enqueued", "finished", "canceled")}
    alive = sum(daemon.series("tasks_alive").values())
    assert total["enqueued"] == 4 == total["finished"] + total["canceled"] + alive
    page = daemon.ask("GET", "/metrics").body.decode()
    samples = [line for line in page.splitlines() if line and not line.startswith("#")]
    assert all('engine="' in line and 'engine_version="' in line for line in samples)
    assert ended[0] not in page


def test_a_list_says_how_tasks_ended_and_leaves_their_texts_out(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    task_id = daemon.accept(max_tokens=5)
    whole = daemon.wait_terminal(task_id)
    daemon.kill()
    daemon.start()

    (listed,) = daemon.ask("GET", "/v1/tasks").json["tasks"]

    assert listed["result"] == {name: whole["result"][name] for name in whole["result"] if name != "text"}
    assert daemon.ask("GET", f"/v1/tasks/{task_id}").json["result"]["text"] == whole["result"]["text"] != ""
