"""Runs the real llama.cpp HTTP server that the prebuilt wheel `xllamacpp` holds, with llama-server's own flags.

For machines where building llama-server is not worth the wait: the demo, the tests, continuous integration. It behaves
as llama-server does at its edges: an unknown flag, a missing model and a taken port end it with status 1 and a message
on stderr; SIGTERM ends it in good order, and a second one waits for no reader; while it loads, both wait for the end of
the load. A flag that it does not know is refused, never dropped.

    python xllamacpp_server.py -m model.gguf --host 127.0.0.1 --port 8080 -c 4096 -np 2 --metrics
"""

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import xllamacpp
from xllamacpp import CommonParams, Server

Set = Callable[[CommonParams, str], None]

ALL_LAYERS = -2
AUTO_LAYERS = -1
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class BadFlagError(Exception):
    """A flag that is unknown, lacks its value or has a wrong one; the text is llama-server's."""


def _layers(value: str) -> int:
    return {"all": ALL_LAYERS, "auto": AUTO_LAYERS}[value] if value in {"all", "auto"} else int(value)


def _switch(value: str) -> bool:
    if value not in {"on", "off"}:
        msg = f"error: unknown value: '{value}'"
        raise BadFlagError(msg)
    return value == "on"


def _set_model(params: CommonParams, value: str) -> None:
    params.model.path = value


def _set_seed(params: CommonParams, value: str) -> None:
    params.sampling.seed = int(value) & 0xFFFFFFFF


def _set_threads(params: CommonParams, value: str) -> None:
    params.cpuparams.n_threads = int(value)


def _set_threads_batch(params: CommonParams, value: str) -> None:
    params.cpuparams_batch.n_threads = int(value)


def _set_split(params: CommonParams, value: str) -> None:
    ratios = [float(part) for part in value.split(",")]
    params.tensor_split = ratios + [0.0] * (len(params.tensor_split) - len(ratios))


def _set_mode(params: CommonParams, value: str) -> None:
    params.split_mode = xllamacpp.llama_split_mode[f"LLAMA_SPLIT_MODE_{value.upper()}"]


def _set_pooling(params: CommonParams, value: str) -> None:
    params.pooling_type = xllamacpp.llama_pooling_type[f"LLAMA_POOLING_TYPE_{value.upper()}"]


def _set_flash(params: CommonParams, value: str) -> None:
    kind = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}[value]
    params.flash_attn_type = xllamacpp.llama_flash_attn_type[f"LLAMA_FLASH_ATTN_TYPE_{kind}"]


def _set_timeout(params: CommonParams, value: str) -> None:
    params.timeout_read = params.timeout_write = int(value)


def _set_rerank(params: CommonParams) -> None:
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK


def _to(name: str, parse: Callable[[str], object]) -> Set:
    return lambda params, value: setattr(params, name, parse(value))


VALUED: Mapping[tuple[str, ...], Set] = {
    ("-m", "--model"): _set_model,
    ("-a", "--alias"): _to("model_alias", lambda value: set(value.split(","))),
    ("--tags",): _to("model_tags", lambda value: set(value.split(","))),
    ("--host",): _to("hostnames", lambda value: value.split(",")),
    ("--port",): _to("port", int),
    ("--api-key",): _to("api_keys", lambda value: value.split(",")),
    ("--api-key-file",): _to("api_keys", lambda value: Path(value).read_text().split()),
    ("-c", "--ctx-size"): _to("n_ctx", int),
    ("-np", "--parallel"): _to("n_parallel", int),
    ("-n", "--predict", "--n-predict"): _to("n_predict", int),
    ("-b", "--batch-size"): _to("n_batch", int),
    ("-ub", "--ubatch-size"): _to("n_ubatch", int),
    ("-t", "--threads"): _set_threads,
    ("-tb", "--threads-batch"): _set_threads_batch,
    ("--threads-http",): _to("n_threads_http", int),
    ("-ngl", "--gpu-layers", "--n-gpu-layers"): _to("n_gpu_layers", _layers),
    ("-sm", "--split-mode"): _set_mode,
    ("-ts", "--tensor-split"): _set_split,
    ("-mg", "--main-gpu"): _to("main_gpu", int),
    ("-fit", "--fit"): _to("fit_params", _switch),
    ("-fa", "--flash-attn"): _set_flash,
    ("-cram", "--cache-ram"): _to("cache_ram_mib", int),
    ("-s", "--seed"): _set_seed,
    ("--pooling",): _set_pooling,
    ("--slot-save-path",): _to("slot_save_path", str),
    ("--sse-ping-interval",): _to("sse_ping_interval", int),
    ("-to", "--timeout"): _set_timeout,
    ("-lv", "--verbosity", "--log-verbosity"): _to("verbosity", int),
}

