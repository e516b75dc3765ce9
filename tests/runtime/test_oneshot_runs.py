"""A one-shot run from the engine's bytes to the `end` frame, and back out of it."""

import asyncio
import json
from functools import partial

import msgspec
import pytest
from msgspec import UNSET

from adapters.llamacpp import LlamaCpp
from adapters.oneshot import Embedding, EmbeddingCall, Score
from supervisor.core.tasks import Outcome
from supervisor.runtime.journaling import terminal_frame
from supervisor.runtime.outputs import OutputShelf
from supervisor.runtime.relay import Relay
from supervisor.runtime.relay_facts import RunFault, Stall
from supervisor.runtime.results import read_outputs
from supervisor.runtime.tasklog import TaskLog
from supervisor.wire.codes import FinishReason, Workload
from supervisor.wire.frames import End, end_frame
from tests.runtime.runs import Facts, a_log, an_order, frames_of
from tests.runtime.scripted_engine import Peer, answer, scripted_engine
from tests.runtime.submitted import a_task

CALL = EmbeddingCall(("a", "b"))
VECTORS = [{"index": 0, "embedding": [0.6, 0.8]}, {"index": 1, "embedding": [1.0, 0.0]}]
GOOD = answer(json.dumps({"data": VECTORS, "usage": {"prompt_tokens": 2}}).encode())


async def run(*pieces: bytes, first_token_ms: int | None = None, is_held: bool = False) -> tuple[Facts, TaskLog]:
    """One run against an engine that sends these pieces and then closes, or holds the connection open."""

    async def script(peer: Peer) -> None:
        await peer.request()
        for piece in pieces:
            await peer.send(piece)
            await asyncio.sleep(0)
        if is_held:
            await peer.wait_gone()

    async with scripted_engine(script) as engine:
        facts, log = Facts(), a_log()
        order = an_order(
            engine.port, log, idle_ms=1, first_token_ms=first_token_ms, tokens_max=0,
            make_decoder=partial(LlamaCpp().outputs_decoder, CALL),
        )  # fmt: skip
        Relay(facts).start(order)
        await facts.over.wait()
        return facts, log


async def test_outputs_come_whole_and_no_token_before_them() -> None:
    facts, log = await run(GOOD[:-10], GOOD[-10:])

    assert facts.told == ["finished"]
    assert facts.finished is not None
    assert facts.finished.outputs == (Embedding(0, [0.6, 0.8]), Embedding(1, [1.0, 0.0]))
    assert (facts.emitted, log.tokens, log.seq) == (0, 0, 1)
    assert facts.decode_ms > 0


async def test_an_answer_that_is_cut_is_a_lost_engine() -> None:
    facts, _ = await run(GOOD[:-10])

    assert (facts.told, facts.fault) == (["failed"], RunFault.ENGINE_LOST)


async def test_an_answer_that_lacks_a_vector_is_garbage() -> None:
    facts, _ = await run(answer(json.dumps({"data": VECTORS[:1], "usage": {"prompt_tokens": 2}}).encode()))

    assert (facts.told, facts.fault) == (["failed"], RunFault.GARBAGE)


@pytest.mark.orch("ORCH-3016")
async def test_the_bound_of_the_first_token_holds_for_the_whole_answer() -> None:
    facts, _ = await run(GOOD[:-10], first_token_ms=30, is_held=True)

    assert (facts.told, facts.stall) == (["stalled"], Stall.FIRST_TOKEN)


# Between the run and the frame ------------------------------------------------------------------------------------


def ended(outputs: msgspec.Raw | None) -> TaskLog:
    log = a_log()
    end = End(
        tokens_out=0, decode_ms=1, finish_reason=FinishReason.STOP, tokens_in=2, kv_warmth=False, kv_migrated=False
    )
    if outputs is not None:
        end.outputs = outputs
    log.close(end_frame(end, log.seq + 1))
    return log


def test_outputs_are_taken_once() -> None:
    shelf = OutputShelf()
    shelf.keep("a", (Score(0, 0.5),))

    assert shelf.take("a") == msgspec.Raw(b'[{"index":0,"score":0.5}]')
    assert (shelf.take("a"), shelf.take("b")) == (None, None)


def test_outputs_are_read_back_from_the_stream_of_this_and_of_an_earlier_daemon() -> None:
    outputs = msgspec.Raw(b'[{"index":0,"embedding":[0.30000000000000004,-1e-07]}]')
    log = ended(outputs)

    assert read_outputs(log) == outputs
    assert read_outputs(TaskLog.from_frames("job", log.dump())) == outputs


def test_a_task_that_was_cancelled_at_its_very_end_shows_no_outputs() -> None:
    outputs = msgspec.Raw(b'[{"index":0,"score":0.5}]')
    outcomes = [Outcome(finish_reason=reason) for reason in (FinishReason.STOP, FinishReason.CANCELED)]

    frames = [terminal_frame(a_task(Workload.EMBEDDING), outcome, 2, outputs) for outcome in outcomes]

    assert [b'"outputs":[' in frame for frame in frames] == [True, False]


def test_other_streams_have_no_outputs() -> None:
    running = a_log()
    running.append_tokens(frames_of('\nevent: end\ndata: {"outputs":[1]}'))

    assert [read_outputs(log) for log in (ended(None), running, TaskLog("job"))] == [UNSET] * 3
