"""The tensors of a model file, out of the directory behind the keys of its GGUF head: names and sizes.

Pure, over bytes, strictly bounded; whatever a file says, the answer is a directory or `GgufError`.

One entry of the directory is: name, number of dimensions, each dimension, type, offset into the data.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from struct import Struct
from typing import Final

from supervisor.runtime.gguf import GgufError, HeadReader, ModelShape, Value, read_counts, read_values, shape_of

TENSORS_MAX: Final = 65_536
TENSOR_NAME_BYTES_MAX: Final = 255
DIMENSIONS_MAX: Final = 4
TENSOR_BYTES_MAX: Final = 2**44

_U32, _U64 = Struct("<I"), Struct("<Q")
_ONE: Final = 1
_SMALL: Final = 32
_SUPER: Final = 256

BLOCKS: Final[Mapping[int, tuple[int, int]]] = {
    0: (_ONE, 4), 1: (_ONE, 2), 2: (_SMALL, 18), 3: (_SMALL, 20), 6: (_SMALL, 22), 7: (_SMALL, 24), 8: (_SMALL, 34),
    9: (_SMALL, 36), 10: (_SUPER, 84), 11: (_SUPER, 110), 12: (_SUPER, 144), 13: (_SUPER, 176), 14: (_SUPER, 210),
    15: (_SUPER, 292), 16: (_SUPER, 66), 17: (_SUPER, 74), 18: (_SUPER, 98), 19: (_SUPER, 50), 20: (_SMALL, 18),
    21: (_SUPER, 110), 22: (_SUPER, 82), 23: (_SUPER, 136), 24: (_ONE, 1), 25: (_ONE, 2), 26: (_ONE, 4), 27: (_ONE, 8),
    28: (_ONE, 8), 29: (_SUPER, 56), 30: (_ONE, 2), 34: (_SUPER, 54), 35: (_SUPER, 66), 39: (_SMALL, 17),
}  # fmt: skip
"""Type number to elements and bytes of one block. A type that is not here is sized by where the next tensor begins."""


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """One tensor: its name, its dimensions (innermost first) and its bytes."""

    name: str
    dimensions: tuple[int, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the head of one file says: the shape, all short values, all tensors of this file.

    `split_count` is the number of files that the model is in, 1 for most.
    """

    shape: ModelShape
    values: Mapping[str, Value]
    tensors: tuple[TensorFacts, ...]
    split_count: int

    def number(self, key: str) -> int | None:
        """A whole number of the architecture, by the end of its key; None where the file does not say."""
        value = self.values.get(f"{self.shape.architecture}.{key}")
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    dimensions: tuple[int, ...]
    kind: int
    offset: int


def parse_facts(head: bytes, file_bytes: int) -> ModelFacts:
    """The facts in the first bytes of a file of `file_bytes`. Raises GgufError, also where they end too early."""
    reader = HeadReader(head)
    tensors, keys = read_counts(reader)
    if tensors > TENSORS_MAX:
        raise GgufError(f"it has more than {TENSORS_MAX} tensors")
    values = read_values(reader, keys, is_whole=True)
    entries = [_read_entry(reader) for _ in range(tensors)]
    count = values.get("split.count")
    return ModelFacts(
        shape=shape_of(values) if "general.architecture" in values else _no_shape(values),
        values=values,
        tensors=_sized(entries, file_bytes),
        split_count=count if isinstance(count, int) and 0 < count <= TENSORS_MAX else 1,
    )


def _no_shape(values: Mapping[str, Value]) -> ModelShape:
    """The later files of a split model name no architecture: they hold tensors only."""
    if "split.no" not in values:
        raise GgufError("it does not name its architecture")
    return ModelShape("", None, None, None, None, None, None, None, None, is_causal=True)


def _read_entry(reader: HeadReader) -> _Entry:
    name = reader.text(TENSOR_NAME_BYTES_MAX)
    count = reader.number(_U32)
    if count > DIMENSIONS_MAX:
        raise GgufError(f"a tensor in it has more than {DIMENSIONS_MAX} dimensions")
    dimensions = tuple(reader.number(_U64) for _ in range(count))
    if prod(dimensions) > TENSOR_BYTES_MAX:
        raise GgufError("a tensor in it is larger than any file")
    return _Entry(name, dimensions, reader.number(_U32), reader.number(_U64))


def _sized(entries: list[_Entry], file_bytes: int) -> tuple[TensorFacts, ...]:
    """Sizes by type, else by the distance to the next tensor; none is larger than the file."""
    begins = sorted({entry.offset for entry in entries} | {file_bytes})
    following = dict(pairwise(begins))
    found = []
    for entry in entries:
        block = BLOCKS.get(entry.kind)
        if block is not None:
            size = -(-prod(entry.dimensions) // block[0]) * block[1]
        else:
            size = following.get(entry.offset, entry.offset) - entry.offset
        found.append(TensorFacts(entry.name, entry.dimensions, min(size, file_bytes)))
    return tuple(found)