BARE: Mapping[tuple[str, ...], tuple[str, object]] = {
    ("-cb", "--cont-batching"): ("cont_batching", True),
    ("-nocb", "--no-cont-batching"): ("cont_batching", False),
    ("-kvu", "--kv-unified"): ("kv_unified", True),
    ("-no-kvu", "--no-kv-unified"): ("kv_unified", False),
    ("-kvo", "--kv-offload"): ("no_kv_offload", False),
    ("-nkvo", "--no-kv-offload"): ("no_kv_offload", True),
    ("--cache-prompt",): ("cache_prompt", True),
    ("--no-cache-prompt",): ("cache_prompt", False),
    ("--warmup",): ("warmup", True),
    ("--no-warmup",): ("warmup", False),
    ("--metrics",): ("endpoint_metrics", True),
    ("--props",): ("endpoint_props", True),
    ("--slots",): ("endpoint_slots", True),
    ("--no-slots",): ("endpoint_slots", False),
    ("--ui", "--webui"): ("ui", True),
    ("--no-ui", "--no-webui"): ("ui", False),
    ("--offline",): ("offline", True),
    ("--embedding", "--embeddings"): ("embedding", True),
    ("--log-jsonl",): ("log_json", True),
}


def parse(argv: list[str]) -> CommonParams:
    """llama-server's reading of a command line: exact flags, the last one wins. Raises BadFlagError.

    One default differs: without -ngl and -fit every layer goes to the GPU and nothing is fitted: nothing spills.
    """
    params = CommonParams()
    params.n_gpu_layers, params.fit_params = ALL_LAYERS, False
    if key := os.environ.get("LLAMA_API_KEY"):
        params.api_keys = key.split(",")
    valued = {flag: setter for flags, setter in VALUED.items() for flag in flags}
    bare = {flag: target for flags, target in BARE.items() for flag in flags}
    words = iter(argv)
    for word in words:
        if word in valued:
            _apply(params, word, next(words, None), valued[word])
        elif word in bare:
            setattr(params, *bare[word])
        elif word in {"--rerank", "--reranking"}:
            _set_rerank(params)
        else:
            msg = f"error: invalid argument: {word}"
            raise BadFlagError(msg)
    return params


def _apply(params: CommonParams, flag: str, value: str | None, setter: Set) -> None:
    if value is None:
        msg = f'error while handling argument "{flag}": expected value for argument'
        raise BadFlagError(msg)
    try:
        setter(params, value)
    except (ValueError, KeyError, OSError, OverflowError) as error:
        msg = f'error while handling argument "{flag}": {error}'
        raise BadFlagError(msg) from error


def main(argv: list[str]) -> int:
    """Serve until SIGTERM or SIGINT. 0 after a stop in good order, 1 where it could not start."""
    try:
        params = parse(argv)
    except BadFlagError as error:
        print(error, file=sys.stderr)
        return 1
    build = f"xllamacpp-{version('xllamacpp')}"
    params.model_tags = {*params.model_tags, f"build={build}"}  # The wheel's server does not know its own build.
    woken = _catch_signals()
    try:
        server = Server(params)  # Loads the model.
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)  # The server itself has said why.
        return 1
    print(f"{build}: listening on {server.listening_address}", file=sys.stderr, flush=True)
    woken.recv(1)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    del server  # Its destructor ends its threads in good order, and lets no Python run: a handler could not hurry it.
    return 0


def _catch_signals() -> socket.socket:
    """A signal to stop becomes a byte in the returned socket. Called before the load: it serves before that returns."""
    woken, signalled = socket.socketpair()
    signalled.setblocking(False)  # noqa: FBT003  (the standard library takes it so)
    signal.set_wakeup_fd(signalled.detach(), warn_on_full_buffer=False)
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: None)
    return woken


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
