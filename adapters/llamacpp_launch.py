"""Plans the command line of a llama.cpp server: everything on the GPUs of the pool, everything stated.

llama.cpp by itself fits the model to the memory it finds and spills the rest to the host, keeps up to 8 GiB of
prompts in RAM, and takes 30 s to notice a stop: the plan says otherwise. Decides the arguments only; the device mask
is the runtime's.
"""

import re
from collections.abc import Mapping, Sequence

from adapters.base import LaunchPlan, LaunchSpec, PlanError, Workload
from adapters.llamacpp_flags import ALL_LAYERS, check_command, check_env, check_extra_args, spelled

BATCH_TOKENS_GPU = 512
BATCH_TOKENS_CPU = 64
"""A cancel in prefill takes effect after the running batch: 0.6 s for 64 tokens of a small model on one core."""
PROMPT_CACHE_MIB = 256
PING_INTERVAL_S = 1
"""llama.cpp notices a reader that left, and a SIGTERM while one is connected, at its next ping."""

_WORKLOAD_FLAGS: Mapping[Workload, tuple[str, ...]] = {
    Workload.COMPLETION: (),
    Workload.EMBEDDING: ("--embeddings",),
    Workload.RERANK: ("--rerank",),
}
_BATCH_FLAGS = frozenset({"-b", "--batch-size", "-ub", "--ubatch-size"})

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")

_FIXED_ENV: Mapping[str, str] = {
    "OMP_WAIT_POLICY": "PASSIVE",  # Spinning OpenMP threads were up to 40 times slower on shared cores.
    "GGML_NO_BACKTRACE": "1",  # No debugger is started on an abort.
}
_COMMAND_ENV: Mapping[str, str] = {
    # A command that leaves these out would get llama.cpp's own defaults, which spill.
    "LLAMA_ARG_N_GPU_LAYERS": str(ALL_LAYERS),
    "LLAMA_ARG_FIT": "off",
    "LLAMA_ARG_KV_OFFLOAD": "on",
    "LLAMA_ARG_CACHE_RAM": str(PROMPT_CACHE_MIB),
    "LLAMA_ARG_SSE_PING_INTERVAL": str(PING_INTERVAL_S),
}


def plan_launch(spec: LaunchSpec) -> LaunchPlan:
    """The command line and environment of one server. Raises PlanError.

    `-c` is the sum over the slots, because llama.cpp divides it among them: `ctx * slots`.
    """
    if not spec.devices and not spec.simulated:
        msg = "a llama.cpp pool needs at least one GPU: CPU inference is not supported"
        raise PlanError(msg)
    check_env(spec.env, simulated=spec.simulated)
    workload = _only_workload(spec)
    argv = _own_command(spec, workload) if spec.command is None else _command(spec, spec.command)
    fixed = {**_FIXED_ENV, **(_COMMAND_ENV if spec.command is not None else {})}
    return LaunchPlan(argv=argv, env={**fixed, **spec.env, "LLAMA_API_KEY": spec.api_key})


def _only_workload(spec: LaunchSpec) -> Workload:
    """llama.cpp pools and classifies for the whole process, and such a process does not complete."""
    if len(spec.workloads) != 1:
        msg = "llama.cpp does one workload per process: give each its own pool"
        raise PlanError(msg)
    (workload,) = spec.workloads
    if workload is not Workload.COMPLETION and spec.slots != 1:
        msg = f"llama.cpp spreads the inputs of one {workload} over all its slots: such a pool takes one slot"
        raise PlanError(msg)
    return workload


