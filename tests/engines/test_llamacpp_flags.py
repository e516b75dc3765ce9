"""Every flag and variable of the installed engine that is about where a model lies has been judged.

A new build of the engine may bring a new way to the CPU: it fails here until somebody has looked at it.
"""

import re
from pathlib import Path

import pytest
import xllamacpp

from adapters.llamacpp_flags import judged_flags, judged_variables

pytestmark = pytest.mark.engines

PLACES = re.compile(
    r"gpu|cpu|offload|device|rpc|override-tensor|moe|ffn|\bngl\b|fit$|-host$|unified-memory|repack|lazy|load-mode"
)
HARMLESS_FLAGS = {
    *(f"--{kind}-{rest}" for kind in ("cpu-mask", "cpu-range", "cpu-strict") for rest in ("batch", "draft")),
    *(f"--{kind}-batch-draft" for kind in ("cpu-mask", "cpu-range", "cpu-strict")),
    *(f"--spec-draft-{kind}" for kind in ("cpu-mask", "cpu-range", "cpu-strict")),
    *(f"--spec-draft-{kind}-batch" for kind in ("cpu-mask", "cpu-range", "cpu-strict")),
    *("--cpu-mask", "--cpu-range", "--cpu-strict"),  # which processors its threads run on
    *("--kv-offload", "--op-offload", "--mmproj-offload"),  # to the GPU
    "--moe-cache-mib",  # keeps on the GPU what another flag, which is refused, left on the CPU
    "--no-host",  # another kind of buffer for what the host has anyway
    *("--repack", "--no-repack"),  # how weights of the CPU lie in its memory
    *("--lazy-mode", "--load-mode"),  # how a file is read; tables of embeddings, which lie with the host, row by row
}
HARMLESS_VARIABLES = {
    "LLAMA_ARG_MOE_CACHE_MIB",
    "LLAMA_ARG_NO_HOST",
    "LLAMA_ARG_REPACK",
    "LLAMA_ARG_LAZY_MODE",
    "LLAMA_ARG_LOAD_MODE",
}


def words_of(pattern: bytes) -> set[str]:
    """The strings of the engine's binary that are wholly this."""
    (binary,) = Path(xllamacpp.__file__).parent.glob("*.so")
    return {found.decode() for found in re.findall(rb"(?<=\0)" + pattern + rb"(?=\0)", binary.read_bytes())}


@pytest.mark.orch("ORCH-3018", "ORCH-3011")
def test_every_flag_about_the_place_of_a_model_is_judged() -> None:
    flags = {flag for flag in words_of(rb"--[a-z][a-z0-9.-]+") if PLACES.search(flag)}

    assert {"--cpu-moe", "--device", "--rpc", "--override-tensor", "--n-gpu-layers"} <= flags
    assert flags - judged_flags() - HARMLESS_FLAGS == set()


@pytest.mark.orch("ORCH-3018", "ORCH-3011")
def test_every_variable_about_the_place_of_a_model_is_judged() -> None:
    names = words_of(rb"(?:LLAMA_ARG|MTMD|GGML_CUDA)_[A-Z0-9_]+")
    places = {name for name in names if PLACES.search(name.removeprefix("LLAMA_ARG_").lower().replace("_", "-"))}

    assert {"LLAMA_ARG_CPU_MOE", "LLAMA_ARG_DEVICE", "LLAMA_ARG_N_GPU_LAYERS", "LLAMA_ARG_RPC"} <= places
    assert places - judged_variables() - HARMLESS_VARIABLES == set()


def test_no_flag_that_brings_another_model_is_left_out() -> None:
    presets = {flag for flag in words_of(rb"--[a-z0-9.-]+-(?:default|spec)") if flag != "--spec-default"}

    assert presets
    assert presets - judged_flags() == set()


@pytest.mark.parametrize("known", [HARMLESS_FLAGS, HARMLESS_VARIABLES], ids=["flags", "variables"])
def test_nothing_is_called_harmless_that_is_refused(known: set[str]) -> None:
    assert known & (judged_flags() | judged_variables()) == set()
