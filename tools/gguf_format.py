"""Writes files in the GGUF format (version 3): named fields, then tensors of 32- or 16-bit floats. Knows no model."""

import struct
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

ALIGNMENT_BYTES = 32

U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
_HALVED_AT_ONCE = 64 * 1024
_TENSOR_KINDS = {"f": 0, "H": 1}
"""The format's number for 32-bit and 16-bit floats, by the typecode of the array that holds them."""

Tensor = tuple[str, tuple[int, ...], "array[float] | array[int]"]
"""Name, sizes (the fastest one first) and values; those of an `array("H")` are the bits of 16-bit floats."""


def halves(values: "memoryview[float]") -> "array[int]":
    """The nearest 16-bit floats of a view of 32-bit ones, as bits."""
    bits = array("H")
    for at in range(0, len(values), _HALVED_AT_ONCE):
        some = values[at : at + _HALVED_AT_ONCE]
        bits.frombytes(struct.pack(f"={len(some)}e", *some))
    return bits


def write_gguf(path: Path, fields: Sequence[bytes], tensors: Sequence[Tensor]) -> Path:
    """Write the whole file and then give it its name; returns that."""
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as out:
        out.write(struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(fields)))
        out.write(b"".join(fields) + b"".join(_directory(tensors)))
        out.write(b"\0" * (-out.tell() % ALIGNMENT_BYTES))
        for _, _, values in tensors:
            out.write(values.tobytes())
            out.write(b"\0" * (-out.tell() % ALIGNMENT_BYTES))
    return part.rename(path)


def _directory(tensors: Sequence[Tensor]) -> Iterator[bytes]:
    """One entry per tensor; each starts at a multiple of the alignment."""
    offset = 0
    for name, dims, values in tensors:
        yield text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, _TENSOR_KINDS[values.typecode], offset)
        size = len(values) * values.itemsize
        offset += size + -size % ALIGNMENT_BYTES


def text(value: str) -> bytes:
    """A text with its length before it."""
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def string_field(key: str, value: str) -> bytes:
    """A field that is a text."""
    return text(key) + struct.pack("<I", STRING) + text(value)


def number_field(key: str, kind: int, value: float) -> bytes:
    """A field that is a number or a truth value; `kind` is U32, F32 or BOOL."""
    packing = {U32: "<I", F32: "<f", BOOL: "<?"}[kind]
    return text(key) + struct.pack("<I", kind) + struct.pack(packing, value)


def array_field(key: str, kind: int, items: Sequence[bytes]) -> bytes:
    """A field that is a list of packed items of one kind."""
    return text(key) + struct.pack("<IIQ", ARRAY, kind, len(items)) + b"".join(items)
