"""`orchctl submit`: what is sent, what is printed, and what happens when something breaks on the way."""

import json
from pathlib import Path

import msgspec
import pytest
import yaml

from supervisor.wire.codes import Code, Determinism, Engine, FinishReason, KvHint, Priority, Reason, Workload
from supervisor.wire.frames import End, end_frame, error_frame, token_frame
from supervisor.wire.tasks import SubmitTask
from tests.cli.builders import broken_pool, host, pool, refusal
from tests.cli.conftest import Orchctl
from tests.cli.peer import Peer, Task

TASK = "0b0e7d4e-6a63-4f8c-9a36-2f3f0f3f2b11"
SESSION = "6f0e7d4e-6a63-4f8c-9a36-2f3f0f3f2b22"


def sent(peer: Peer) -> SubmitTask:
    return msgspec.json.decode(peer.asked("POST", "/v1/tasks")[0].body, type=SubmitTask)


def publish_whole(peer: Peer, texts: list[str]) -> None:
    """A task that is finished before anybody asks for its stream."""
    task = SubmitTask(
        task_id=TASK,
        session_id=SESSION,
        workload=Workload.COMPLETION,
        model_ref="m",
        engine=Engine.LLAMACPP,
        ctx=1,
        priority=Priority.BATCH,
        max_tokens=1,
        deadline_ms=1,
    )
    peer.tasks[TASK] = Task(task, "job")
    peer.start(TASK)
    for text in texts:
        peer.say(TASK, text)


def test_the_text_and_nothing_else_is_on_standard_output(peer: Peer, orchctl: Orchctl) -> None:
    peer.answer = ["Hel", "lo\n", "\x1b[31m wörld"]

    ran = orchctl("submit", "hi")

    assert ran.code == 0
    assert ran.out == "Hello\n\x1b[31m wörld"
    assert "3 tokens" in ran.err
    assert "6.0 tok/s" in ran.err
    assert "first token" in ran.err


def test_quiet_leaves_the_figures_out(peer: Peer, orchctl: Orchctl) -> None:
    assert orchctl("submit", "-q", "hi").err == ""


def test_every_option_reaches_the_daemon(peer: Peer, orchctl: Orchctl) -> None:
    options = ["--engine", "llamacpp", "--ctx", "512", "--max-tokens", "9", "--priority", "batch", "--seed", "-3"]
    sampler = ["--temperature", "0", "--top-k", "4", "--top-p", "0.5", "--min-p", "0.1", "--repeat-penalty", "1.1"]
    ids = ["--task-id", TASK, "--session", SESSION, "--deadline", "9s", "--stop", ".", "--stop", "!", "--strict"]

    ran = orchctl("submit", "-m", "smollm2-135m", *options, *sampler, *ids, "hi")

    assert ran.code == 0
    task = sent(peer)
    assert (task.task_id, task.session_id, task.prompt, task.ctx, task.max_tokens) == (TASK, SESSION, "hi", 512, 9)
    assert (task.priority, task.seed, task.deadline_ms, task.stop) == (Priority.BATCH, -3, 9_000, [".", "!"])
    assert task.determinism is Determinism.STRICT
    assert msgspec.to_builtins(task.sampler) == {
        "temperature": 0,
        "top_k": 4,
        "top_p": 0.5,
        "min_p": 0.1,
        "repeat_penalty": 1.1,
    }
    assert peer.asked("GET", "/v1/status") == []


def test_json_is_one_object_at_the_end(peer: Peer, orchctl: Orchctl) -> None:
    ran = orchctl("submit", "-o", "json", "--task-id", TASK, "hi")

    answer = json.loads(ran.out)
    assert ran.err == ""
    assert (answer["task_id"], answer["state"], answer["text"]) == (TASK, "ended", "Hello world")
    assert (answer["finish_reason"], answer["tokens_in"], answer["tokens_out"]) == ("stop", 7, 2)
    assert (answer["pool_id"], answer["queue_time_ms"], answer["decode_ms"]) == ("small", 4, 500)


def test_yaml_says_the_same(peer: Peer, orchctl: Orchctl) -> None:
    assert yaml.safe_load(orchctl("submit", "-o", "yaml", "hi").out)["text"] == "Hello world"


def test_events_are_lines_of_json(peer: Peer, orchctl: Orchctl) -> None:
    ran = orchctl("submit", "--events", "hi")

    events = [json.loads(line) for line in ran.out.splitlines()]
    assert [(event["id"], event["event"]) for event in events] == [
        ("1", "started"),
        ("2", "token"),
        ("3", "token"),
        ("4", "end"),
    ]
    assert events[1]["data"] == {"t": "Hello", "i": 0}


