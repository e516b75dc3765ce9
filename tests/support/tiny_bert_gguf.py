"""Writes a small random BERT model in the GGUF format, which a real engine embeds or ranks with in milliseconds.

Its numbers mean nothing, but they follow from the text: another text gives another vector, and another score. The file
is a pure function of its arguments. Standard library only; it knows nothing of the product.
"""

import math
import random
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.gguf_format import (
    BOOL,
    F32,
    I32,
    STRING,
    U32,
    Tensor,
    array_field,
    number_field,
    string_field,
    text,
    write_gguf,
)

HEADS = 4
POOLING_MEAN, POOLING_RANK = 1, 4
SCORE_GAIN = 8.0
"""Spreads the scores of a random ranker, so that two documents never get the same one."""

_NORMAL, _UNKNOWN, _CONTROL = 1, 2, 3
_PAD, _UNK, _CLS, _SEP, _MASK = range(5)
_SPECIALS = (("[PAD]", _CONTROL), ("[UNK]", _UNKNOWN), ("[CLS]", _CONTROL), ("[SEP]", _CONTROL), ("[MASK]", _CONTROL))
_WORD_START = "▁"


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the model. `ctx` is the longest input in tokens; `embd` is the length of a vector."""

    layers: int
    embd: int
    ff: int
    ctx: int


def make_tiny_embedder(
    path: Path, *, seed: int = 1, layers: int = 2, embd: int = 64, ff: int = 128, ctx: int = 2048
) -> Path:
    """A model that gives the mean vector of a text; embd 512, layers 8, ff 1536 is a slow one."""
    shape = Shape(layers, embd, ff, ctx)
    return _write(path, shape, seed, POOLING_MEAN, list(_tensors(shape, random.Random(seed))))


def make_tiny_ranker(
    path: Path, *, seed: int = 1, layers: int = 2, embd: int = 64, ff: int = 128, ctx: int = 2048
) -> Path:
    """A model that gives the score of a query and a document."""
    shape, rng = Shape(layers, embd, ff, ctx), random.Random(seed)
    return _write(path, shape, seed, POOLING_RANK, [*_tensors(shape, rng), *_classifier(shape, rng)])


def _write(path: Path, shape: Shape, seed: int, pooling: int, tensors: list[Tensor]) -> Path:
    if shape.embd % HEADS:
        msg = f"embd must be a multiple of {HEADS}"
        raise ValueError(msg)
    return write_gguf(path, _fields(shape, seed, pooling), tensors)


def _vocabulary() -> list[tuple[str, int]]:
    """(text, type): specials, then each printable ASCII character, at the start of a word and inside one."""
    characters = [chr(code) for code in range(0x21, 0x7F)]
    starts = [(_WORD_START + character, _NORMAL) for character in characters]
    return [*_SPECIALS, *starts, *((character, _NORMAL) for character in characters)]


def _tensors(shape: Shape, rng: random.Random) -> Iterator[Tensor]:
    embd, ff, width = shape.embd, shape.ff, len(_vocabulary())
    yield "token_embd.weight", (embd, width), _rows(rng, width, embd)
    yield "token_types.weight", (embd, 2), _rows(rng, 2, embd)
    yield "position_embd.weight", (embd, shape.ctx), _rows(rng, shape.ctx, embd)
    yield from _norm("token_embd_norm", embd)
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield from _linear(rng, f"{block}.{name}", embd, embd)
        yield from _norm(f"{block}.attn_output_norm", embd)
        yield from _linear(rng, f"{block}.ffn_up", embd, ff)
        yield from _linear(rng, f"{block}.ffn_down", ff, embd)
        yield from _norm(f"{block}.layer_output_norm", embd)


def _classifier(shape: Shape, rng: random.Random) -> Iterator[Tensor]:
    yield from _linear(rng, "cls", shape.embd, shape.embd)
    yield "cls.output.weight", (shape.embd, 1), _rows(rng, 1, shape.embd, gain=SCORE_GAIN)
    yield "cls.output.bias", (1,), array("f", [0.0])


def _linear(rng: random.Random, name: str, columns: int, rows: int) -> Iterator[Tensor]:
    yield f"{name}.weight", (columns, rows), _rows(rng, rows, columns)
    yield f"{name}.bias", (rows,), array("f", [0.0] * rows)


def _norm(name: str, embd: int) -> Iterator[Tensor]:
    yield f"{name}.weight", (embd,), array("f", [1.0] * embd)
    yield f"{name}.bias", (embd,), array("f", [0.0] * embd)


def _rows(rng: random.Random, rows: int, columns: int, *, gain: float = 1.0) -> "array[float]":
    """Uniform weights of the usual spread times `gain`."""
    spread = gain * math.sqrt(12.0 / columns)
    return array("f", [(rng.random() - 0.5) * spread for _ in range(rows * columns)])


def _fields(shape: Shape, seed: int, pooling: int) -> list[bytes]:
    vocab = _vocabulary()
    return [
        string_field("general.architecture", "bert"),
        string_field("general.name", f"orchctl tiny random {seed}"),
        number_field("general.file_type", U32, 0),
        number_field("bert.context_length", U32, shape.ctx),
        number_field("bert.embedding_length", U32, shape.embd),
        number_field("bert.feed_forward_length", U32, shape.ff),
        number_field("bert.block_count", U32, shape.layers),
        number_field("bert.attention.head_count", U32, HEADS),
        number_field("bert.attention.layer_norm_epsilon", F32, 1e-12),
        number_field("bert.attention.causal", BOOL, 0),
        number_field("bert.pooling_type", U32, pooling),
        string_field("tokenizer.ggml.model", "bert"),
        string_field("tokenizer.ggml.pre", "default"),
        number_field("tokenizer.ggml.token_type_count", U32, 2),
        array_field("tokenizer.ggml.tokens", STRING, [text(word) for word, _ in vocab]),
        array_field("tokenizer.ggml.scores", F32, [struct.pack("<f", 0.0) for _ in vocab]),
        array_field("tokenizer.ggml.token_type", I32, [struct.pack("<i", kind) for _, kind in vocab]),
        number_field("tokenizer.ggml.padding_token_id", U32, _PAD),
        number_field("tokenizer.ggml.unknown_token_id", U32, _UNK),
        number_field("tokenizer.ggml.bos_token_id", U32, _CLS),
        number_field("tokenizer.ggml.eos_token_id", U32, _SEP),
        number_field("tokenizer.ggml.cls_token_id", U32, _CLS),
        number_field("tokenizer.ggml.seperator_token_id", U32, _SEP),
        number_field("tokenizer.ggml.mask_token_id", U32, _MASK),
    ]
