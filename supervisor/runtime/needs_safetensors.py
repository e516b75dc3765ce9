"""What vLLM or TGI need of memory, from a folder of safetensors: headers and config.json, strictly bounded.

Tensor parallelism gives each GPU an equal part of weights and KV. vLLM takes `gpu_memory_utilization` of each whole GPU
at its start, whatever it loads: weights and buffers come off that share, and what is left of it becomes KV cache. So
the share is what must be free, and it must be large enough for the weights and for one full context of every slot.
TGI does the same with `--cuda-memory-fraction`.
"""

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Any, Final

from supervisor.core.memory_need import DeviceNeed, PoolNeed, ceil_mib

UTILIZATION_DEFAULT: Final = 0.9
HEADER_BYTES_MAX: Final = 100 * 1024 * 1024
CONFIG_BYTES_MAX: Final = 4 * 1024 * 1024
FILES_MAX: Final = 512
ENGINE_OVERHEAD_MIB: Final = 1_024
"""CUDA context, torch's own pools and captured graphs of one rank: an assumption until a worker was observed."""
HOST_RANK_MIB: Final = 2_048
"""Resident memory of one Python rank beside the files that it reads."""

_LENGTH = Struct("<Q")
_DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1, "int8": 1}


class FolderError(Exception):
    """Not a model that can be sized. One short sentence."""


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """Bytes of all tensors, and the figures of config.json that decide the KV cache."""

    weights_bytes: int
    layers: int
    kv_heads: int
    head_size: int
    element_bytes: int

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one token, over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_size * self.element_bytes


def read_folder(folder: Path) -> FolderFacts:
    """Sizes of a model folder. Raises FolderError."""
    try:
        config = json.loads(_read(folder / "config.json", CONFIG_BYTES_MAX))
        names = sorted(each.name for each in folder.iterdir() if each.name.endswith(".safetensors"))
        if not names or len(names) > FILES_MAX:
            raise FolderError("it holds no safetensors, or too many files of them")
        weights = sum(_tensor_bytes(folder / name) for name in names)
    except (OSError, ValueError, RecursionError) as error:
        raise FolderError(f"it cannot be read: {type(error).__name__}") from error
    if not isinstance(config, dict):
        raise FolderError("its config.json is not an object")
    text = config.get("text_config", config)
    return _facts(text if isinstance(text, dict) else config, weights)


def _facts(config: Mapping[str, Any], weights: int) -> FolderFacts:
    layers, heads = _number(config, "num_hidden_layers"), _number(config, "num_attention_heads")
    width = _number(config, "hidden_size")
    size = config.get("head_dim")
    return FolderFacts(
        weights_bytes=weights,
        layers=layers,
        kv_heads=_number(config, "num_key_value_heads") if "num_key_value_heads" in config else heads,
        head_size=size if isinstance(size, int) and 0 < size <= 65_536 else width // max(heads, 1),
        element_bytes=_DTYPE_BYTES.get(str(config.get("torch_dtype") or config.get("dtype")), 2),
    )


def _number(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**24:
        raise FolderError(f"its config.json gives no {key}")
    return value


def _tensor_bytes(path: Path) -> int:
    """Bytes of the tensors of one file: where its last one ends, which is never beyond the file."""
    fd = _open(path)
    try:
        size = os.fstat(fd).st_size
        (length,) = _LENGTH.unpack(os.pread(fd, _LENGTH.size, 0).ljust(8, b"\0"))
        if length > min(HEADER_BYTES_MAX, size - _LENGTH.size):
            raise FolderError("the header of one of its files is longer than that file")
        header = json.loads(os.pread(fd, length, _LENGTH.size))
    finally:
        os.close(fd)
    ends = [entry.get("data_offsets", [0, 0])[1] for name, entry in header.items() if name != "__metadata__"]
    return min(max((end for end in ends if isinstance(end, int)), default=0), size)


def _read(path: Path, bytes_max: int) -> bytes:
    fd = _open(path)
    try:
        return os.pread(fd, bytes_max, 0)
    finally:
        os.close(fd)


def _open(path: Path) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FolderError("one of its files is not a regular file")
    return fd


def estimate_folder(
    facts: FolderFacts, *, recipe: str, ctx: int, slots: int, devices: int, utilization: float = UTILIZATION_DEFAULT
) -> PoolNeed:
    """The need on each of the devices; all take an equal part."""
    each = DeviceNeed(
        weights_mib=ceil_mib(facts.weights_bytes / devices),
        kv_mib=ceil_mib(facts.kv_bytes_per_token * ctx * slots / devices),
        buffers_mib=0,
        overhead_mib=ENGINE_OVERHEAD_MIB,
        total_share=utilization,
    )
    return PoolNeed(recipe, (each,) * devices, HOST_RANK_MIB * devices, cells_per_slot=ctx, slots=slots)