def test_no_wait_prints_the_id_and_leaves_the_task_alone(peer: Peer, orchctl: Orchctl) -> None:
    ran = orchctl("submit", "--no-wait", "hi")

    assert ran.out == f"{peer.only_task()}\n"
    assert [one.path for one in peer.requests] == ["/v1/status", "/v1/tasks"]


def test_no_wait_in_json_is_the_daemons_own_reply(peer: Peer, orchctl: Orchctl) -> None:
    ran = orchctl("submit", "--no-wait", "-o", "json", "--task-id", TASK, "hi")

    assert json.loads(ran.out)["task_id"] == TASK
    assert json.loads(ran.out)["queue_position"] == 2


@pytest.mark.orch("ORCH-2002")
def test_a_broken_stream_goes_on_where_it_broke(peer: Peer, orchctl: Orchctl) -> None:
    peer.answer = ["a", "b", "c", "d", "e"]
    peer.breaks_after = [0, 2, 2, 4]

    ran = orchctl("submit", "--task-id", TASK, "hi")

    streams = peer.asked("GET", f"/v1/tasks/{TASK}/stream")
    assert (ran.code, ran.out) == (0, "abcde")
    assert [one.headers.get("Last-Event-ID") for one in streams] == [None, None, "2", "2", "4"]


def test_a_daemon_that_is_busy_starting_again_is_asked_again(peer: Peer, orchctl: Orchctl) -> None:
    route = f"/v1/tasks/{TASK}/stream"
    peer.refusals[route] = (503, refusal(Code.POOL_UNREADY, retriable=True))
    peer.on_refused = peer.refusals.pop

    ran = orchctl("submit", "--task-id", TASK, "hi")

    assert (ran.code, ran.out) == (0, "Hello world")
    assert len(peer.asked("GET", route)) == 2


def test_a_reply_that_got_lost_makes_no_second_task(peer: Peer, orchctl: Orchctl) -> None:
    peer.submits_broken = 2

    ran = orchctl("submit", "hi")

    bodies = {one.body for one in peer.asked("POST", "/v1/tasks")}
    assert (ran.code, ran.out) == (0, "Hello world")
    assert len(peer.asked("POST", "/v1/tasks")) == 3
    assert len(bodies) == 1


def test_a_task_that_fails_on_the_way_ends_with_its_error(peer: Peer, orchctl: Orchctl) -> None:
    peer.answer = None
    publish_whole(peer, ["Hel"])
    error = refusal(Code.DECODE_TIMEOUT, "No token for 5 s.", retriable=True, reason=Reason.STALLED)
    peer.publish(TASK, error_frame(error, 3), is_last=True)

    ran = orchctl("submit", "--task-id", TASK, "-o", "json", "hi")

    assert ran.code == 75
    assert ran.err == "orchctl: no token for 5 s; try the same again\n"
    answer = json.loads(ran.out)
    assert (answer["state"], answer["text"], answer["error"]["code"]) == ("failed", "Hel", "DECODE_TIMEOUT")


def test_a_task_that_somebody_else_cancelled_is_a_failure(peer: Peer, orchctl: Orchctl) -> None:
    peer.answer = None
    publish_whole(peer, ["Hel"])
    peer.end(TASK, FinishReason.CANCELED)

    ran = orchctl("submit", "--task-id", TASK, "hi")

    assert (ran.code, ran.out) == (1, "Hel")
    assert "cancelled by somebody else after 1 tokens" in ran.err


def test_a_stream_with_a_gap_is_never_shown_as_an_answer(peer: Peer, orchctl: Orchctl) -> None:
    peer.answer = None
    publish_whole(peer, ["a"])
    peer.publish(TASK, token_frame("c", 2))
    peer.end(TASK)

    ran = orchctl("submit", "--task-id", TASK, "hi")

    assert (ran.code, ran.out) == (1, "a")
    assert "token 2 came where 1 was due" in ran.err


def test_an_event_that_cannot_be_read_is_said_to_be_one(peer: Peer, orchctl: Orchctl) -> None:
    peer.answer = None
    publish_whole(peer, [])
    peer.publish(TASK, b'id: 2\nevent: token\ndata: {"text":"?"}\n\n', is_last=True)

    ran = orchctl("submit", "--task-id", TASK, "hi")

    assert ran.code == 1
    assert "the stream of the task has a token event that this version cannot read" in ran.err


def test_a_full_queue_is_a_reason_to_try_later(peer: Peer, orchctl: Orchctl) -> None:
    full = refusal(Code.ADMISSION_REJECT, "The queue is full.", retriable=True, retry_after_ms=2_500)
    peer.refusals["/v1/tasks"] = (429, full)

    ran = orchctl("submit", "--no-retry", "hi")

    assert (ran.code, ran.out) == (75, "")
    assert ran.err == "orchctl: the queue is full; try the same again in 3 s\n"


