"""A llama.cpp server as a process: how it ends, and whether the adapter says why.

The same tests run on the true llama-server (`make engines-llamacpp` builds it; marker `fidelity`) and on our launcher
of the prebuilt server (marker `engines`), which promises to behave like it. Both are started by the adapter's own
launch plan and ended by its own stop plan, on a tiny random model.
"""

import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from adapters.base import (
    CompletionCall,
    Decoded,
    EngineError,
    EngineRequest,
    ExitKind,
    Fault,
    Finished,
    SlotState,
    StopPlan,
    Token,
)
from adapters.llamacpp import LlamaCpp
from adapters.llamacpp_launch import plan_launch
from adapters.sampling import merged
from tests.adapters.builders import launch
from tests.support.llama_process import Process, free_port, read_some
from tests.support.tiny_gguf import make_tiny_gguf
from tests.support.waiting import wait_until
from tools.build_llama_server import find_built

LAUNCHER = Path(__file__).parents[2] / "examples" / "engines" / "xllamacpp_server.py"
ADAPTER = LlamaCpp()

Start = Callable[..., Process]


@pytest.fixture(
    params=[
        pytest.param("llama-server", marks=pytest.mark.fidelity),
        pytest.param("xllamacpp", marks=pytest.mark.engines),
    ]
)
def engine(request: pytest.FixtureRequest) -> Sequence[str]:
    """The words that start the engine, without its arguments."""
    if request.param == "xllamacpp":
        pytest.importorskip("xllamacpp", reason="the extra `demo` is not installed")
        return (sys.executable, str(LAUNCHER))
    binary = find_built()
    if binary is None:
        pytest.skip("llama-server is not built; run: make engines-llamacpp")
    return (str(binary),)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small, and with room for a stream that does not end before the test wants it to."""
    return make_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", ctx=32_768)


@pytest.fixture
def start(engine: Sequence[str], model: Path, tmp_path: Path) -> Start:
    """Starts the engine by the adapter's plan; the caller enters the process."""

    def started(
        *,
        model_path: Path = model,
        ctx: int = 512,
        slots: int = 1,
        extra: Sequence[str] = (),
        port: int | None = None,
        ping_s: int = 1,
    ) -> Process:
        spec = launch(ctx=ctx, slots=slots, threads=1, extra_args=extra, simulated=True)
        spec = replace(spec, model_path=str(model_path), port=port or free_port(), binary=engine[-1])
        plan = plan_launch(spec)
        argv = (*engine[:-1], *plan.argv, "--sse-ping-interval", str(ping_s))
        return Process(replace(plan, argv=argv), spec.port, tmp_path)

    return started


def completion(
    *, prompt: str = "Hello there", tokens: int = 24, seed: int = 5, temperature: float = 0.0
) -> EngineRequest:
    sampler = merged("v1", {"temperature": temperature})
    return ADAPTER.request_completion(
        CompletionCall(prompt=prompt, max_tokens=tokens, seed=seed, sampler=sampler, slot=0, ignore_eos=True)
    )


def answered(process: Process, request: EngineRequest) -> list[Decoded]:
    status, body = process.ask(request)
    decoder = ADAPTER.decoder(status)
    return decoder.feed(body) + decoder.eof()


def text_of(decoded: Sequence[Decoded]) -> str:
    assert isinstance(decoded[-1], Finished), decoded[-1]
    return "".join(item.text for item in decoded if isinstance(item, Token))


@pytest.mark.orch("ORCH-3054", "ORCH-3032")
def test_what_it_says_of_itself(start: Start) -> None:
    with start(ctx=512, slots=2) as process:
        process.wait_ready()
        props = ADAPTER.read_props([process.ask(request)[1] for request in ADAPTER.request_props()])
        slots = ADAPTER.read_slots(process.ask(ADAPTER.request_slots())[1])
        metrics = ADAPTER.read_metrics(process.ask(ADAPTER.request_metrics())[1])

    assert (props.slots, props.ctx_per_slot, props.model_alias) == (2, 512, "m")
    assert props.engine_version.startswith(("b11434", "xllamacpp-"))
    assert slots == (SlotState(0, is_busy=False), SlotState(1, is_busy=False))
    assert metrics["requests_processing"] == 0


