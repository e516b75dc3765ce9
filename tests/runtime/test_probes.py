"""Probes against an engine that is what it says, and against those that are not."""

import asyncio

import pytest

from adapters.base import EngineProps
from adapters.llamacpp import LlamaCpp
from supervisor.runtime.engine_http import EngineHttp
from supervisor.runtime.probes import ProbeError, count_tokens, read_metrics, read_props, wait_healthy, wait_slot_idle
from tests.runtime.llama_peer import KEY, LlamaPeer, llama_peer
from tests.runtime.scripted_engine import Peer, answer, scripted_engine

ADAPTER = LlamaCpp()
LONG_S = 20.0


def client(peer: LlamaPeer, key: str = KEY) -> EngineHttp:
    return EngineHttp("127.0.0.1", peer.port, key)


async def test_health_is_waited_for_while_the_model_loads() -> None:
    async with llama_peer(LlamaPeer(loading=3)) as peer:
        await wait_healthy(client(peer), ADAPTER, LONG_S, poll_s=0.001)

        assert peer.loading < 0


async def test_health_that_never_comes_names_what_was_seen() -> None:
    async with llama_peer(LlamaPeer(loading=10**9)) as peer:
        with pytest.raises(ProbeError, match="loading"):
            await wait_healthy(client(peer), ADAPTER, 0.05, poll_s=0.001)


async def test_nobody_on_the_port_is_not_yet_healthy() -> None:
    async with llama_peer(LlamaPeer()) as peer:
        pass

    with pytest.raises(ProbeError, match="takes no connection"):
        await wait_healthy(client(peer), ADAPTER, 0.02, poll_s=0.001)


async def test_another_protocol_on_the_port_is_no_engine() -> None:
    async def ssh(peer: Peer) -> None:
        await peer.send(b"SSH-2.0-OpenSSH_9.2\r\n")
        await peer.wait_gone()

    async with scripted_engine(ssh) as engine:
        with pytest.raises(ProbeError, match="not an engine"):
            await wait_healthy(EngineHttp("127.0.0.1", engine.port, None), ADAPTER, LONG_S)


@pytest.mark.orch("ORCH-3032")
async def test_props_of_our_own_engine() -> None:
    async with llama_peer(LlamaPeer()) as peer:
        assert await read_props(client(peer), ADAPTER) == EngineProps("b11434", 2, 2048)


@pytest.mark.parametrize(
    ("peer", "says"),
    [(LlamaPeer(takes_any_key=True), "any key"), (LlamaPeer(knows_key=False), "does not know the worker's key")],
)
async def test_foreign_process_on_the_port_is_found_out(peer: LlamaPeer, says: str) -> None:
    async with llama_peer(peer):
        with pytest.raises(ProbeError, match=says):
            await read_props(client(peer), ADAPTER)


async def test_props_that_are_not_the_engines_are_refused() -> None:
    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            is_ours = KEY.encode() in request.head
            await peer.send(answer(b"{}") if is_ours else answer(b"", "401 Unauthorized"))

    async with scripted_engine(script) as engine:
        with pytest.raises(ProbeError, match="can't be read"):
            await read_props(EngineHttp("127.0.0.1", engine.port, KEY), ADAPTER)


@pytest.mark.parametrize("slot", [None, 0])
async def test_slot_is_looked_at_again_until_it_is_idle(slot: int | None) -> None:
    async with llama_peer(LlamaPeer(stuck_looks=2)) as peer:
        idle = await wait_slot_idle(client(peer), ADAPTER, slot, LONG_S, look_every_s=0.001)

        assert idle
        assert peer.looks == 3


async def test_busy_slot_is_not_idle_and_its_neighbour_is() -> None:
    async with llama_peer(LlamaPeer(busy=1)) as peer:
        http = client(peer)

        busy = await wait_slot_idle(http, ADAPTER, 0, 0.06, look_every_s=0.001)
        neighbour = await wait_slot_idle(http, ADAPTER, 1, LONG_S)
        unknown = await wait_slot_idle(http, ADAPTER, 7, 0.06, look_every_s=0.001)

        assert (busy, neighbour, unknown) == (False, True, False)


async def test_engine_that_does_not_answer_is_not_idle() -> None:
    async def silent(peer: Peer) -> None:
        await peer.wait_gone()

    async with scripted_engine(silent) as engine:
        http = EngineHttp("127.0.0.1", engine.port, None)
        looking = asyncio.create_task(wait_slot_idle(http, ADAPTER, None, 0.06))
        done, _ = await asyncio.wait({looking}, timeout=LONG_S)

        assert done
        assert looking.result() is False


@pytest.mark.orch("ORCH-3015")
async def test_tokens_are_counted_by_the_engine() -> None:
    async with llama_peer(LlamaPeer()) as peer:
        assert await count_tokens(client(peer), ADAPTER, "four words of text") == 5


async def test_refused_count_is_an_error_and_not_a_number() -> None:
    async with llama_peer(LlamaPeer()) as peer:
        with pytest.raises(ProbeError, match="401"):
            await count_tokens(client(peer, "wrong"), ADAPTER, "text")


async def test_metrics_page_in_neutral_names() -> None:
    async with llama_peer(LlamaPeer()) as peer:
        assert await read_metrics(client(peer), ADAPTER) == {"requests_processing": 0.0, "tokens_out_total": 9.0}
