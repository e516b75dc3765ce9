"""What the command line of a llama.cpp server says about memory. Pure; reads flags, estimates nothing.

Defaults are those of build 11434. A flag that stands twice counts as its last one does for llama.cpp.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

BATCH_DEFAULT = 2048
UBATCH_DEFAULT = 512
PROMPT_CACHE_DEFAULT_MIB = 256
"""What the launch plan sets where nothing else is said; llama.cpp by itself takes 8192."""
F16 = (1, 2)

KV_TYPES: Mapping[str, tuple[int, int]] = {
    "f32": (1, 4),
    "f16": F16,
    "bf16": (1, 2),
    "q8_0": (32, 34),
    "q4_0": (32, 18),
    "q4_1": (32, 20),
    "iq4_nl": (32, 18),
    "q5_0": (32, 22),
    "q5_1": (32, 24),
}
"""Elements and bytes of one block, by the words of `-ctk` and `-ctv`."""

_SPELLINGS: Mapping[str, str] = {
    spelling: name
    for name, spellings in {
        "ctx": "-c --ctx-size",
        "slots": "-np --parallel",
        "batch": "-b --batch-size",
        "ubatch": "-ub --ubatch-size",
        "key_type": "-ctk --cache-type-k",
        "value_type": "-ctv --cache-type-v",
        "draft_key_type": "-ctkd --cache-type-k-draft --spec-draft-type-k",
        "draft_value_type": "-ctvd --cache-type-v-draft --spec-draft-type-v",
        "draft": "-md --model-draft --spec-draft-model",
        "draft_ctx": "-cd --ctx-size-draft --spec-draft-ctx-size",
        "mmproj": "-mm --mmproj",
        "prompt_cache": "-cram --cache-ram",
        "flash": "-fa --flash-attn",
        "load_mode": "-lm --load-mode",
        "lora": "--lora",
        "lora_scaled": "--lora-scaled",
    }.items()
    for spelling in spellings.split()
}
_SWITCHES = frozenset({"--no-mmap", "--swa-full", "-kvu", "--kv-unified", "--embeddings", "--embedding", "--rerank"})
_VARIABLES: Mapping[str, str] = {
    "LLAMA_ARG_BATCH": "batch",
    "LLAMA_ARG_UBATCH": "ubatch",
    "LLAMA_ARG_FLASH_ATTN": "flash",
    "LLAMA_ARG_CACHE_TYPE_K": "key_type",
    "LLAMA_ARG_CACHE_TYPE_V": "value_type",
    "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_K": "draft_key_type",
    "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_V": "draft_value_type",
    "LLAMA_ARG_SPEC_DRAFT_MODEL": "draft",
    "LLAMA_ARG_MMPROJ": "mmproj",
    "LLAMA_ARG_LOAD_MODE": "load_mode",
    "LLAMA_ARG_CACHE_RAM": "prompt_cache",
}
"""What may be said by a variable too; a flag goes before it."""
_DIGITS = re.compile(r"-?[0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class MemoryFlags:
    """Sizes are tokens; `ctx_total` is for all slots together, 0 for the model's own. Types are (elements, bytes)."""

    ctx_total: int = 0
    slots: int = 1
    ubatch: int = UBATCH_DEFAULT
    key_type: tuple[int, int] = F16
    value_type: tuple[int, int] = F16
    draft_key_type: tuple[int, int] = F16
    draft_value_type: tuple[int, int] = F16
    draft: str | None = None
    draft_ctx: int | None = None
    mmproj: str | None = None
    loras: tuple[str, ...] = ()
    prompt_cache_mib: int = PROMPT_CACHE_DEFAULT_MIB
    has_flash_attention: bool = True
    has_mmap: bool = True
    is_swa_full: bool = False
    is_unified: bool = False
    is_oneshot: bool = False

    @property
    def others(self) -> tuple[str, ...]:
        """Files beside the model that take memory."""
        return tuple(name for name in (self.draft, self.mmproj, *self.loras) if name)

    def below(self, folder: PurePath) -> "MemoryFlags":
        """The same, with relative names counted from the folder in which the engine is started."""
        return replace(
            self,
            draft=str(folder / self.draft) if self.draft else None,
            mmproj=str(folder / self.mmproj) if self.mmproj else None,
            loras=tuple(str(folder / name) for name in self.loras),
        )


def read_memory_flags(argv: Sequence[str], env: Mapping[str, str] | None = None) -> MemoryFlags:
    """What these arguments say. What cannot be read counts as absent: llama.cpp itself will refuse it."""
    found, switches, loras = _scan(argv)
    said = {_VARIABLES[name]: value for name, value in (env or {}).items() if name in _VARIABLES}
    found = {**said, **found}
    batch = _number(found.get("batch"), BATCH_DEFAULT)
    ubatch = min(_number(found.get("ubatch"), UBATCH_DEFAULT), batch)
    mode = found.get("load_mode", "auto")
    return MemoryFlags(
        ctx_total=max(_number(found.get("ctx"), 0), 0),
        slots=max(_number(found.get("slots"), 1), 1),
        ubatch=max(ubatch, 1),
        key_type=KV_TYPES.get(found.get("key_type", ""), F16),
        value_type=KV_TYPES.get(found.get("value_type", ""), F16),
        draft_key_type=KV_TYPES.get(found.get("draft_key_type", ""), F16),
        draft_value_type=KV_TYPES.get(found.get("draft_value_type", ""), F16),
        draft=found.get("draft"),
        draft_ctx=_number(found["draft_ctx"], 0) or None if "draft_ctx" in found else None,
        mmproj=found.get("mmproj"),
        loras=loras,
        prompt_cache_mib=max(_number(found.get("prompt_cache"), PROMPT_CACHE_DEFAULT_MIB), 0),
        has_flash_attention=found.get("flash", "auto") not in {"off", "0", "false", "disabled"},
        has_mmap="--no-mmap" not in switches and mode in {"auto", "mmap", "mmap+mlock"},
        is_swa_full="--swa-full" in switches,
        is_unified=bool(switches & {"-kvu", "--kv-unified"}),
        is_oneshot=bool(switches & {"--embeddings", "--embedding", "--rerank"}),
    )


def _scan(argv: Sequence[str]) -> tuple[dict[str, str], frozenset[str], tuple[str, ...]]:
    found: dict[str, str] = {}
    switches = set()
    loras = []
    for at, argument in enumerate(argv):
        if not argument.startswith("-"):
            continue
        flag, equals, value = argument.partition("=")
        flag = flag.replace("_", "-") if flag.startswith("--") else flag
        if flag in _SWITCHES:
            switches.add(flag)
        name = _SPELLINGS.get(flag)
        following = value if equals else argv[at + 1] if at + 1 < len(argv) else None
        if name is None or following is None:
            continue
        if name == "lora":
            loras += following.split(",")
        if name == "lora_scaled":
            loras += [entry.rpartition(":")[0] or entry for entry in following.split(",")]
        found[name] = following
    return found, frozenset(switches), tuple(loras)


def _number(text: str | None, absent: int) -> int:
    return int(text) if text is not None and _DIGITS.fullmatch(text) else absent
