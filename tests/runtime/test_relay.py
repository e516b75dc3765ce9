"""The relay on real sockets: what clients see of a run, and what is reported of it."""

import asyncio

import pytest

from supervisor.runtime.engine_http import EngineHttp
from supervisor.runtime.relay import Relay
from supervisor.runtime.relay_facts import RunFault
from tests.runtime.runs import (
    Collector,
    Facts,
    a_log,
    an_order,
    frames_of,
    sending,
    stop_event,
    stream_of,
    texts_of,
    token_event,
)
from tests.runtime.scripted_engine import HEAD, LAST_CHUNK, Peer, chunk, scripted_engine
from tests.support.waiting import until

BOTH_LOOPS = True


def split(raw: bytes, size: int) -> list[bytes]:
    return [raw[at : at + size] for at in range(0, len(raw), size)]


@pytest.mark.orch("ORCH-2002", "ORCH-3054")
async def test_tokens_reach_the_log_and_the_end_is_the_engines_own_word() -> None:
    async with scripted_engine(sending(stream_of("a", "b", "c"))) as engine:
        facts, log = Facts(), a_log()
        relay, http = Relay(facts), EngineHttp("127.0.0.1", engine.port, "key")
        order = an_order(engine.port, log, http=http)

        relay.start(order)
        await facts.over.wait()

        assert facts.told == ["first", "finished"]
        assert texts_of(log) == ["a", "b", "c"]
        assert facts.finished is not None
        assert (facts.finished.reason, facts.finished.tokens_in, facts.finished.tokens_out) == ("length", 5, 3)
        assert (facts.emitted, facts.decode_ms, order.meter.tokens_total, relay.runs) == (3, 12.5, 3, 0)
        await until(lambda: http.idle_connections == 1)
        http.close()


async def test_finish_does_not_wait_for_the_end_of_the_response() -> None:
    async with scripted_engine(sending(HEAD, chunk(token_event("a", 1)), chunk(stop_event(1)))) as engine:
        facts = Facts()
        Relay(facts).start(an_order(engine.port, a_log()))

        await facts.over.wait()

        assert facts.told == ["first", "finished"]


async def test_tokens_of_one_read_leave_in_one_write_and_a_lone_one_at_once() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + chunk(token_event("a", 1)))
        await go.wait()
        many = b"".join(chunk(token_event(str(count), count)) for count in range(2, 22))
        await peer.send(many + chunk(stop_event(21)) + LAST_CHUNK)

    async with scripted_engine(script) as engine:
        facts, log = Facts(), a_log()
        reader = Collector(log)
        log.attach(reader, log.seq)
        Relay(facts).start(an_order(engine.port, log))
        await facts.first.wait()
        alone = len(reader.writes)
        go.set()
        await facts.over.wait()

        assert alone == 1
        assert len(reader.writes) < 22
        assert b"".join(reader.writes) == log.read(1)[0]


async def test_one_byte_at_a_time() -> None:
    raw = stream_of("a\n\ndata: {}\n\n", "\u2028é😀", "\x00")

    async with scripted_engine(sending(*[raw[at : at + 1] for at in range(len(raw))])) as engine:
        facts, log = Facts(), a_log()
        Relay(facts).start(an_order(engine.port, log))
        await facts.over.wait()

        assert texts_of(log) == ["a\n\ndata: {}\n\n", "\u2028é😀", "\x00"]
        assert facts.told == ["first", "finished"]


async def test_slow_reader_misses_nothing_and_slows_nobody() -> None:
    async with scripted_engine(sending(*split(stream_of(*map(str, range(200))), 500))) as engine:
        facts, log = Facts(), a_log()
        slow, fast = Collector(log, room=2), Collector(log)
        for reader in (slow, fast):
            log.attach(reader, log.seq)
        Relay(facts).start(an_order(engine.port, log))
        await facts.over.wait()

        behind = b"".join(slow.writes)
        while not log.attach(slow, slow.cursor):
            data, slow.cursor = log.read(slow.cursor, 100)
            slow.writes.append(data)

        assert len(behind) < len(log.dump())
        assert b"".join(slow.writes) == b"".join(fast.writes) == log.read(1)[0]
        assert facts.emitted == 200


@pytest.mark.orch("ORCH-3045")
async def test_rerun_continues_the_stream_without_a_seam() -> None:
    async with scripted_engine(sending(stream_of("a", "b", "c"))) as engine:
        facts, log = Facts(), a_log()
        log.append_tokens(frames_of("a", "b"))
        reader = Collector(log)
        log.attach(reader, log.seq)

        Relay(facts).start(an_order(engine.port, log, run_id=2))
        await facts.over.wait()

        assert texts_of(log) == ["a", "b", "c"]
        assert b"".join(reader.writes) == log.read(3)[0]
        assert facts.told == ["first", "finished"]


@pytest.mark.orch("ORCH-3045")
@pytest.mark.parametrize("rerun", [["a", "X", "c"], ["a"]])
async def test_rerun_that_differs_or_ends_early_is_diverged(rerun: list[str]) -> None:
    async with scripted_engine(sending(stream_of(*rerun))) as engine:
        facts, log = Facts(), a_log()
        log.append_tokens(frames_of("a", "b"))

        Relay(facts).start(an_order(engine.port, log, run_id=2))
        await facts.over.wait()

        assert facts.fault is RunFault.DIVERGED
        assert texts_of(log) == ["a", "b"]


@pytest.mark.parametrize(("every_s", "expected"), [(0.0, True), (3600.0, False)])
async def test_metrics_frames_come_no_more_often_than_allowed(every_s: float, expected: bool) -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + chunk(token_event("a", 1)))
        await go.wait()
        await peer.send(chunk(token_event("b", 2)) + chunk(stop_event(2)) + LAST_CHUNK)

    async with scripted_engine(script) as engine:
        facts, log = Facts(), a_log()
        reader = Collector(log)
        log.attach(reader, log.seq)
        Relay(facts, metrics_every_s=every_s).start(an_order(engine.port, log))
        await facts.first.wait()
        go.set()
        await facts.over.wait()

        assert (b"event: metrics" in b"".join(reader.writes)) is expected
        assert b"metrics" not in log.dump()