@pytest.mark.orch("ORCH-3045", "ORCH-3050")
def test_the_same_seed_gives_the_same_text_also_in_another_process(start: Start) -> None:
    asked = completion(temperature=1.0, seed=-7)
    with start() as process:
        process.wait_ready()
        texts = [text_of(answered(process, asked)) for _ in range(2)]
        other = text_of(answered(process, completion(temperature=1.0, seed=8)))
    with start() as process:
        process.wait_ready()
        texts.append(text_of(answered(process, asked)))

    assert len(set(texts)) == 1
    assert other not in texts


def test_a_prompt_has_as_many_tokens_as_it_is_said_to_have(start: Start) -> None:
    with start() as process:
        process.wait_ready()
        for prompt in ("Hello there", "<s> é 日本 </s>\n", "a" * 100):
            told = ADAPTER.read_tokenize(process.ask(ADAPTER.request_tokenize(prompt))[1])
            finished = answered(process, completion(prompt=prompt))[-1]

            assert isinstance(finished, Finished)
            assert finished.tokens_in == told


def test_a_prompt_that_does_not_fit_is_the_clients_fault(start: Start) -> None:
    with start(ctx=256) as process:
        process.wait_ready()
        (error,) = answered(process, completion(prompt="x" * 2000))

    assert isinstance(error, EngineError)
    assert (error.fault, error.kind) == (Fault.CLIENT, "ctx")


def test_a_stranger_without_the_key_gets_nothing(start: Start) -> None:
    with start() as process:
        process.wait_ready()
        asked = (*ADAPTER.request_props(), ADAPTER.request_slots(), ADAPTER.request_metrics(), completion())
        statuses = [process.ask(request, key="another")[0] for request in asked]

    assert statuses == [401] * len(statuses)


@pytest.mark.orch("ORCH-3017")
def test_a_slot_is_free_soon_after_its_reader_left(start: Start) -> None:
    def is_busy() -> bool:
        return ADAPTER.read_slots(process.ask(ADAPTER.request_slots())[1])[0].is_busy

    with start(ctx=32_768) as process:
        process.wait_ready()
        with process.opened(completion(tokens=32_000)) as response:
            read_some(response)
            was_busy = is_busy()
        wait_until(lambda: not is_busy(), what="an idle slot")

    assert was_busy


BROKEN_MODELS: dict[str, tuple[Callable[[bytes], bytes], ExitKind]] = {
    "empty": (lambda _: b"", ExitKind.MODEL_BAD),
    "garbage": (lambda whole: b"\x7fELF" + whole[4:], ExitKind.MODEL_BAD),
    "cut in the header": (lambda whole: whole[:3000], ExitKind.MODEL_BAD),
    "cut in the weights": (lambda whole: whole[:-4096], ExitKind.MODEL_BAD),
    "of an unknown kind": (lambda whole: whole.replace(b"llama", b"lxama"), ExitKind.MODEL_BAD),
}


@pytest.mark.parametrize("name", BROKEN_MODELS)
def test_a_broken_model(start: Start, model: Path, tmp_path: Path, name: str) -> None:
    spoil, kind = BROKEN_MODELS[name]
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(spoil(model.read_bytes()))
    with start(model_path=broken) as process:
        explained = process.explained()

    assert (process.child.returncode, explained.kind) == (1, kind), process.tail()


def test_a_missing_model(start: Start, tmp_path: Path) -> None:
    with start(model_path=tmp_path / "missing.gguf") as process:
        explained = process.explained()

    assert (process.child.returncode, explained.kind) == (1, ExitKind.MODEL_MISSING), process.tail()
    assert "missing.gguf" in explained.cause


