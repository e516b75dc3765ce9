"""The estimate of memory against what the real llama.cpp says of its own buffers."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters.llamacpp_memory import read_memory_flags
from supervisor.runtime.gguf_tensors import ModelFacts, parse_facts
from supervisor.runtime.needs_gguf import estimate_devices
from supervisor.runtime.processes_port import pick_port
from tests.support.daemon import ROOT
from tests.support.pools import REAL_ENGINE
from tests.support.tiny_gguf import make_tiny_gguf

pytestmark = [pytest.mark.engines, pytest.mark.timeout(120)]

SMOLLM2 = ROOT / ".demo" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
_LINES = {
    "model": re.compile(rb"model buffer size = +([0-9.]+) MiB"),
    "kv": re.compile(rb"CPU KV buffer size = +([0-9.]+) MiB"),
    "compute": re.compile(rb"CPU compute buffer size = +([0-9.]+) MiB"),
}
LINE_PRECISION_MIB = 0.005
COMPUTE_SPARE_MIB = 8.0
"""How much more than the engine's own figure the bound may be for these small models, logits aside."""


@dataclass(frozen=True)
class Said:
    """What the engine printed, in MiB."""

    model: float
    kv: float
    compute: float


def ask_engine(model: Path, argv: list[str]) -> Said:
    """Start the real server on the CPU, read its lines, end it."""
    command = [
        sys.executable,
        REAL_ENGINE,
        "-m",
        str(model),
        "--host",
        "127.0.0.1",
        "--port",
        str(pick_port(avoid=set())),
    ]
    command += [*argv, "-t", "1", "-no-kvu", "-fit", "off", "-lv", "5"]
    found: dict[str, float] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            for name, pattern in _LINES.items():
                if match := pattern.search(line):
                    found[name] = float(match[1])
            if len(found) == len(_LINES):
                break
        process.kill()
    return Said(**found)


def facts_of(model: Path) -> ModelFacts:
    data = model.read_bytes()
    return parse_facts(data, len(data))


@pytest.fixture(params=["tiny", "wide", "smollm2"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Two models of our own and a real one."""
    if request.param == "smollm2":
        if not SMOLLM2.exists():
            pytest.skip("the model is not there: `make model` fetches it")
        return SMOLLM2
    shape = {"layers": 8, "embd": 512, "ff": 1536} if request.param == "wide" else {}
    return make_tiny_gguf(tmp_path / "model.gguf", **shape)


@pytest.mark.orch("ORCH-3003")
@pytest.mark.parametrize(
    "argv",
    [
        ["-c", "2048", "-np", "1", "-b", "256", "-ub", "256", "-fa", "off"],
        ["-c", "4096", "-np", "2", "-b", "64", "-ub", "64", "-fa", "on"],
        ["-c", "1500", "-np", "3", "-b", "128", "-ub", "128", "-fa", "on"],
    ],
    ids=["one slot", "two slots", "odd context"],
)
def test_weights_and_kv_are_exact_and_buffers_are_within_their_bound(model: Path, argv: list[str]) -> None:
    facts, flags = facts_of(model), read_memory_flags(argv)
    (share,) = estimate_devices(facts, flags, (1.0,))
    weights = sum(tensor.size_bytes for tensor in facts.tensors) / 2**20  # the CPU holds the input embedding too
    logits = max(t.dimensions[1] for t in facts.tensors if t.name == "token_embd.weight") * flags.ubatch * 4 / 2**20

    said = ask_engine(model, argv)

    assert weights == pytest.approx(said.model, rel=0.01, abs=LINE_PRECISION_MIB)
    assert share.kv / 2**20 == pytest.approx(said.kv, rel=0.01, abs=LINE_PRECISION_MIB)
    assert said.compute <= share.buffers / 2**20 <= said.compute + logits + COMPUTE_SPARE_MIB
