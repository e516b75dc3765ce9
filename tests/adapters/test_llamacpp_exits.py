"""Why an engine is gone: the table of exit statuses and last words, and what proves nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import ExitKind
from adapters.llamacpp import LlamaCpp

LOADING = "0.00.011.303 I srv    load_model: loading model '/m.gguf'\n" FAILED = "0.00.011.533 E srv    load_model:
failed to load model, '/m.gguf'\nE srv llama_server: exiting due to model loading error\n" NO_CUDA_BUILD = "warning:
no usable GPU found, --gpu-layers option will be ignored\n"


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


        @pytest.mark.parametrize( ("returncode", "words", "kind", "part"), [ ( 1,
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4096.00 MiB on device 0: cudaMalloc failed: out of
        memory", ExitKind.OOM_VRAM, "GPU", ), (-6, "/src/ggml-cuda.cu:98: CUDA error: out of memory",
        ExitKind.OOM_VRAM, "GPU"), (1, "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
        ExitKind.OOM_VRAM, "GPU"), (1, "ggml_gallocr_reserve_n: failed to allocate CUDA1 buffer of size 5",
        ExitKind.OOM_VRAM, "GPU"), (1, "graph_reserve: failed to allocate compute buffers", ExitKind.OOM_VRAM,
        "context"), (1, "failed to allocate compute pp buffers", ExitKind.OOM_VRAM, "context"), (1, "failed to
        allocate buffer for kv cache", ExitKind.OOM_VRAM, "context"), (1, "CUBLAS_STATUS_ALLOC_FAILED",
        ExitKind.OOM_VRAM, "GPU"), (1, "error loading model: unable to allocate CPU buffer", ExitKind.OOM_HOST,
        "host"), (1, "unable to allocate CUDA_Host buffer", ExitKind.OOM_HOST, "host"), (-6, "terminate called after
        throwing an instance of 'std::bad_alloc'", ExitKind.OOM_HOST, "host"), (1, "error loading model: mmap failed:
        Cannot allocate memory", ExitKind.OOM_HOST, "host"), ( -6, "ggml_aligned_malloc: insufficient memory
        (attempted to allocate 41.96 MB)\nGGML_ASSERT(ctx->mem_buffer != NULL) failed", ExitKind.OOM_HOST, "host", ),
        (-6, "CUDA error: an illegal memory access was encountered", ExitKind.CUDA_ERROR, "an illegal memory access"),
        (-6, "CUDA error: uncorrectable ECC error encountered", ExitKind.CUDA_ERROR, "uncorrectable ECC"), (1,
        "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected", ExitKind.NO_GPU, "no
        usable"), ( 1, "E srv start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 18151",
        ExitKind.PORT_IN_USE, "port: 18151", ), (1, "error: invalid argument: --no-such-flag", ExitKind.BAD_FLAG,
        "--no-such-flag"), (1, 'error while handling argument "-c": stoi\n\nusage:', ExitKind.BAD_FLAG, '"-c"'), ( 1,
        "gguf_init_from_file: failed to open GGUF file '/m.gguf' (No such file or directory)", ExitKind.MODEL_MISSING,
        "/m.gguf", ), (1, "unknown model architecture: 'lxama'", ExitKind.MODEL_BAD, "'lxama'"), ( 1, "tensor
        'blk.16.ffn_down.weight' data is not within the file bounds, model is corrupted or incomplete",
        ExitKind.MODEL_BAD, "blk.16", ), (1, "gguf_init_from_file_impl: invalid magic characters: 'ELF', expected
        'GGUF'", ExitKind.MODEL_BAD, "load"), ], ) @pytest.mark.orch("ORCH-3027") def test_last_words(returncode: int,
        words: str, kind: ExitKind, part: str) -> None: found = LlamaCpp().explain_exit(returncode, NO_CUDA_BUILD +
        LOADING + f"0.00.020.000 E {words}\n" + FAILED)

    assert found.kind is kind
    assert part in found.cause


def test_a_build_without_cuda_is_the_reason_where_nothing_else_is() -> None:
    assert LlamaCpp().explain_exit(1, NO_CUDA_BUILD).kind is ExitKind.NO_GPU


@pytest.mark.parametrize(
    "line",
    [
        "0.01.000.000 D srv  prompt: 'why do I see CUDA error: out of memory?'",
        "0.01.000.000 I slot get_available: std::bad_alloc",
        '{"type":"log","time":1,"level":"INFO","msg":"couldn\'t bind HTTP server socket"}',
    ],
)
def test_chatter_proves_nothing(line: str) -> None:
    found = LlamaCpp().explain_exit(-9, f"{line}\n")

    assert (found.kind, found.cause) == (ExitKind.KILLED, "the engine was killed (SIGKILL), not by itself")


def test_a_kill_is_not_called_a_want_of_memory_without_proof() -> None:
    assert LlamaCpp().explain_exit(-9, LOADING).kind is ExitKind.KILLED


    def test_words_in_json_lines_are_read() -> None: line = '{"type":"log","time":9,"level":"ERROR","msg":"couldn\'t
    bind HTTP server socket, hostname: 127.0.0.1, port: 9"}\n'

    assert LlamaCpp().explain_exit(1, line).kind is ExitKind.PORT_IN_USE


@given(st.integers(-70, 260), st.text(max_size=300))
def test_anything_is_explained_in_one_short_sentence(returncode: int, tail: str) -> None:
    found = LlamaCpp().explain_exit(returncode, tail)

    assert 0 < len(found.cause) < 300
    assert "\n" not in found.cause
