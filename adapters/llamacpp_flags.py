"""Which arguments and variables of an operator may not reach llama.cpp, and why.

Two lists. What spills: anything that puts layers, KV cache or operations on a CPU, or on a device outside the mask;
refused wherever the devices are real (ORCH-3018, ORCH-3011). What is ours: anything that the launch plan states
itself, or that would make the engine something other than one guarded server of one model; refused always in
`extra_args` and `env`. The table was read off `llama-server --help` of build 11434. Decides nothing about the plan
itself.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from adapters.base import PlanError

Judge = Callable[[str | None], bool]
"""Says whether a flag with this value (None: without one) spills."""


def _always(_: str | None) -> bool:
    return True


def _is_not_all(value: str | None) -> bool:
    """Fewer layers than any model has. `auto` and -1 let llama.cpp choose; -2 is its own number for `all`."""
    if value in {"all", "-2"}:
        return False
    return value is None or not value.isdecimal() or int(value) < ALL_LAYERS


def _is_on(value: str | None) -> bool:
    return value is None or value.lower() not in {"off", "0", "false", "disabled"}


def _is_off(value: str | None) -> bool:
    return not _is_on(value)


def _is_not_cuda(value: str | None) -> bool:
    return value is None or not all(re.fullmatch(r"CUDA\d+", name) for name in value.split(","))


def _overrides_to_host(value: str | None) -> bool:
    """`pattern=buffer,…` with a buffer that is not a device's own, for example CPU or CUDA_Host."""
    return value is None or any(_is_not_cuda(rule.rpartition("=")[2]) for rule in value.split(","))


ALL_LAYERS = 999
"""Stands for every layer: no model has as many."""

_SPILLS: tuple[tuple[tuple[str, ...], tuple[str, ...], Judge], ...] = (
    (("-ngl", "--gpu-layers", "--n-gpu-layers"), ("LLAMA_ARG_N_GPU_LAYERS",), _is_not_all),
    (
        ("-ngld", "--spec-draft-ngl", "--gpu-layers-draft", "--n-gpu-layers-draft"),
        ("LLAMA_ARG_N_GPU_LAYERS_DRAFT",),
        _is_not_all,
    ),
    (("-fit", "--fit"), ("LLAMA_ARG_FIT",), _is_on),
    (("-nkvo", "--no-kv-offload"), ("LLAMA_ARG_NO_KV_OFFLOAD",), _always),
    ((), ("LLAMA_ARG_KV_OFFLOAD", "LLAMA_ARG_MMPROJ_OFFLOAD"), _is_off),
    (("--no-op-offload",), (), _always),
    (("-ot", "--override-tensor"), ("LLAMA_ARG_OVERRIDE_TENSOR",), _overrides_to_host),
    (("-otd", "--override-tensor-draft", "--spec-draft-override-tensor"), (), _overrides_to_host),
    (("-cmoe", "--cpu-moe"), ("LLAMA_ARG_CPU_MOE",), _always),
    (("-ncmoe", "--n-cpu-moe"), ("LLAMA_ARG_N_CPU_MOE",), _always),
    (("-ncffn", "--n-cpu-ffn"), ("LLAMA_ARG_N_CPU_FFN",), _always),
    (("-cmoed", "--cpu-moe-draft", "--spec-draft-cpu-moe"), ("LLAMA_ARG_SPEC_DRAFT_CPU_MOE",), _always),
    (
        ("-ncmoed", "--n-cpu-moe-draft", "--spec-draft-n-cpu-moe", "--spec-draft-ncmoe"),
        ("LLAMA_ARG_SPEC_DRAFT_N_CPU_MOE",),
        _always,
    ),
    (("-dev", "--device"), ("LLAMA_ARG_DEVICE",), _is_not_cuda),
    (("-devd", "--device-draft", "--spec-draft-device"), (), _is_not_cuda),
    (("-mmdev", "--mmproj-device"), ("MTMD_BACKEND_DEVICE",), _is_not_cuda),
    (("--no-mmproj-offload",), ("LLAMA_ARG_NO_MMPROJ_OFFLOAD",), _always),
    (("--rpc",), ("LLAMA_ARG_RPC",), _always),
    ((), ("GGML_CUDA_ENABLE_UNIFIED_MEMORY",), _always),
)
"""Flags, variables, and the values of both that spill. llama.cpp heeds the last variable whatever it is set to."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OURS = _names(
    # Stated by the launch plan: identity, address, key, shape.
    "-m --model -a --alias --host --port --reuse-port -c --ctx-size -np --parallel -kvu --kv-unified -no-kvu "
    "--no-kv-unified --kv-unified-per-slot -ts --tensor-split -mg --main-gpu --api-key --api-key-file "
    "--api-prefix --ssl-key-file --ssl-cert-file --metrics --slots --no-slots --sse-ping-interval --no-ui --ui "
    "--webui --no-webui --offline --embedding --embeddings --rerank --reranking "
    # Another model, or many of them.
    "-mu --model-url -dr --docker-repo -hf -hfr --hf-repo -hff --hf-file -hft --hf-token --models-dir "
    "--models-preset --models-max --models-autoload --no-models-autoload --tags "
    "-hfd -hfrd --hf-repo-draft --spec-draft-hf -mmu --mmproj-url "
    "--gpt-oss-20b-default --gpt-oss-120b-default --embd-gemma-default --vision-gemma-4b-default "
    "--vision-gemma-12b-default --fim-qwen-1.5b-default --fim-qwen-3b-default --fim-qwen-7b-default "
    "--fim-qwen-7b-spec --fim-qwen-14b-spec --fim-qwen-30b-default "
    # Sends the model away while the pool is Ready, or the output past the files in which an exit is explained.
    "--sleep-idle-seconds --log-disable --log-file "
    # Gives clients of the engine a hand on this host.
    "--tools --tools-runtime --mcp-servers-config --mcp-servers-json -ag --agent --ui-mcp-proxy --webui-mcp-proxy "
    "--path --media-path --props --cors-origins --cors-methods --cors-headers --cors-credentials "
    # Prints something and ends.
    "-h --help --usage --version -cl --cache-list --completion-bash --list-devices "
)
_OUR_VARIABLES = _names(
    "LLAMA_API_KEY LLAMA_ARG_API_KEY_FILE LLAMA_ARG_API_PREFIX LLAMA_ARG_SSL_KEY_FILE LLAMA_ARG_SSL_CERT_FILE "
    "LLAMA_ARG_MODEL LLAMA_ARG_ALIAS LLAMA_ARG_HOST LLAMA_ARG_PORT LLAMA_ARG_REUSE_PORT LLAMA_ARG_CTX_SIZE "
    "LLAMA_ARG_N_PARALLEL LLAMA_ARG_KV_UNIFIED LLAMA_ARG_NO_KV_UNIFIED LLAMA_ARG_KV_UNIFIED_PER_SLOT "
    "LLAMA_ARG_TENSOR_SPLIT LLAMA_ARG_MAIN_GPU LLAMA_ARG_MODEL_URL LLAMA_ARG_DOCKER_REPO LLAMA_ARG_HF_REPO "
    "LLAMA_ARG_HF_FILE LLAMA_ARG_SPEC_DRAFT_HF_REPO LLAMA_ARG_MMPROJ_URL LLAMA_ARG_MODELS_DIR "
    "LLAMA_ARG_MODELS_PRESET LLAMA_ARG_ENDPOINT_SLOTS "
    "LLAMA_ARG_NO_ENDPOINT_SLOTS LLAMA_ARG_ENDPOINT_PROPS LLAMA_ARG_TOOLS LLAMA_ARG_TOOLS_RUNTIME "
    "LLAMA_ARG_MCP_SERVERS_CONFIG LLAMA_ARG_MCP_SERVERS_JSON LLAMA_ARG_AGENT LLAMA_ARG_UI_MCP_PROXY "
    "LLAMA_ARG_EMBEDDINGS LLAMA_ARG_RERANKING "
    "LLAMA_ARG_SSE_PING_INTERVAL LLAMA_ARG_LOG_FILE LLAMA_ARG_STATIC_PATH CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER "
)

_FLAG_JUDGES: Mapping[str, Judge] = {flag: judge for flags, _, judge in _SPILLS for flag in flags}
_VARIABLE_JUDGES: Mapping[str, Judge] = {name: judge for _, names, judge in _SPILLS for name in names}


def check_extra_args(args: Sequence[str], *, simulated: bool) -> None:
    """Raises PlanError for an argument that is ours, or that spills where the devices are real."""
    for flag, value in _pairs(args):
        if flag in _OURS:
            msg = f"extra_args may not hold {flag}: orchctl states it itself, or it would change what the engine serves"
            raise PlanError(msg)
        if not simulated:
            _check_flag(flag, value, "extra_args")


def check_command(command: Sequence[str], *, simulated: bool) -> None:
    """Raises PlanError for a flag or a NAME=value in an operator's own command that spills on real devices."""
    if simulated:
        return
    words = [word for argument in command for word in argument.split()]  # Also inside `sh -c "…"`.
    for flag, value in _pairs(words):
        _check_flag(flag, value, "launch.command")
    for word in words:
        name, equals, value = word.partition("=")
        if equals:
            _check_variable(name, value, "launch.command")