@pytest.mark.orch("ORCH-3025")
def test_a_full_queue_is_asked_again_when_it_said_so(peer: Peer, orchctl: Orchctl) -> None:
    full = refusal(Code.ADMISSION_REJECT, "The queue is full.", retriable=True, retry_after_ms=5)
    peer.refusals["/v1/tasks"] = (429, full)
    peer.on_refused = peer.refusals.pop

    ran = orchctl("submit", "-q", "hi")

    assert (ran.code, ran.out, ran.err) == (0, "Hello world", "")
    assert len({one.body for one in peer.asked("POST", "/v1/tasks")}) == 1
    assert len(peer.asked("POST", "/v1/tasks")) == 2


def test_a_queue_that_is_full_for_longer_than_anybody_waits_is_not_waited_for(peer: Peer, orchctl: Orchctl) -> None:
    full = refusal(Code.ADMISSION_REJECT, "The queue is full.", retriable=True, retry_after_ms=60_000)
    peer.refusals["/v1/tasks"] = (429, full)

    ran = orchctl("submit", "hi")

    assert ran.code == 75
    assert "try the same again in 1 min" in ran.err
    assert len(peer.asked("POST", "/v1/tasks")) == 1


@pytest.mark.orch("ORCH-3025")
def test_a_task_that_cannot_be_is_asked_once(peer: Peer, orchctl: Orchctl) -> None:
    peer.refusals["/v1/tasks"] = (400, refusal(message="The field ctx is too large."))

    assert orchctl("submit", "hi").code == 1
    assert len(peer.asked("POST", "/v1/tasks")) == 1


OUTPUTS = '[{"index":0,"score":0.5},{"index":1,"score":-2.25}]'


def publish_outputs(peer: Peer) -> None:
    """A rerank that is finished before anybody asks for its stream."""
    peer.answer = None
    publish_whole(peer, [])
    end = End(
        tokens_out=0, decode_ms=3, finish_reason=FinishReason.STOP, tokens_in=9, kv_warmth=False, kv_migrated=False
    )
    end.outputs = msgspec.Raw(OUTPUTS.encode())
    peer.publish(TASK, end_frame(end, 2), is_last=True)


def test_scores_are_lines_of_json(peer: Peer, orchctl: Orchctl) -> None:
    publish_outputs(peer)

    ran = orchctl("submit", "--task-id", TASK, "--workload", "rerank", "query", "--input", "one", "--input", "two")

    assert ran.code == 0
    assert [json.loads(line) for line in ran.out.splitlines()] == json.loads(OUTPUTS)
    assert ran.err == "2 outputs of 9 tokens\n"
    task = sent(peer)
    assert (task.workload, task.inputs, task.prompt, task.max_tokens) == (
        Workload.RERANK,
        ["query", "one", "two"],
        msgspec.UNSET,
        1,
    )


def test_outputs_are_in_the_document_too(peer: Peer, orchctl: Orchctl) -> None:
    publish_outputs(peer)

    ran = orchctl("submit", "--task-id", TASK, "--workload", "embedding", "--input", "one", "-o", "json")

    assert json.loads(ran.out)["outputs"] == json.loads(OUTPUTS)
    assert sent(peer).inputs == ["one"]


def test_a_completion_has_no_inputs(peer: Peer, orchctl: Orchctl) -> None:
    ran = orchctl("submit", "hi", "--input", "one")

    assert ran.code == 2
    assert "--input is for embedding and rerank" in ran.err


def test_a_turn_of_a_session_may_hope_for_its_cache(peer: Peer, orchctl: Orchctl) -> None:
    assert orchctl("submit", "--session", SESSION, "--reuse", "hi").code == 0

    task = sent(peer)
    assert (task.session_id, task.kv_hint) == (SESSION, KvHint.REUSE)


def test_a_pool_that_is_not_ready_is_still_asked_for_its_model(peer: Peer, orchctl: Orchctl) -> None:
    peer.status = host(pool(), broken_pool())

    assert orchctl("submit", "-m", "qwen-32b", "hi").code == 0
    assert sent(peer).model_ref == "qwen-32b"


def test_a_cancelled_task_says_how_far_it_came(peer: Peer, orchctl: Orchctl, tmp_path: Path) -> None:
    publish_whole(peer, ["a", "b"])

    ran = orchctl("cancel", TASK.upper(), "-o", "json")

    assert ran.code == 0
    assert json.loads(ran.out) == {"task_id": TASK, "tokens_emitted": 2}
    assert peer.tasks[TASK].is_over
