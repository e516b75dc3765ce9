"""Turns a BERT encoder as it is published (safetensors and a WordPiece vocabulary) into one GGUF file for llama.cpp.

The file embeds by the mean over all tokens. Matrices become 16-bit floats; vectors, positions and token types stay at
32 bits, as llama.cpp wants them. Sizes are those of the tensors; the number of heads no tensor tells. The same input
gives the same bytes. Standard library only; holds the weights once, at 16 bits.
"""

import json
import mmap
import struct
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from tools.bert_fields import BertSizes, bert_fields
from tools.gguf_format import Tensor, halves, write_gguf

_POOLING_MEAN, _MOSTLY_F16 = 1, 1
_NORMAL, _UNKNOWN, _CONTROL = 1, 2, 3
_SPECIALS = {"[PAD]": _CONTROL, "[UNK]": _UNKNOWN, "[CLS]": _CONTROL, "[SEP]": _CONTROL, "[MASK]": _CONTROL}
_INSIDE, _WORD_START = "##", "▁"

_EMBEDDINGS = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}
_LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_WITHOUT_BIAS = ("token_embd", "position_embd", "token_types")
_KEPT_AT_32_BITS = ("position_embd", "token_types")


class ConversionError(Exception):
    """The files are not such a model. One sentence."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """A tensor of the safetensors file. `shape` has the slowest size first; `values` are 32-bit floats."""

    shape: tuple[int, ...]
    values: "memoryview[float]"


def convert(weights: Path, vocabulary: Path, target: Path, *, name: str, heads: int) -> Path:
    """Write `target` and return it. Raises ConversionError."""
    stored = _stored(weights)
    sizes = _sizes(stored)
    words = _words(vocabulary, sizes["vocabulary"])
    return write_gguf(target, _fields(sizes, words, name, heads), list(_tensors(stored, sizes["layers"])))


def _words(vocabulary: Path, count: int) -> list[str]:
    """One word a line; its number is its token."""
    words = vocabulary.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    if len(words) != count or len(set(words)) != count or not _SPECIALS.keys() <= set(words):
        msg = f"the vocabulary must have {count} words, each once, among them {', '.join(_SPECIALS)}"
        raise ConversionError(msg)
    return words


def _stored(weights: Path) -> dict[str, _Stored]:
    """The tensors of a safetensors file: the length of a JSON header, the header, then the values."""
    try:
        with weights.open("rb") as opened:
            file = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
        (length,) = struct.unpack_from("<Q", file)
        header = json.loads(bytes(file[8 : 8 + length]))
        return {
            key: _Stored(tuple(entry["shape"]), _values(file[8 + length :], entry))
            for key, entry in header.items()
            if key != "__metadata__" and entry["dtype"] == "F32"
        }
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"the weights are no safetensors file: {error}"
        raise ConversionError(msg) from error


def _values(data: memoryview, entry: Mapping[str, list[int]]) -> "memoryview[float]":
    start, end = entry["data_offsets"]
    values = data[start:end].cast("f")
    if len(values) != prod(entry["shape"]):
        raise ValueError(f"{len(values)} values for the shape {entry['shape']}")
    return values


def _sizes(stored: Mapping[str, _Stored]) -> dict[str, int]:
    """What the shapes of the tensors say."""
    layers = len({key.split(".")[2] for key in stored if key.startswith("encoder.layer.")})
    words, embd = _named(stored, "embeddings.word_embeddings.weight").shape
    context, _ = _named(stored, "embeddings.position_embeddings.weight").shape
    ff, _ = _named(stored, "encoder.layer.0.intermediate.dense.weight").shape
    return {"layers": layers, "vocabulary": words, "embd": embd, "context": context, "ff": ff}


def _named(stored: Mapping[str, _Stored], key: str) -> _Stored:
    if key not in stored:
        msg = f"the weights have no tensor {key} of 32-bit floats"
        raise ConversionError(msg)
    return stored[key]


def _tensors(stored: Mapping[str, _Stored], layers: int) -> Iterator[Tensor]:
    """All that the engine needs, in its names. The pooler of the training stays behind."""
    blocks = {f"encoder.layer.{n}.{key}": f"blk.{n}.{name}" for n in range(layers) for key, name in _LAYER.items()}
    for key, name in (_EMBEDDINGS | blocks).items():
        for part in ("weight",) if name in _WITHOUT_BIAS else ("weight", "bias"):
            found = _named(stored, f"{key}.{part}")
            whole = len(found.shape) == 1 or name in _KEPT_AT_32_BITS
            values = array("f", found.values.tobytes()) if whole else halves(found.values)
            yield f"{name}.{part}", found.shape[::-1], values


def _word(word: str) -> tuple[str, int]:
    """A word in the engine's spelling, and its type: there the start of a word is marked, here its inside."""
    if word.startswith("[") and word.endswith("]") and len(word) > 1:
        return word, _SPECIALS.get(word, _NORMAL)
    inside = word.startswith(_INSIDE) and len(word) > len(_INSIDE)
    return (word.removeprefix(_INSIDE) if inside else _WORD_START + word), _NORMAL


def _fields(sizes: Mapping[str, int], words: Sequence[str], name: str, heads: int) -> list[bytes]:
    return bert_fields(
        BertSizes(sizes["context"], sizes["embd"], sizes["ff"], sizes["layers"], heads),
        [_word(word) for word in words],
        {special: words.index(special) for special in _SPECIALS},
        name=name,
        file_type=_MOSTLY_F16,
        pooling=_POOLING_MEAN,
    )