def test_a_port_in_use(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with start(port=port) as process:
            explained = process.explained()

    assert (process.child.returncode, explained.kind) == (1, ExitKind.PORT_IN_USE), process.tail()
    assert str(port) in explained.cause


@pytest.mark.parametrize(
    ("extra", "part"), [(("--no-such-flag",), "--no-such-flag"), (("-b", "many"), "-b"), (("-b",), "")]
)
def test_a_bad_flag(start: Start, extra: Sequence[str], part: str) -> None:
    with start(extra=extra) as process:
        explained = process.explained()

    assert (process.child.returncode, explained.kind) == (1, ExitKind.BAD_FLAG), process.tail()
    assert part in explained.cause


def test_stopped_while_idle(start: Start) -> None:
    with start() as process:
        process.wait_stoppable()
        sent = process.stop(ADAPTER.plan_stop())
        explained = process.explained()

    assert (sent, process.child.returncode, explained.kind) == ([signal.SIGTERM], 0, ExitKind.STOPPED)


def test_stopped_while_a_reader_hangs_on(start: Start) -> None:
    """It goes without force, and its half answer is not taken for a whole one."""
    decoder = ADAPTER.decoder(200)
    with start(ctx=32_768) as process:
        process.wait_ready()
        with process.opened(completion(tokens=32_000)) as response:
            decoded = decoder.feed(read_some(response))
            sent = process.stop(ADAPTER.plan_stop())
            while part := read_some(response):
                decoded += decoder.feed(part)
        explained = process.explained()

    assert signal.SIGKILL not in sent
    assert explained.kind is ExitKind.STOPPED
    assert isinstance(decoded[0], Token)
    assert not isinstance(decoded[-1], Finished)
    assert [item.kind for item in decoder.eof() if isinstance(item, EngineError)] == ["cut"]


def test_a_second_sigterm_waits_for_nobody(start: Start) -> None:
    """Told to ping never, it would wait for the reader for ever."""
    plan = StopPlan(steps=((signal.SIGTERM, 1.0), (signal.SIGTERM, 10.0)))
    with start(ctx=32_768, ping_s=-1) as process:
        process.wait_ready()
        with process.opened(completion(tokens=32_000)) as response:
            read_some(response)
            process.stop(plan)
            explained = process.explained()

    assert explained.kind is ExitKind.STOPPED


@pytest.mark.parametrize(
    ("number", "kind", "part"),
    [
        (signal.SIGKILL, ExitKind.KILLED, "SIGKILL"),
        (signal.SIGSEGV, ExitKind.CRASHED, "SIGSEGV"),
        (signal.SIGILL, ExitKind.ILLEGAL_INSTRUCTION, "another CPU"),
    ],
)
def test_ended_by_a_signal_in_mid_stream(start: Start, number: int, kind: ExitKind, part: str) -> None:
    decoder = ADAPTER.decoder(200)
    with start(ctx=32_768) as process:
        process.wait_ready()
        with process.opened(completion(tokens=32_000)) as response:
            decoder.feed(read_some(response))
            os.killpg(process.child.pid, number)
            while part_of_body := read_some(response):
                decoder.feed(part_of_body)
        explained = process.explained()

    assert process.child.returncode == -number
    assert explained.kind is kind
    assert part in explained.cause
    assert isinstance(decoder.eof()[0], EngineError)


def test_one_that_stands_still_is_ended_by_force(start: Start) -> None:
    with start() as process:
        process.wait_ready()
        os.killpg(process.child.pid, signal.SIGSTOP)
        wait_until(lambda: psutil.Process(process.child.pid).status() == psutil.STATUS_STOPPED, what="a stop")
        sent = process.stop(ADAPTER.plan_stop())
        explained = process.explained()

    assert sent == [signal.SIGTERM, signal.SIGTERM, signal.SIGKILL]
    assert explained.kind is ExitKind.KILLED
