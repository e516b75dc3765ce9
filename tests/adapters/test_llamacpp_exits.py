"""Why an engine is gone: the table of exit statuses and last words, and what proves nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import ExitKind
from adapters.llamacpp import LlamaCpp

LOADING = "0.00.011.303 I srv    load_model: loading model '/m.gguf'\n"
FAILED = (
    "0.00.011.533 E srv    load_model: failed to load model, '/m.gguf'\n"
    "0.00.011.535 E srv  llama_server: exiting due to model loading error\n"
)
NO_CUDA_BUILD = "warning: no usable GPU found, --gpu-layers option will be ignored\n"


@pytest.mark.parametrize(
    ("returncode", "tail", "kind", "part"),
    [
        (0, "", ExitKind.STOPPED, "good order"),
        (-15, LOADING, ExitKind.STOPPED, "good order"),
        (143, LOADING, ExitKind.STOPPED, "good order"),
        (1, "Received second interrupt, terminating immediately.\n", ExitKind.STOPPED, "good order"),
        (-9, LOADING, ExitKind.KILLED, "SIGKILL"),
        (137, LOADING, ExitKind.KILLED, "SIGKILL"),
        (-4, "AMX is not ready to be used!\n", ExitKind.ILLEGAL_INSTRUCTION, "another CPU"),
        (132, "", ExitKind.ILLEGAL_INSTRUCTION, "another CPU"),
        (-11, LOADING, ExitKind.CRASHED, "SIGSEGV"),
        (-6, "GGML_ASSERT(n > 0) failed\n", ExitKind.CRASHED, "SIGABRT"),
        (-64, "", ExitKind.CRASHED, "SIGRTMAX"),
        (-63, "", ExitKind.CRASHED, "signal 63"),
        (3, "", ExitKind.CRASHED, "status 3"),
        (1, "", ExitKind.CRASHED, "status 1"),
        (127, "sh: 1: llama-server: not found\n", ExitKind.BINARY_MISSING, "does not exist"),
        (126, "", ExitKind.BINARY_MISSING, "may not be run"),
    ],
)
def test_statuses(returncode: int, tail: str, kind: ExitKind, part: str) -> None:
    found = LlamaCpp().explain_exit(returncode, tail)

    assert found.kind is kind
    assert part in found.cause


OUT_OF_VRAM = [
    (1, "alloc_buffer: allocating 4096.00 MiB on device 0: cudaMalloc failed: out of memory", "GPU"),
    (-6, "/src/ggml-cuda.cu:98: CUDA error: out of memory", "GPU"),
    (1, "llama_model_load: error loading model: unable to allocate CUDA0 buffer", "GPU"),
    (1, "ggml_gallocr_reserve_n: failed to allocate CUDA1 buffer of size 5", "GPU"),
    (1, "CUBLAS_STATUS_ALLOC_FAILED", "GPU"),
    (1, "graph_reserve: failed to allocate compute buffers", "context"),
    (1, "failed to allocate compute pp buffers", "context"),
    (1, "failed to allocate buffer for kv cache", "context"),
]
OUT_OF_RAM = [
    (1, "error loading model: unable to allocate CPU buffer", "host"),
    (1, "error loading model: unable to allocate CPU_REPACK buffer", "host"),
    (1, "unable to allocate CUDA_Host buffer", "host"),
    (-6, "terminate called after throwing an instance of 'std::bad_alloc'", "host"),
    (1, "error loading model: mmap failed: Cannot allocate memory", "host"),
    (-6, "ggml_aligned_malloc: insufficient memory (attempted to allocate 41.96 MB)\nGGML_ASSERT(x) failed", "host"),
]
CUDA_ERRORS = [
    (-6, "CUDA error: an illegal memory access was encountered", "an illegal memory access"),
    (-6, "CUDA error: uncorrectable ECC error encountered", "uncorrectable ECC"),
]
BAD_FLAGS = [
    (1, "error: invalid argument: --no-such-flag", "--no-such-flag"),
    (1, 'error while handling argument "-c": stoi\n\nusage:', '"-c"'),
    (1, 'error while handling environment variable "LLAMA_ARG_FIT": x', '"LLAMA_ARG_FIT"'),
]
BAD_MODELS = [
    (1, "unknown model architecture: 'lxama'", "'lxama'"),
    (1, "tensor 'blk.16.ffn_down.weight' data is not within the file bounds, model is corrupted", "blk.16"),
    (1, "gguf_init_from_file_impl: invalid magic characters: 'ELF', expected 'GGUF'", "could not load"),
]
LAST_WORDS = [
    *((ExitKind.OOM_VRAM, *row) for row in OUT_OF_VRAM),
    *((ExitKind.HOST_ALLOC, *row) for row in OUT_OF_RAM),
    *((ExitKind.CUDA_ERROR, *row) for row in CUDA_ERRORS),
    *((ExitKind.BAD_FLAG, *row) for row in BAD_FLAGS),
    *((ExitKind.MODEL_BAD, *row) for row in BAD_MODELS),
    (ExitKind.NO_GPU, 1, "failed to initialize CUDA: no CUDA-capable device is detected", "no usable GPU"),
    (ExitKind.PORT_IN_USE, 1, "couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 18151", "port: 18151"),
    (ExitKind.MODEL_MISSING, 1, "failed to open GGUF file '/m.gguf' (No such file or directory)", "/m.gguf"),
]


@pytest.mark.parametrize(("kind", "returncode", "words", "part"), LAST_WORDS)
def test_last_words(kind: ExitKind, returncode: int, words: str, part: str) -> None:
    found = LlamaCpp().explain_exit(returncode, NO_CUDA_BUILD + LOADING + f"0.00.020.000 E {words}\n" + FAILED)

    assert found.kind is kind
    assert part in found.cause


def test_a_build_without_cuda_is_the_reason_where_nothing_else_is() -> None:
    assert LlamaCpp().explain_exit(1, NO_CUDA_BUILD).kind is ExitKind.NO_GPU
    assert LlamaCpp().explain_exit(-9, NO_CUDA_BUILD).kind is ExitKind.KILLED


@pytest.mark.parametrize(
    "line",
    [
        "0.01.000.000 D srv  prompt: 'why do I see CUDA error: out of memory?'",
        "0.01.000.000 I slot get_available: std::bad_alloc",
        '{"type":"log","time":1,"level":"info","msg":"couldn\'t bind HTTP server socket"}',
    ],
)
def test_chatter_proves_nothing(line: str) -> None:
    found = LlamaCpp().explain_exit(-9, f"{line}\n")

    assert (found.kind, found.cause) == (ExitKind.KILLED, "the engine was killed (SIGKILL), not by itself")


def test_words_in_json_lines_are_read() -> None:
    line = (
        '{"type":"log","time":9,"level":"error","msg":"couldn\'t bind HTTP server socket, hostname: h, port: 9\\n"}\n'
    )

    assert LlamaCpp().explain_exit(1, line).kind is ExitKind.PORT_IN_USE


@given(st.integers(-70, 260), st.text(max_size=300))
def test_anything_is_explained_in_one_short_sentence(returncode: int, tail: str) -> None:
    found = LlamaCpp().explain_exit(returncode, tail)

    assert 0 < len(found.cause) < 300
    assert "\n" not in found.cause
