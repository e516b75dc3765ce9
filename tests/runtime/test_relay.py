"""The relay on real sockets: what clients see, what is reported, and what an engine can do wrong."""

import asyncio
import random

import pytest

from adapters.base import Decoded
from adapters.llamacpp_stream import CompletionDecoder
from supervisor.runtime.engine_http import EngineHttp
from supervisor.runtime.relay import Relay
from supervisor.runtime.relay_facts import RunFault, Stall
from supervisor.runtime.tasklog import TaskLog
from supervisor.wire.frames import token_frame
from tests.runtime.runs import Facts, a_log, an_order, events, stop_event, texts_of, token_event
from tests.runtime.scripted_engine import HEAD, LAST_CHUNK, Peer, Script, answer, chunk, scripted_engine
from tests.support.waiting import until

BOTH_LOOPS = True


class Collector:
    """A reader that takes `room` writes before it is behind."""

    def __init__(self, log: TaskLog, room: int = 1_000_000) -> None:
        self.log = log
        self.room = room
        self.cursor = log.seq
        self.writes: list[bytes] = []

    def push(self, data: bytes) -> bool:
        self.writes.append(data)
        self.cursor = self.log.seq
        self.room -= 1
        return self.room > 0

    def finish(self) -> None:
        pass


def sending(*pieces: bytes) -> Script:
    """Answers the first request with these writes and waits for the client to leave."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*pieces)
        await peer.wait_gone()

    return script


def stream_of(*texts: str) -> bytes:
    return HEAD + b"".join(chunk(event) for event in [*events(*texts), stop_event(len(texts))]) + LAST_CHUNK


async def relayed(raw: bytes) -> tuple[Facts, TaskLog]:
    """One run against an engine that sends `raw` and closes."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(raw)

    async with scripted_engine(script) as engine:
        facts, log = Facts(), a_log()
        Relay(facts).start(an_order(engine.port, log))
        await facts.over.wait()
        return facts, log


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


async def test_one_byte_at_a_time() -> None:
    raw = stream_of("a\n\ndata: {}\n\n", "\u2028é😀", "\x00")

    async with scripted_engine(sending(*[raw[at : at + 1] for at in range(len(raw))])) as engine:
        facts, log = Facts(), a_log()
        Relay(facts).start(an_order(engine.port, log))
        await facts.over.wait()

        assert texts_of(log) == ["a\n\ndata: {}\n\n", "\u2028é😀", "\x00"]
        assert facts.told == ["first", "finished"]


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


@pytest.mark.orch("ORCH-3026")
async def test_no_token_after_abort_over_many_races() -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    raw = stream_of(*["x"] * 50)

    async def script(peer: Peer) -> None:
        await peer.request()
        at = 0
        while at < len(raw):
            size = rng.randint(1, 700)
            await peer.send(raw[at : at + size])
            at += size
            if rng.random() < 0.5:
                await asyncio.sleep(0)
        await peer.wait_gone()

    async with scripted_engine(script) as engine:
        for _ in range(150):
            facts, log = Facts(), a_log()
            relay = Relay(facts)
            relay.start(an_order(engine.port, log))
            for _ in range(rng.randint(0, 40)):
                await asyncio.sleep(0)

            tally = relay.abort(1)

            frames, told = log.dump(), list(facts.told)
            for _ in range(20):
                await asyncio.sleep(0)
            assert (log.dump(), facts.told, relay.runs) == (frames, told, 0), f"seed {seed}"
            assert (tally is None) == ("finished" in told), f"seed {seed}"
            assert tally is None or tally.tokens_emitted == log.tokens, f"seed {seed}"


async def test_abort_closes_the_engines_connection() -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + chunk(token_event("a", 1)))
        await peer.wait_gone()
        gone.set()

    async with scripted_engine(script) as engine:
        facts = Facts()
        relay = Relay(facts)
        relay.start(an_order(engine.port, a_log()))
        await facts.first.wait()

        tally = relay.abort(1)

        await gone.wait()
        assert tally is not None
        assert (tally.tokens_emitted, tally.tokens_out, facts.told) == (1, 1, ["first"])
        assert relay.abort(1) is None


async def test_sink_may_abort_from_within_a_fact() -> None:
    async with scripted_engine(sending(stream_of("a", "b"))) as engine:
        facts, log = Facts(), a_log()
        relay = Relay(facts)
        facts.on_first = relay.abort

        relay.start(an_order(engine.port, log))
        await facts.first.wait()
        await asyncio.sleep(0)

        assert facts.told == ["first"]
        assert relay.runs == 0


async def test_run_may_be_aborted_because_its_last_reader_left_in_a_push() -> None:
    facts = Facts()
    relay = Relay(facts)
    log = a_log(lambda _job_id, count: None if count else relay.abort(1) and None)

    class Leaver(Collector):
        def push(self, data: bytes) -> bool:
            self.log.detach(self)
            left.set()
            return super().push(data)

    left = asyncio.Event()
    log.attach(Leaver(log), log.seq)
    async with scripted_engine(sending(stream_of("a", "b"))) as engine:
        relay.start(an_order(engine.port, log))
        await left.wait()

        assert (facts.told, relay.runs) == ([], 0)


@pytest.mark.parametrize(
    ("sent", "first_token_ms", "idle_ms", "which", "told"),
    [
        (b"", 20, 60_000, Stall.FIRST_TOKEN, ["stalled"]),
        (HEAD + chunk(b":\n\n"), 20, 1, Stall.FIRST_TOKEN, ["stalled"]),
        (HEAD + chunk(token_event("a", 1)), 60_000, 20, Stall.IDLE, ["first", "stalled"]),
    ],
)
@pytest.mark.orch("ORCH-3017")
async def test_silent_engine_is_reported_once_and_its_connection_closed(
    sent: bytes, first_token_ms: int, idle_ms: int, which: Stall, told: list[str]
) -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sent)
        await peer.wait_gone()
        gone.set()

    async with scripted_engine(script) as engine:
        facts, log = Facts(), a_log()
        relay = Relay(facts)
        relay.start(an_order(engine.port, log, first_token_ms=first_token_ms, idle_ms=idle_ms))
        await facts.over.wait()
        await gone.wait()

        tally = relay.abort(1)

        assert (facts.stall, facts.told) == (which, told)
        assert tally is not None
        assert (tally.tokens_emitted, relay.runs) == (log.tokens, 0)


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


def frames_of(*texts: str) -> list[bytes]:
    return [token_frame(text, index) for index, text in enumerate(texts)]


def split(raw: bytes, size: int) -> list[bytes]:
    return [raw[at : at + size] for at in range(0, len(raw), size)]


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
