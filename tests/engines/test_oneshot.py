"""Embedding and rerank on the real llama.cpp server behind the daemon: the engine's own numbers, and once only."""

import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import to_builtins

from adapters.base import Workload
from adapters.llamacpp import LlamaCpp
from adapters.llamacpp_launch import plan_launch
from tests.adapters.builders import launch
from tests.adapters.oneshot import answered
from tests.support.daemon import Daemon
from tests.support.llama_process import Process, free_port
from tests.support.pools import REAL_ENGINE, a_model, a_oneshot_pool, a_pool, a_ranker, an_embedder
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.engines, pytest.mark.timeout(180)]

CTX = 512
SLOW_LAYERS = 4
LONG = "slow " * 100
"""402 tokens of the tiny models, which know letters only."""

MakeDaemon = Callable[..., Daemon]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the models are."""
    pytest.importorskip("xllamacpp", reason="the extra `demo` is not installed")
    return tmp_path_factory.mktemp("oneshot")


@pytest.fixture(scope="module")
def models(folder: Path) -> dict[str, Any]:
    """One that embeds, slowly enough to be caught at it, one that ranks, and one that completes."""
    return {**an_embedder(folder, layers=SLOW_LAYERS), **a_ranker(folder), **a_model(folder)}


@pytest.fixture(scope="module")
def daemon(folder: Path, models: dict[str, Any]) -> Iterator[Daemon]:
    """One daemon for the tests that leave it as it was."""
    pools = [a_oneshot_pool("embedder", "embedding"), a_oneshot_pool("ranker", "rerank")]
    daemon = Daemon(folder, {"pools": pools, "models": models})
    yield daemon.start_ready()
    daemon.close()


@pytest.fixture
def make_daemon(tmp_path: Path, models: dict[str, Any]) -> Iterator[MakeDaemon]:
    """Daemons of a test of its own."""
    made: list[Daemon] = []

    def make(*pools: dict[str, Any]) -> Daemon:
        made.append(Daemon(tmp_path, {"pools": list(pools), "models": models}))
        return made[-1]

    yield make
    for daemon in made:
        daemon.close()


@pytest.fixture
def bare(models: dict[str, Any], tmp_path: Path) -> Iterator[Callable[[Workload], Process]]:
    """The same engine without a daemon, started by the adapter's own command line."""
    running: list[Process] = []

    def start(workload: Workload) -> Process:
        model = models["embedder" if workload is Workload.EMBEDDING else "ranker"]["path"]
        spec = launch(ctx=CTX, threads=1, simulated=True, workloads=frozenset({workload}))
        spec = replace(spec, model_path=model, port=free_port(), binary=REAL_ENGINE)
        plan = plan_launch(spec)
        process = Process(replace(plan, argv=(sys.executable, *plan.argv)), spec.port, tmp_path)
        running.append(process)
        process.wait_ready()
        return process

    yield start
    for process in running:
        process.__exit__(None, None, None)


def texts(count: int) -> list[str]:
    return [f"text number {number} of {count}" for number in range(count)]


def outputs_of(daemon: Daemon, task_id: str) -> list[dict[str, Any]]:
    """What the stream of a task that went well delivered: one frame before it, none after, no token."""
    stream = daemon.read_stream(task_id)
    assert stream.names == ["started", "end"]
    assert (stream.end.data["finish_reason"], stream.end.data["tokens_out"]) == ("stop", 0)
    found: list[dict[str, Any]] = stream.end.data["outputs"]
    return found


def embed(daemon: Daemon, inputs: Sequence[str], **fields: object) -> str:
    return daemon.accept(workload="embedding", model_ref="embedder", inputs=list(inputs), **fields)


def rerank(daemon: Daemon, query: str, *documents: str, **fields: object) -> str:
    return daemon.accept(workload="rerank", model_ref="ranker", inputs=[query, *documents], **fields)


@pytest.mark.orch("ORCH-3054")
@pytest.mark.parametrize("count", [1, 256])
def test_vectors_are_the_bare_engines_to_the_last_bit(
    daemon: Daemon, bare: Callable[[Workload], Process], count: int
) -> None:
    plain = answered(bare(Workload.EMBEDDING), LlamaCpp(), texts(count))

    given = outputs_of(daemon, embed(daemon, texts(count)))

    assert [output["index"] for output in given] == list(range(count))
    assert given == list(to_builtins(plain.outputs))
    assert all(math.isclose(math.hypot(*output["embedding"]), 1, rel_tol=1e-6) for output in given)


