"""The shape of a model, out of the metadata at the head of its GGUF file: pure, over bytes, strictly bounded.

Reads keys only, never a tensor, and stops where the tokenizer begins once it has what it needs: writers put that last,
and it is most of the head. Whatever a file says, the answer is a shape or `GgufError`. What llama.cpp makes of the file
is not judged here.

The layout (versions 2 and 3, little-endian): magic, version, counts of tensors and of keys; then each key as a string,
the type of its value, the value. A string is its length in 64 bits and its bytes; an array is type, count and items.
"""

from dataclasses import dataclass
from struct import Struct
from typing import Final

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
KEYS_MAX: Final = 4_096
KEY_BYTES_MAX: Final = 65_535
NAME_BYTES_MAX: Final = 64
BLOCKS_MAX: Final = 4_096
LENGTH_MAX: Final = 2**24
CONTEXT_MAX: Final = 2**31 - 1
BYTES_F16: Final = 2

_U32, _U64 = Struct("<I"), Struct("<Q")
_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {
    kind: Struct("<" + code)
    for kind, code in {
        0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", _BOOL: "?", 10: "Q", 11: "q", 12: "d",
    }.items()
}  # fmt: skip
_INTEGERS = frozenset({0, 1, 2, 3, 4, 5, 10, 11})
_KEPT_ITEMS = _INTEGERS | {_BOOL}
"""Items of arrays that have one for each block; a yes or no is kept as 1 or 0."""
_ARCHITECTURE = "general.architecture"
_TOKENIZER = "tokenizer."

Value = str | int | float | bool | tuple[int, ...] | None
"""None stands for a value that is of no interest here."""


class GgufError(Exception):
    """Not a GGUF header, or none that can be believed. One short sentence without the file's own words."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What decides the size of the KV cache, and what kind of embeddings come out. None: the file does not say.

    `head_counts` and `kv_head_counts` have one number for each block. `pooling_type` is llama.cpp's number.
    """

    architecture: str
    block_count: int | None
    embedding_length: int | None
    context_length: int | None
    head_counts: tuple[int, ...] | None
    kv_head_counts: tuple[int, ...] | None
    key_length: int | None
    value_length: int | None
    pooling_type: int | None
    is_causal: bool

    def kv_bytes_per_token(self, key_bytes: int = BYTES_F16, value_bytes: int = BYTES_F16) -> int:
        """Bytes of KV cache for one token of context, over all blocks; 0 where the file does not say enough.

        An upper bound: blocks with a sliding window or without attention keep less. `key_bytes` and `value_bytes` are
        the sizes of one element; llama.cpp's default is f16.
        """
        if not self.is_causal or self.kv_head_counts is None or not self.key_length or not self.value_length:
            return 0
        return sum(self.kv_head_counts) * (self.key_length * key_bytes + self.value_length * value_bytes)


def parse_shape(head: bytes) -> ModelShape:
    """The shape in the first bytes of a file. Raises GgufError, also where they end before it is complete."""
    reader = HeadReader(head)
    _, keys = read_counts(reader)
    return shape_of(read_values(reader, keys))


def read_counts(reader: "HeadReader") -> tuple[int, int]:
    """Numbers of tensors and of keys, from the very start of a file. Raises GgufError."""
    if reader.take(len(MAGIC)) != MAGIC:
        raise GgufError("it does not begin as a GGUF file does")
    if reader.number(_U32) not in VERSIONS:
        raise GgufError("its GGUF version is not known")
    tensors, keys = reader.number(_U64), reader.number(_U64)
    if keys > KEYS_MAX:
        raise GgufError(f"it has more than {KEYS_MAX} keys")
    return tensors, keys


def read_values(reader: "HeadReader", keys: int, *, is_whole: bool = False) -> dict[str, Value]:
    """The values of all keys; it stops at the tokenizer once the shape is known, unless the `whole` head is wanted."""
    values: dict[str, Value] = {}
    for _ in range(keys):
        key = reader.text(KEY_BYTES_MAX)
        if key.startswith(_TOKENIZER) and not is_whole and _is_complete(values):
            break
        values[key] = reader.value(reader.number(_U32), is_kept=not key.startswith(_TOKENIZER))
    return values


def _is_complete(values: dict[str, Value]) -> bool:
    name = values.get(_ARCHITECTURE)
    return all(f"{name}.{key}" in values for key in ("block_count", "embedding_length", "attention.head_count"))