def check_env(env: Mapping[str, str], *, simulated: bool) -> None:
    """Raises PlanError for a variable that is ours, or that spills where the devices are real."""
    for name, value in env.items():
        if name in _OUR_VARIABLES:
            msg = f"env may not hold {name}: orchctl states it itself, or it would change what the engine serves"
            raise PlanError(msg)
        if not simulated:
            _check_variable(name, value, "env")


def judged_flags() -> frozenset[str]:
    """Every flag that is refused with some value."""
    return _OURS | frozenset(_FLAG_JUDGES)


def judged_variables() -> frozenset[str]:
    """Every variable that is refused with some value."""
    return _OUR_VARIABLES | frozenset(_VARIABLE_JUDGES)


def spelled(args: Iterable[str]) -> frozenset[str]:
    """The flags among some arguments, as llama.cpp reads them."""
    return frozenset(flag for flag, _ in _pairs(list(args)))


def _pairs(args: Sequence[str]) -> list[tuple[str, str | None]]:
    """Each argument that may be a flag, with the value that it may have; `--flag=value` and `--flag_name` included."""
    pairs: list[tuple[str, str | None]] = []
    for at, argument in enumerate(args):
        if not argument.startswith("-"):
            continue
        flag, equals, value = argument.partition("=")
        following = args[at + 1] if at + 1 < len(args) else None
        pairs.append((_canonical(flag), value if equals else following))
    return pairs


def _canonical(flag: str) -> str:
    """llama.cpp takes `_` for `-` in long flags."""
    return flag.replace("_", "-") if flag.startswith("--") else flag


def _check_flag(flag: str, value: str | None, where: str) -> None:
    judge = _FLAG_JUDGES.get(flag)
    if judge is not None and judge(value):
        said = flag if judge is _always or value is None else f"{flag} {value}"
        msg = f"{where} may not hold {said}: part of the model would run outside the pool's GPUs"
        raise PlanError(msg)


def _check_variable(name: str, value: str, where: str) -> None:
    judge = _VARIABLE_JUDGES.get(name)
    if judge is not None and judge(value):
        msg = f"{where} may not hold {name}={value}: part of the model would run outside the pool's GPUs"
        raise PlanError(msg)