@pytest.mark.orch("ORCH-3045")
def test_a_vector_does_not_depend_on_what_stands_beside_it(daemon: Daemon) -> None:
    alone = daemon.accept(workload="embedding", model_ref="embedder", prompt=texts(9)[4])

    among = outputs_of(daemon, embed(daemon, texts(9)))

    assert outputs_of(daemon, alone)[0]["embedding"] == among[4]["embedding"]
    assert among[4]["embedding"] != among[5]["embedding"]


@pytest.mark.orch("ORCH-3054")
def test_scores_are_the_bare_engines_in_the_order_of_the_documents(
    daemon: Daemon, bare: Callable[[Workload], Process]
) -> None:
    documents = texts(12)
    plain = answered(bare(Workload.RERANK), LlamaCpp(), documents, query="which one")

    given = outputs_of(daemon, rerank(daemon, "which one", *documents))

    assert given == list(to_builtins(plain.outputs))
    assert len({output["score"] for output in given}) == len(documents)


def test_the_task_shows_what_its_stream_delivered_and_a_list_does_not(daemon: Daemon) -> None:
    task_id = embed(daemon, texts(3))
    streamed = outputs_of(daemon, task_id)

    result = daemon.ask("GET", f"/v1/tasks/{task_id}").json["result"]
    listed = daemon.ask("GET", "/v1/tasks?limit=1").json["tasks"][0]

    assert (result["outputs"], result["text"], result["finish_reason"]) == (streamed, "", "stop")
    assert result["tokens_in"] > 3
    assert listed["task_id"] == task_id
    assert "outputs" not in listed["result"]


@pytest.mark.orch("ORCH-3017", "ORCH-3019")
def test_a_running_embedding_is_cancelled_and_its_worker_goes_on(daemon: Daemon) -> None:
    worker = daemon.pool("embedder")["pid"]
    task_id = embed(daemon, [LONG] * 256)
    with daemon.open_stream(task_id) as events:
        started = next(events)
        reply = daemon.ask("POST", f"/v1/tasks/{task_id}/cancel")
        rest = list(events)

    assert (started.name, reply.status, reply.headers["X-Tokens-Emitted"]) == ("started", 204, "0")
    assert [(event.name, event.data["finish_reason"]) for event in rest] == [("end", "canceled")]
    assert "outputs" not in rest[0].data
    assert len(outputs_of(daemon, embed(daemon, texts(2)))) == 2
    assert daemon.pool("embedder")["pid"] == worker


@pytest.mark.orch("ORCH-3023")
def test_a_worker_killed_in_the_middle_costs_a_second_run_and_nothing_else(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_oneshot_pool("embedder", "embedding")).start_ready()
    undisturbed = outputs_of(daemon, embed(daemon, [LONG] * 64))
    worker = daemon.pool("embedder")["pid"]
    task_id = embed(daemon, [LONG] * 64)
    with daemon.open_stream(task_id) as events:
        seen = [next(events)]
        os.kill(worker, signal.SIGKILL)
        seen += list(events)

    assert [event.name for event in seen] == ["started", "end"]
    assert (seen[1].data["outputs"], seen[1].data["kv_migrated"]) == (undisturbed, False)
    assert daemon.ask("GET", f"/v1/tasks/{task_id}").json["attempt"] == 2


def test_the_same_submit_again_is_the_same_job(daemon: Daemon) -> None:
    body = {"workload": "rerank", "model_ref": "ranker", "inputs": ["q", "a", "b"]}
    ids = {"task_id": "0a8e5c39-2f0e-4f5b-9d7d-1f3f0c0f7a11", "session_id": "0a8e5c39-2f0e-4f5b-9d7d-1f3f0c0f7a12"}
    first = daemon.submit(**body, **ids)
    outputs = outputs_of(daemon, ids["task_id"])

    again = daemon.submit(**body, **ids)
    other = daemon.submit(**{**body, "inputs": ["q", "b", "a"]}, **ids)

    assert (again.status, again.json["job_id"]) == (202, first.json["job_id"])
    assert outputs_of(daemon, ids["task_id"]) == outputs
    assert (other.status, other.json["reason"]) == (400, "conflict")


