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

from tools.gguf_format import (
    BOOL,
    F32,
    I32,
    STRING,
    U32,
    Tensor,
    array_field,
    halves,
    number_field,
    string_field,
    text,
    write_gguf,
)

LAYER_NORM_EPSILON = 1e-12
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
    spelled = [_word(word) for word in words]
    return [
        string_field("general.architecture", "bert"),
        string_field("general.name", name),
        number_field("general.file_type", U32, _MOSTLY_F16),
        number_field("bert.context_length", U32, sizes["context"]),
        number_field("bert.embedding_length", U32, sizes["embd"]),
        number_field("bert.feed_forward_length", U32, sizes["ff"]),
        number_field("bert.block_count", U32, sizes["layers"]),
        number_field("bert.attention.head_count", U32, heads),
        number_field("bert.attention.layer_norm_epsilon", F32, LAYER_NORM_EPSILON),
        number_field("bert.attention.causal", BOOL, 0),
        number_field("bert.pooling_type", U32, _POOLING_MEAN),
        string_field("tokenizer.ggml.model", "bert"),
        string_field("tokenizer.ggml.pre", "default"),
        number_field("tokenizer.ggml.token_type_count", U32, 2),
        array_field("tokenizer.ggml.tokens", STRING, [text(word) for word, _ in spelled]),
        array_field("tokenizer.ggml.scores", F32, [struct.pack("<f", 0.0) for _ in spelled]),
        array_field("tokenizer.ggml.token_type", I32, [struct.pack("<i", kind) for _, kind in spelled]),
        number_field("tokenizer.ggml.padding_token_id", U32, words.index("[PAD]")),
        number_field("tokenizer.ggml.unknown_token_id", U32, words.index("[UNK]")),
        number_field("tokenizer.ggml.bos_token_id", U32, words.index("[CLS]")),
        number_field("tokenizer.ggml.eos_token_id", U32, words.index("[SEP]")),
        number_field("tokenizer.ggml.cls_token_id", U32, words.index("[CLS]")),
        number_field("tokenizer.ggml.seperator_token_id", U32, words.index("[SEP]")),
        number_field("tokenizer.ggml.mask_token_id", U32, words.index("[MASK]")),
    ]