def shape_of(values: dict[str, Value]) -> ModelShape:
    """The shape that these keys give. Raises GgufError."""
    name = values.get(_ARCHITECTURE)
    if not isinstance(name, str) or not 0 < len(name) <= NAME_BYTES_MAX:
        raise GgufError("it does not name its architecture")
    blocks = length_of(values, f"{name}.block_count", BLOCKS_MAX)
    width = length_of(values, f"{name}.embedding_length", LENGTH_MAX)
    heads = _per_block(values, f"{name}.attention.head_count", blocks)
    each = width // max(heads) if width and heads and max(heads) else None
    key_length = length_of(values, f"{name}.attention.key_length", LENGTH_MAX)
    value_length = length_of(values, f"{name}.attention.value_length", LENGTH_MAX)
    return ModelShape(
        architecture=name,
        block_count=blocks,
        embedding_length=width,
        context_length=length_of(values, f"{name}.context_length", CONTEXT_MAX),
        head_counts=heads,
        kv_head_counts=_per_block(values, f"{name}.attention.head_count_kv", blocks) or heads,
        key_length=each if key_length is None else key_length,
        value_length=each if value_length is None else value_length,
        pooling_type=length_of(values, f"{name}.pooling_type", LENGTH_MAX),
        is_causal=values.get(f"{name}.attention.causal") is not False,
    )


def length_of(values: dict[str, Value], key: str, most: int) -> int | None:
    """A number of the file, None where it does not say. Raises GgufError where it is out of bounds."""
    value = values.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise GgufError("a length in it is out of bounds")
    return value


def _per_block(values: dict[str, Value], key: str, blocks: int | None) -> tuple[int, ...] | None:
    """One number for all blocks, or one for each."""
    value = values.get(key)
    if value is None or blocks is None:
        return None
    numbers = value if isinstance(value, tuple) else (value,) * blocks
    if len(numbers) != blocks:
        raise GgufError("it does not have one number for each block")
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= LENGTH_MAX:
            raise GgufError("a number of heads in it is out of bounds")
    return tuple(number for number in numbers if isinstance(number, int))


class HeadReader:
    """Takes values from the front of some bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        begin = self._skip(count)
        return self._data[begin : self._at]

    def _skip(self, count: int) -> int:
        begin = self._at
        if count > len(self._data) - begin:
            raise GgufError("it ends within its header")
        self._at = begin + count
        return begin

    def number(self, form: Struct) -> int:
        """One unsigned number."""
        found: int = form.unpack_from(self._data, self._skip(form.size))[0]
        return found

    def text(self, bytes_max: int) -> str:
        """One string."""
        size = self.number(_U64)
        if size > bytes_max:
            raise GgufError(f"a name in it is longer than {bytes_max} bytes")
        try:
            return self.take(size).decode()
        except UnicodeDecodeError as error:
            raise GgufError("a name in it is not UTF-8") from error

    def value(self, kind: int, *, is_kept: bool) -> Value:
        """One value of a key; what is of no use here is passed over."""
        if kind == _ARRAY:
            return self._array(is_kept=is_kept)
        if kind == _STRING:
            return self._string()
        form = _SCALARS.get(kind)
        if form is None:
            raise GgufError("it has a value of a type that is not known")
        found: int | float | bool = form.unpack_from(self._data, self._skip(form.size))[0]
        return found

    def _string(self) -> str | None:
        """A short one is kept: only names are of use. Anything else is somebody's prose."""
        size = self.number(_U64)
        if size <= NAME_BYTES_MAX:
            return self.take(size).decode(errors="replace")
        self._skip(size)
        return None

    def _array(self, *, is_kept: bool) -> tuple[int, ...] | None:
        kind, count = self.number(_U32), self.number(_U64)
        if kind == _STRING:
            for _ in range(count):  # each takes eight bytes at least, so the bytes that are there bound the loop
                self._skip(self.number(_U64))
            return None
        form = _SCALARS.get(kind)
        if form is None:
            raise GgufError("it has an array of a type that is not known")
        if not is_kept or kind not in _KEPT_ITEMS or count > BLOCKS_MAX:
            self._skip(count * form.size)
            return None
        return tuple(int(self.number(form)) for _ in range(count))
