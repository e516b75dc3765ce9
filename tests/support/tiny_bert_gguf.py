"""Writes a small random BERT model in the GGUF format, which a real engine embeds or ranks with in milliseconds.

Its numbers mean nothing, but they follow from the text: another text gives another vector, and another score. The file
is a pure function of its arguments. Standard library only; it knows nothing of the product.
"""

import math
import random
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.bert_fields import BertSizes, bert_fields
from tools.gguf_format import Tensor, write_gguf

HEADS = 4
POOLING_MEAN, POOLING_RANK = 1, 4
SCORE_GAIN = 8.0
"""Spreads the scores of a random ranker, so that two documents never get the same one."""

_ALL_F32 = 0
_NORMAL, _UNKNOWN, _CONTROL = 1, 2, 3
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
    return bert_fields(
        BertSizes(shape.ctx, shape.embd, shape.ff, shape.layers, HEADS),
        _vocabulary(),
        {word: place for place, (word, _) in enumerate(_SPECIALS)},
        name=f"orchctl tiny random {seed}",
        file_type=_ALL_F32,
        pooling=pooling,
    )
