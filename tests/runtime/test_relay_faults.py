"""What an engine can do wrong, and what each is called."""

import asyncio

import pytest

from adapters.base import Decoded
from adapters.llamacpp_stream import CompletionDecoder
from supervisor.runtime.relay import Relay
from supervisor.runtime.relay_facts import RunFault
from tests.runtime.runs import (
    Facts,
    a_log,
    an_order,
    events,
    relayed,
    sending,
    stop_event,
    stream_of,
    texts_of,
    token_event,
)
from tests.runtime.scripted_engine import HEAD, LAST_CHUNK, Peer, answer, chunk, scripted_engine

BOTH_LOOPS = True


@pytest.mark.parametrize("end", ["fin", "rst"])
async def test_answer_cut_anywhere_is_lost_or_complete_and_never_both(end: str) -> None:
    raw = stream_of("a", "b", "c")
    complete = raw.index(chunk(stop_event(3))) + chunk(stop_event(3)).index(b"\r\n") + 2 + len(stop_event(3))

    async def script(peer: Peer) -> None:
        request = await peer.request()
        await peer.send(raw[: int(request.body)])
        if end == "rst":
            peer.reset()

    async with scripted_engine(script) as engine:
        for size in [*range(0, len(raw), 7), complete - 1, complete]:
            facts, log = Facts(), a_log()
            Relay(facts).start(an_order(engine.port, log, body=b"%d" % size))
            await facts.over.wait()

            whole = ["a", "b", "c"]
            assert texts_of(log) == whole[: len(texts_of(log))]
            if end == "fin":
                assert facts.told[-1] == ("finished" if size >= complete else "failed")
            assert facts.told[-1] == "finished" or facts.fault is RunFault.ENGINE_LOST


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (answer(b'{"error":{"code":400,"message":"too long","type":"exceed_context_size_error"}}', "400 B"), "client"),
        (answer(b'{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}', "503 S"), "busy"),
        (answer(b"oops", "500 E"), "engine"),
        (answer(b'data: {"content":', "200 OK"), "lost"),
        (HEAD + LAST_CHUNK, "lost"),
        (HEAD + chunk(b"data: not json\n\n"), "garbage"),
        (HEAD + chunk(b'data: {"content":"\xff\xfe"}\n\n'), "garbage"),
        (HEAD + chunk(b"data: " + b"x" * 10_000_000), "garbage"),
        (HEAD + b"not a chunk\r\n", "garbage"),
        (b"RTSP/1.0 200 OK\r\n\r\n", "garbage"),
        (b"", "lost"),
    ],
)
async def test_wrong_answers_are_named_by_whose_fault_they_are(raw: bytes, fault: str) -> None:
    expected = {
        "client": RunFault.CLIENT_ERROR,
        "busy": RunFault.BUSY,
        "engine": RunFault.ENGINE_ERROR,
        "lost": RunFault.ENGINE_LOST,
        "garbage": RunFault.GARBAGE,
    }

    facts, log = await relayed(raw)

    assert (facts.told, facts.fault) == (["failed"], expected[fault])
    assert log.tokens == facts.emitted == 0


async def test_tokens_before_garbage_are_kept_and_nothing_after_the_end_is_taken() -> None:
    duplicated = HEAD + chunk(token_event("a", 1)) + chunk(stop_event(1) * 2) + chunk(token_event("late", 2))

    broken, broken_log = await relayed(HEAD + chunk(token_event("a", 1)) + chunk(b"data: {\n\n"))
    twice, twice_log = await relayed(duplicated + LAST_CHUNK)

    assert (broken.told, broken.fault, texts_of(broken_log)) == (["first", "failed"], RunFault.GARBAGE, ["a"])
    assert (twice.told, texts_of(twice_log)) == (["first", "finished"], ["a"])


async def test_nobody_listens() -> None:
    async with scripted_engine(sending()) as engine:
        port = engine.port
    facts = Facts()

    Relay(facts).start(an_order(port, a_log()))
    await facts.over.wait()

    assert facts.fault is RunFault.UNREACHABLE


async def test_engine_that_does_not_stop_is_cut_off() -> None:
    endless = HEAD + b"".join(chunk(event) for event in events(*["x"] * 100))

    async with scripted_engine(sending(endless)) as engine:
        facts, log = Facts(), a_log()
        Relay(facts).start(an_order(engine.port, log, tokens_max=5))
        await facts.over.wait()

        assert facts.fault is RunFault.GARBAGE
        assert log.tokens <= 5 + 8


async def test_decoder_with_a_bug_fails_its_run_only() -> None:
    class Buggy(CompletionDecoder):
        def feed(self, data: bytes | memoryview) -> list[Decoded]:
            raise ZeroDivisionError

    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    async with scripted_engine(sending(stream_of("a"))) as engine:
        facts = Facts()
        Relay(facts).start(an_order(engine.port, a_log(), make_decoder=lambda _status: Buggy()))
        await facts.over.wait()

        assert facts.fault is RunFault.ENGINE_LOST
