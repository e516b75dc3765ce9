"""The self-test: what a good engine shows, and which step finds out a bad one."""

import pytest

from adapters.base import EngineProps
from adapters.llamacpp import LlamaCpp
from supervisor.runtime.engine_http import EngineHttp
from supervisor.runtime.self_test import SelfTestStep, StepResult, self_test
from tests.runtime.llama_peer import KEY, LlamaPeer, llama_peer

PROPS = EngineProps("b11434", 2, 2048)


async def results_of(peer: LlamaPeer) -> tuple[StepResult, ...]:
    async with llama_peer(peer):
        http = EngineHttp("127.0.0.1", peer.port, KEY)
        try:
            return await self_test(http, LlamaCpp(), PROPS, slot_idle_s=0.2)
        finally:
            http.close()


@pytest.mark.orch("ORCH-3049")
async def test_good_engine_passes_every_step() -> None:
    peer = LlamaPeer()

    results = await results_of(peer)

    assert [(result.name, result.passed) for result in results] == [(step, True) for step in SelfTestStep]
    decode, cancelled = peer.completions
    assert (decode["n_predict"], decode["seed"], decode["ignore_eos"]) == (4, 1, False)
    assert (cancelled["n_predict"], cancelled["ignore_eos"]) == (2048 - 64, True)


@pytest.mark.orch("ORCH-3049")
@pytest.mark.parametrize(
    ("peer", "failed"),
    [
        (LlamaPeer(tokens=0), SelfTestStep.MINIMAL_DECODE),
        (LlamaPeer(stuck_looks=1000), SelfTestStep.CANCEL),
        (LlamaPeer(metrics=b"nothing of ours 1\n"), SelfTestStep.TELEMETRY),
    ],
)
async def test_failing_step_is_the_last_one_and_says_why(peer: LlamaPeer, failed: SelfTestStep) -> None:
    results = await results_of(peer)

    assert [result.passed for result in results] == [True] * (len(results) - 1) + [False]
    assert results[-1].name is failed
    assert results[-1].detail
