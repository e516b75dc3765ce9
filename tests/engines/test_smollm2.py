"""The real llama.cpp server with the real SmolLM2 model, behind the whole daemon and the CLI."""

import hashlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.support.daemon import ROOT, Daemon
from tests.support.pools import a_pool
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.engines, pytest.mark.timeout(180)]

MODEL = ROOT / ".demo" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
DIGEST = "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
ORCHCTL = str(Path(sys.executable).parent / "orchctl")


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for this module, Ready with the real model."""
    if not MODEL.exists():
        pytest.skip("the model is not there: `make model` fetches it")
    pool = a_pool("smollm2", model="smollm2", ctx=1024)
    models = {"smollm2": {"path": str(MODEL), "digest": DIGEST}}
    daemon = Daemon(tmp_path_factory.mktemp("smollm2"), {"pools": [pool], "models": models})
    yield daemon.start_ready()
    daemon.close()


def ask(daemon: Daemon, **fields: object) -> str:
    """The answer's text."""
    task_id = daemon.accept(model_ref="smollm2", ctx=1024, **fields)
    return daemon.read_stream(task_id).text


@pytest.mark.orch("ORCH-3054")
def test_it_knows_the_capital_of_france(smollm2: Daemon) -> None:
    assert "Paris" in ask(smollm2, prompt="The capital of France is", max_tokens=8)


@pytest.mark.orch("ORCH-3045", "ORCH-3058")
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_strict_streams_are_equal_byte_for_byte_over_a_new_worker(smollm2: Daemon, temperature: float) -> None:
    fields = {"prompt": "A list of colours:", "max_tokens": 48, "seed": 11, "sampler": {"temperature": temperature}}
    before = [hashlib.sha256(ask(smollm2, **fields).encode()).hexdigest() for _ in range(2)]
    old = smollm2.pool("smollm2")["pid"]
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: smollm2.pool("smollm2")["pid"] not in (old, None), what="a new worker")
    smollm2.wait_ready()
    after = hashlib.sha256(ask(smollm2, **fields).encode()).hexdigest()

    assert before == [after, after]


@pytest.mark.orch("ORCH-3045")
def test_a_worker_killed_in_mid_stream_leaves_no_seam(smollm2: Daemon) -> None:
    fields = {"prompt": "Once upon a time", "max_tokens": 300, "seed": 5, "sampler": {"temperature": 0.7}}
    whole = ask(smollm2, **fields)
    task_id = smollm2.accept(model_ref="smollm2", ctx=1024, **fields)
    with smollm2.open_stream(task_id) as events:
        seen = [next(events) for _ in range(20)]
        os.kill(smollm2.pool("smollm2")["pid"], signal.SIGKILL)
        seen += list(events)
    smollm2.wait_ready()

    assert seen[-1].name == "end"
    assert "".join(event.data["t"] for event in seen if event.name == "token") == whole
    assert smollm2.ask("GET", f"/v1/tasks/{task_id}").json["attempt"] == 2


def test_the_seed_decides_a_sampled_stream(smollm2: Daemon) -> None:
    def sample(seed: int) -> str:
        return ask(smollm2, prompt="Once upon", max_tokens=24, seed=seed, sampler={"temperature": 1.0})

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in (1, 2, 3)}) == 3


def test_a_stop_word_ends_the_answer(smollm2: Daemon) -> None:
    task_id = smollm2.accept(
        model_ref="smollm2", ctx=1024, prompt="The capital of France is", max_tokens=64, stop=["."]
    )
    stream = smollm2.read_stream(task_id)

    assert stream.end.data["finish_reason"] == "stop"
    assert "." not in stream.text


def test_orchctl_submit_streams_to_the_terminal(smollm2: Daemon) -> None:
    terminal = _terminal(smollm2, ["submit", "--model", "smollm2", "--max-tokens", "8", "The capital of France is"])
    terminal.expect("Paris", timeout=30)
    terminal.expect(re.compile(r"8 tokens.*tok/s"), timeout=30)
    terminal.expect(pexpect.EOF)
    terminal.close()

    assert terminal.exitstatus == 0


@pytest.mark.orch("ORCH-3017")
def test_ctrl_c_cancels_the_task_on_the_server(smollm2: Daemon) -> None:
    terminal = _terminal(smollm2, ["submit", "--model", "smollm2", "--max-tokens", "900", "Count: one, two, three,"])
    terminal.expect(re.compile(r"\w+"), timeout=30)
    wait_until(lambda: smollm2.pool("smollm2")["metrics"]["slots_busy"] == 1, what="a running task")
    terminal.sendintr()
    terminal.expect(pexpect.EOF, timeout=30)
    terminal.close()

    assert terminal.exitstatus == 130
    newest = smollm2.ask("GET", "/v1/tasks").json["tasks"][0]
    assert newest["result"]["finish_reason"] == "canceled"
    wait_until(lambda: smollm2.pool("smollm2")["metrics"]["slots_busy"] == 0, what="a free slot")


def _terminal(daemon: Daemon, arguments: list[str]) -> "pexpect.spawn[str]":
    return pexpect.spawn(
        ORCHCTL,
        ["--socket", str(daemon.socket_path), *arguments],
        encoding="utf-8",
        dimensions=(40, 120),
        env={**os.environ, "TERM": "xterm-256color"},
    )
