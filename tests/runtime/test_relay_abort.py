"""Runs that are ended from outside: aborted at any moment, or silent for too long."""

import asyncio
import random

import pytest

from supervisor.runtime.relay import Relay
from supervisor.runtime.relay_facts import Stall
from tests.runtime.runs import (
    Collector,
    Facts,
    a_log,
    an_order,
    sending,
    stream_of,
    token_event,
)
from tests.runtime.scripted_engine import HEAD, Peer, chunk, scripted_engine

BOTH_LOOPS = True


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
    log = a_log(lambda _job_id, count: None if count else relay.abort(1))

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
