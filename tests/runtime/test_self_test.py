"""The self-test: what a good engine shows, and which step finds out a bad one."""

import pytest

from adapters.base import EngineProps, Workload
from adapters.llamacpp import LlamaCpp
from supervisor.runtime.engine_http import EngineHttp
from supervisor.runtime.self_test import MANY, SelfTestStep, StepResult, self_test
from tests.runtime.llama_peer import KEY, LlamaPeer, llama_peer

STEPS = (SelfTestStep.MINIMAL_DECODE, SelfTestStep.CANCEL, SelfTestStep.TELEMETRY)
PROPS = EngineProps("b11434", 2, 2048)


async def results_of(peer: LlamaPeer, *workloads: Workload) -> tuple[StepResult, ...]:
    async with llama_peer(peer):
        http = EngineHttp("127.0.0.1", peer.port, KEY)
        try:
            asked_of = workloads or (Workload.COMPLETION,)
            return await self_test(http, LlamaCpp(), PROPS, workloads=asked_of, slot_idle_s=0.2)
        finally:
            http.close()


@pytest.mark.orch("ORCH-3049")
async def test_good_engine_passes_every_step() -> None:
    peer = LlamaPeer()

    results = await results_of(peer)

    assert [(result.name, result.passed) for result in results] == [(step, True) for step in STEPS]
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


@pytest.mark.orch("ORCH-3049")
@pytest.mark.parametrize(
    ("workload", "first"),
    [(Workload.EMBEDDING, SelfTestStep.MINIMAL_EMBEDDING), (Workload.RERANK, SelfTestStep.MINIMAL_RERANK)],
)
async def test_a_one_shot_engine_shows_what_its_pool_does(workload: Workload, first: SelfTestStep) -> None:
    peer = LlamaPeer()

    results = await results_of(peer, workload)

    steps = (first, SelfTestStep.CANCEL, SelfTestStep.TELEMETRY)
    assert [(result.name, result.passed) for result in results] == [(step, True) for step in steps]
    assert peer.one_shots == [1, MANY]
    assert peer.completions == []


@pytest.mark.orch("ORCH-3049")
async def test_a_worker_of_several_workloads_shows_them_all() -> None:
    results = await results_of(LlamaPeer(), *Workload)

    assert [(result.name, result.passed) for result in results] == [(step, True) for step in SelfTestStep]


@pytest.mark.orch("ORCH-3049")
@pytest.mark.parametrize(
    ("peer", "failed", "says"),
    [
        (LlamaPeer(outputs_missing=1), SelfTestStep.MINIMAL_RERANK, "protocol"),
        (LlamaPeer(stuck_looks=1000), SelfTestStep.CANCEL, "still worked"),
    ],
)
async def test_a_one_shot_engine_that_fails_is_found_out(peer: LlamaPeer, failed: SelfTestStep, says: str) -> None:
    results = await results_of(peer, Workload.RERANK)

    assert (results[-1].name, results[-1].passed) == (failed, False)
    assert says in results[-1].detail
