"""The engine client, the probes and the relay against the real llama.cpp server, on a tiny random model."""

import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.base import CompletionCall
from adapters.llamacpp import LlamaCpp
from adapters.llamacpp_launch import plan_launch
from adapters.sampling import merged
from supervisor.runtime.engine_http import EngineHttp
from supervisor.runtime.probes import ProbeError, count_tokens, read_props, wait_healthy, wait_slot_idle
from supervisor.runtime.relay import Relay
from supervisor.runtime.relay_facts import RunFault, RunOrder
from supervisor.runtime.self_test import SelfTestStep, self_test
from supervisor.runtime.tasklog import TaskLog
from tests.adapters.builders import launch
from tests.runtime.runs import Facts, a_log, texts_of
from tests.support.llama_process import Process, free_port
from tests.support.tiny_gguf import make_tiny_gguf
from tests.support.waiting import until

pytestmark = pytest.mark.engines

LAUNCHER = Path(__file__).parents[2] / "examples" / "engines" / "xllamacpp_server.py"
ADAPTER = LlamaCpp()
READY_S = 60.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", ctx=32_768)


@pytest.fixture
async def http(model: Path, tmp_path: Path) -> AsyncIterator[EngineHttp]:
    """A client of a server that is ready."""
    pytest.importorskip("xllamacpp", reason="the extra `demo` is not installed")
    spec = launch(ctx=32_768, threads=1, simulated=True)
    spec = replace(spec, model_path=str(model), port=free_port(), binary=str(LAUNCHER))
    plan = plan_launch(spec)
    with Process(replace(plan, argv=(sys.executable, *plan.argv)), spec.port, tmp_path):
        client = EngineHttp("127.0.0.1", spec.port, spec.api_key)
        await wait_healthy(client, ADAPTER, READY_S)
        yield client
        client.close()


def an_order(http: EngineHttp, log: TaskLog, *, run_id: int = 1, tokens: int = 64, prompt: str = "Hello") -> RunOrder:
    sampler = merged("v1", {"temperature": 1.0})
    call = CompletionCall(prompt=prompt, max_tokens=tokens, seed=7, sampler=sampler, slot=0, ignore_eos=True)
    return RunOrder(
        job_id="job",
        run_id=run_id,
        engine=http,
        request=ADAPTER.request_completion(call),
        decoder=ADAPTER.decoder,
        log=log,
        idle_ms=30_000,
        first_token_ms=30_000,
        tokens_max=tokens,
    )


@pytest.mark.orch("ORCH-3049", "ORCH-3054")
async def test_engine_proves_itself(http: EngineHttp) -> None:
    props = await read_props(http, ADAPTER)

    results = await self_test(http, ADAPTER, props)

    assert [(result.name, result.passed) for result in results] == [
        (SelfTestStep.MINIMAL_DECODE, True), (SelfTestStep.CANCEL, True), (SelfTestStep.TELEMETRY, True)
    ]  # fmt: skip
    assert await count_tokens(http, ADAPTER, "Hello there") > 1


async def test_stranger_is_refused(http: EngineHttp) -> None:
    stranger = http.with_key("another")

    with pytest.raises(ProbeError, match="foreign"):
        await read_props(stranger, ADAPTER)

    stranger.close()


@pytest.mark.orch("ORCH-3045")
async def test_rerun_of_a_started_task_continues_its_stream(http: EngineHttp) -> None:
    facts, whole = Facts(), a_log()
    Relay(facts).start(an_order(http, whole))
    await facts.over.wait()
    part = a_log()
    part.append_tokens([frame + b"\n\n" for frame in whole.dump().split(b"\n\n")[1:11]])

    again = Facts()
    Relay(again).start(an_order(http, part, run_id=2))
    await again.over.wait()

    assert (facts.told, again.told) == (["first", "finished"], ["first", "finished"])
    assert part.dump() == whole.dump()
    assert facts.finished is not None
    assert (facts.finished.tokens_out, facts.finished.reason) == (64, "length")


@pytest.mark.orch("ORCH-3017", "ORCH-3026")
async def test_abort_frees_the_slot_and_shows_no_later_token(http: EngineHttp) -> None:
    facts, log = Facts(), a_log()
    relay = Relay(facts)
    relay.start(an_order(http, log, tokens=30_000))
    await until(lambda: log.tokens > 3)

    tally = relay.abort(1)
    idle = await wait_slot_idle(http, ADAPTER, 0, 5.0)

    assert idle
    assert tally is not None
    assert tally.tokens_emitted == log.tokens == len(texts_of(log))


async def test_prompt_that_does_not_fit_is_the_clients_fault(http: EngineHttp) -> None:
    facts, log = Facts(), a_log()
    Relay(facts).start(an_order(http, log, prompt="word " * 40_000))
    await facts.over.wait()

    assert facts.fault is RunFault.CLIENT_ERROR
    assert log.tokens == 0