def test_results_outlive_the_daemon(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_oneshot_pool("embedder", "embedding"), a_oneshot_pool("ranker", "rerank")).start_ready()
    embedded, ranked = embed(daemon, texts(4)), rerank(daemon, "q", "a", "b")
    before = [outputs_of(daemon, task_id) for task_id in (embedded, ranked)]
    running = embed(daemon, [LONG] * 64)
    with daemon.open_stream(running) as events:
        next(events)
        daemon.kill()
    daemon.start_ready()

    views = [daemon.ask("GET", f"/v1/tasks/{task_id}").json for task_id in (embedded, ranked)]
    assert [view["result"]["outputs"] for view in views] == before
    assert [outputs_of(daemon, task_id) for task_id in (embedded, ranked)] == before
    assert len(daemon.wait_terminal(running)["result"]["outputs"]) == 64


@pytest.mark.orch("ORCH-3015")
def test_each_input_must_fit_by_itself(daemon: Daemon) -> None:
    """Each letter is a token of the tiny models, and two stand around them."""
    embedded = embed(daemon, ["a" * (CTX - 2)] * 3)
    ranked = rerank(daemon, "q", "a", "a" * (CTX - 3))
    too_long = [
        daemon.submit(workload="embedding", model_ref="embedder", inputs=["a", "a" * (CTX - 1)]),
        daemon.submit(workload="rerank", model_ref="ranker", inputs=["q", "a" * (CTX - 2), "a"]),
        daemon.submit(workload="rerank", model_ref="ranker", inputs=["q" * (CTX - 2), "a"]),
    ]

    assert [len(outputs_of(daemon, task_id)) for task_id in (embedded, ranked)] == [3, 2]
    assert [(reply.status, reply.json["reason"]) for reply in too_long] == [(400, "token_budget")] * 3


@pytest.mark.orch("ORCH-3015")
def test_what_only_the_engine_knows_to_be_too_large_ends_as_the_clients_fault(make_daemon: MakeDaemon) -> None:
    pool = a_oneshot_pool("embedder", "embedding")
    pool["launch"]["command"] += ["-ub", "64"]
    daemon = make_daemon(pool).start_ready()

    stream = daemon.read_stream(embed(daemon, ["short", LONG]))

    assert stream.names == ["started", "error"]
    assert (stream.end.data["code"], stream.end.data["retriable"]) == ("INVALID_PARAMS", False)
    assert "402 tokens" in stream.end.data["message"]
    assert len(outputs_of(daemon, embed(daemon, ["short"]))) == 1


@pytest.mark.orch("ORCH-3014")
def test_a_pool_does_what_it_was_started_for_alone(daemon: Daemon) -> None:
    replies = [
        daemon.submit(model_ref="embedder"),
        daemon.submit(model_ref="embedder", workload="rerank", inputs=["q", "d"]),
        daemon.submit(model_ref="ranker", workload="embedding", inputs=["a"]),
    ]

    assert [(reply.status, reply.json["reason"]) for reply in replies] == [(400, "workload")] * 3


@pytest.mark.orch("ORCH-3016")
def test_an_answer_that_comes_whole_comes_before_the_bound_of_the_first_token(make_daemon: MakeDaemon) -> None:
    bounds = {"wall_ms": 60_000, "idle_ms": 1, "first_token_ms": 300}
    daemon = make_daemon(a_oneshot_pool("embedder", "embedding", timeouts=bounds)).start_ready()

    quick = outputs_of(daemon, embed(daemon, ["quick"]))
    slow = daemon.read_stream(embed(daemon, [LONG] * 256))

    assert len(quick) == 1
    assert slow.names == ["started", "error"]
    assert (slow.end.data["code"], slow.end.data["reason"]) == ("DECODE_TIMEOUT", "stalled")


@pytest.mark.orch("ORCH-3049")
def test_every_step_to_ready_has_its_name(daemon: Daemon) -> None:
    steps = {pool: [step["name"] for step in daemon.pool(pool)["steps"]][-3:] for pool in ("embedder", "ranker")}

    assert steps == {
        "embedder": ["minimal_embedding", "cancel", "telemetry"],
        "ranker": ["minimal_rerank", "cancel", "telemetry"],
    }


@pytest.mark.orch("ORCH-3049")
def test_an_engine_that_was_not_started_to_embed_never_serves(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_pool(workloads=["embedding"])).start()

    def cause() -> str | None:
        found: str | None = daemon.pool("tiny")["cause"]
        return found

    assert "self-test minimal_embedding" in wait_until(cause, what="a cause")