def _own_command(spec: LaunchSpec, workload: Workload) -> tuple[str, ...]:
    check_extra_args(spec.extra_args, simulated=spec.simulated)
    stated = spelled(spec.extra_args)
    batch = _batch(spec, workload, stated)
    argv = [spec.binary or "llama-server", "-m", spec.model_path, "-a", spec.model_name]
    argv += ["--host", "127.0.0.1", "--port", str(spec.port), "-c", str(spec.ctx * spec.slots), "-np", str(spec.slots)]
    argv += ["-no-kvu", "--metrics", "--slots", "--no-ui", "--offline", "--sse-ping-interval", str(PING_INTERVAL_S)]
    argv += ["-ngl", str(ALL_LAYERS), "-fit", "off", "-kvo", *_split(spec, stated)]
    argv += _WORKLOAD_FLAGS[workload]
    # Defaults that an operator may state otherwise: llama.cpp warns about a flag that comes twice.
    for spellings, arguments in (
        (("-b", "--batch-size"), ("-b", batch)),
        (("-ub", "--ubatch-size"), ("-ub", batch)),
        (("-cram", "--cache-ram"), ("-cram", str(PROMPT_CACHE_MIB))),
        (("-t", "--threads"), ("-t", str(spec.threads)) if spec.threads is not None else ()),
        (("-cb", "--cont-batching", "-nocb", "--no-cont-batching"), ("-nocb",) if spec.slots == 1 else ()),
    ):
        if stated.isdisjoint(spellings):
            argv += arguments
    return (*argv, *spec.extra_args)


def _batch(spec: LaunchSpec, workload: Workload, stated: frozenset[str]) -> str:
    """Tokens of one batch. An input that is embedded or ranked goes through the model whole, in one of them."""
    if workload is Workload.COMPLETION:
        return str(BATCH_TOKENS_CPU if spec.simulated else BATCH_TOKENS_GPU)
    if stated & _BATCH_FLAGS:
        msg = f"extra_args may not hold {min(stated & _BATCH_FLAGS)}: the batch of this pool is its ctx"
        raise PlanError(msg)
    return str(spec.ctx)


def _split(spec: LaunchSpec, stated: frozenset[str]) -> list[str]:
    """One device holds all; several are split by layer, in the ratios of the config where it states them."""
    if len(spec.devices) <= 1:
        mode, ratios = "none", None
    else:
        mode, ratios = "layer", spec.tensor_split
    if ratios is not None and len(ratios) != len(spec.devices):
        msg = f"tensor_split has {len(ratios)} ratios for {len(spec.devices)} devices"
        raise PlanError(msg)
    arguments = ["-ts", ",".join(f"{ratio:g}" for ratio in ratios)] if ratios is not None else []
    return [*([] if stated & {"-sm", "--split-mode"} else ["-sm", mode]), "-mg", "0", *arguments]


def _command(spec: LaunchSpec, command: Sequence[str]) -> tuple[str, ...]:
    """An operator's own command line with its placeholders filled in; no shell reads it."""
    if spec.extra_args:
        msg = "extra_args cannot be combined with launch.command: write the arguments into the command"
        raise PlanError(msg)
    if not command:
        msg = "launch.command is empty"
        raise PlanError(msg)
    check_command(command, simulated=spec.simulated)
    values = placeholders(spec)
    return tuple(_PLACEHOLDER.sub(lambda found: _value(found[1], values), argument) for argument in command)


def placeholders(spec: LaunchSpec) -> Mapping[str, str]:
    """What a command may name. `ctx` is the context of one slot in tokens, `ctx_total` that of all: llama.cpp's -c."""
    return {
        "port": str(spec.port),
        "model_path": spec.model_path,
        "model_name": spec.model_name,
        "ctx": str(spec.ctx),
        "ctx_total": str(spec.ctx * spec.slots),
        "slots": str(spec.slots),
        "api_key": spec.api_key,
        "config_dir": spec.config_dir,
        "python": spec.python,
        "pool_id": spec.pool_id,
    }


def _value(name: str, values: Mapping[str, str]) -> str:
    if name not in values:
        msg = f"launch.command names the unknown placeholder {{{name}}}; known are {', '.join(sorted(values))}"
        raise PlanError(msg)
    return values[name]
