"""How the engine process of a pool is started, where the operator wants it otherwise than the adapter does."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from supervisor.config.fields import Count, DurationMs, EnvName, Finding, Program, Ratio, Section, Text, refuse

PLACEHOLDERS = frozenset(
    {"api_key", "config_dir", "ctx", "ctx_total", "model_name", "model_path", "pool_id", "port", "python", "slots"}
)
"""What `launch.command` may contain in braces; the adapter fills them in. `ctx` is per slot, `ctx_total` for all."""

ENV_OWNED = {
    "CUDA_VISIBLE_DEVICES": "`devices` decides that",
    "CUDA_DEVICE_ORDER": "device indices follow the PCI bus order",
    "GGML_CUDA_ENABLE_UNIFIED_MEMORY": "a model must not spill into host memory (ORCH-3018)",
    "LLAMA_API_KEY": "each engine process gets a random key of its own",
}
"""Variables of an engine that are not the operator's to set, and why."""

ARGS_MAX = 256
ENV_MAX = 128
THREADS_MAX = 1024
MEMORY_MIN_BYTES = 16 * 1024 * 1024

# Only lower-case words: an argument that is JSON keeps its braces.
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")

Argv = tuple[Text, ...]


class Numa(StrEnum):
    """Whether an engine is kept on the processors next to its GPUs."""

    AUTO = "auto"
    OFF = "off"


class LaunchConfig(Section):
    """`command` replaces the adapter's command line, `binary` only its program; `extra_args` are added at its end.

    `threads` is CPU threads of the engine, `load_timeout_ms` the time from spawn to a loaded model, in milliseconds.
    `memory_max` (bytes of host memory) and `cpus` (processors' worth of time) are enforced by a control group, so a
    worker is not started where there can be none; `numa` is a hint (ORCH-3013).
    """

    command: Annotated[Argv, Field(min_length=1, max_length=ARGS_MAX)] | None = None
    env: Annotated[Mapping[EnvName, Text], Field(max_length=ENV_MAX)] = {}
    extra_args: Annotated[Argv, Field(max_length=ARGS_MAX)] = ()
    threads: Annotated[Count, Field(ge=1, le=THREADS_MAX)] | None = None
    binary: Program | None = None
    load_timeout_ms: DurationMs = 600_000
    memory_max: Annotated[Count, Field(ge=MEMORY_MIN_BYTES, le=2**50)] | None = None
    cpus: Annotated[Ratio, Field(ge=0.01, le=THREADS_MAX)] | None = None
    numa: Numa = Numa.AUTO

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Self:
        refuse("launch", [*_command_findings(self), *_env_findings(self)])
        return self


def _command_findings(launch: LaunchConfig) -> list[Finding]:
    """A whole command line leaves nothing to add to, and must tell the engine its port."""
    if launch.command is None:
        return []
    findings = [
        Finding(("command", index), f"{{{name}}} is unknown; there are {', '.join(sorted(PLACEHOLDERS))}")
        for index, argument in enumerate(launch.command)
        for name in _PLACEHOLDER.findall(argument)
        if name not in PLACEHOLDERS
    ]
    if not any("{port}" in argument for argument in launch.command):
        findings.append(Finding(("command",), "nothing in it says {port}, so the engine could not be reached"))
    return findings + [
        Finding((name,), "has no effect beside `command`; write it into the command")
        for name in ("binary", "extra_args", "threads")
        if getattr(launch, name)
    ]


def _env_findings(launch: LaunchConfig) -> list[Finding]:
    return [Finding(("env", name), f"is not to be set: {ENV_OWNED[name]}") for name in launch.env if name in ENV_OWNED]
