"""Writes a small random llama model in the GGUF format (version 3), so that a real engine can be tested in
milliseconds.

The file is a pure function of its arguments: the same seed gives the same bytes on every machine and Python version.
The model talks nonsense words, quickly (thousands of tokens a second), and never ends by itself: `max_tokens` or a
stop word ends it. Standard library only; it knows nothing of the product.
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
WORDS_PER_SIDE = 15
EMBEDDING_GAIN = 12.0
"""Lets the last token outweigh the layers' noise, so that greedy text walks on instead of repeating a word."""
OUTPUT_GAIN = 0.05
"""Leaves the odds of the next word near one in three at temperature 1, so that sampling depends on the seed."""

_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6

_FOREIGN = ("é", "ß", "ñ", "日", "本", "語", "🙂", "🚀", "\u2028", "…")
"""Text of 2, 3 and 4 bytes of UTF-8, and a line separator: what a stream must carry unharmed."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the model. `ctx` is the trained context in tokens; `embd` must divide by 2 * HEADS."""

    layers: int
    embd: int
    ff: int
    ctx: int


def make_tiny_gguf(
    path: Path, *, seed: int = 1, layers: int = 2, embd: int = 64, ff: int = 128, ctx: int = 4096
) -> Path:
    """Write the model to `path` and return it. The default is 0.6 MB; embd 512, layers 8, ff 1536 is a slow stream."""
    if embd % (2 * HEADS):
        msg = f"embd must be a multiple of {2 * HEADS}"
        raise ValueError(msg)
    shape = Shape(layers=layers, embd=embd, ff=ff, ctx=ctx)
    vocab = _vocabulary()
    return write_gguf(path, _fields(shape, vocab, seed), list(_tensors(shape, vocab, random.Random(seed))))


_Token = tuple[str, float, int]


def _vocabulary() -> list[_Token]:
    """(text, score, type): specials, the 256 bytes, printable characters, words, and text beyond ASCII."""
    tokens: list[_Token] = [("<unk>", 0.0, _UNKNOWN), ("<s>", 0.0, _CONTROL), ("</s>", 0.0, _CONTROL)]
    tokens += [(f"<0x{byte:02X}>", 0.0, _BYTE) for byte in range(256)]
    tokens += [(chr(code), -1000.0, _NORMAL) for code in range(0x21, 0x7F)]
    tokens += [("▁", -1000.0, _NORMAL), *((text, -1000.0, _NORMAL) for text in _FOREIGN)]
    return tokens + [(word, -float(rank), _NORMAL) for rank, word in enumerate(_words())]


def _words() -> list[str]:
    """Invented words of two syllables, each with the space before it that a sentence needs."""
    syllables = [consonant + vowel for consonant in "bdfglmnprstv" for vowel in "aeio"]
    return [f"▁{first}{second}" for first in syllables[:WORDS_PER_SIDE] for second in syllables[-WORDS_PER_SIDE:]]


def _tensors(shape: Shape, vocab: list[_Token], rng: random.Random) -> Iterator[Tensor]:
    """All weights. Feature 0 is kept at a constant, so that the output layer can forbid tokens through it."""
    embd, kv, width = shape.embd, shape.embd, len(vocab)
    embedding = _rows(rng, width, embd, gain=EMBEDDING_GAIN, lead=1.0)
    yield "token_embd.weight", (embd, width), embedding
    for layer in range(shape.layers):
        yield f"blk.{layer}.attn_norm.weight", (embd,), array("f", [1.0] * embd)
        yield f"blk.{layer}.attn_q.weight", (embd, embd), _rows(rng, embd, embd)
        yield f"blk.{layer}.attn_k.weight", (embd, kv), _rows(rng, kv, embd)
        yield f"blk.{layer}.attn_v.weight", (embd, kv), _rows(rng, kv, embd)
        yield f"blk.{layer}.attn_output.weight", (embd, embd), _silenced(_rows(rng, embd, embd), embd)
        yield f"blk.{layer}.ffn_norm.weight", (embd,), array("f", [1.0] * embd)
        yield f"blk.{layer}.ffn_gate.weight", (embd, shape.ff), _rows(rng, shape.ff, embd)
        yield f"blk.{layer}.ffn_up.weight", (embd, shape.ff), _rows(rng, shape.ff, embd)
        yield f"blk.{layer}.ffn_down.weight", (shape.ff, embd), _silenced(_rows(rng, embd, shape.ff), shape.ff)
    yield "output_norm.weight", (embd,), array("f", [1.0] * embd)
    yield "output.weight", (embd, width), _output(rng, vocab, embd, embedding)


def _rows(
    rng: random.Random, rows: int, columns: int, *, gain: float = 1.0, lead: float | None = None
) -> "array[float]":
    """Uniform weights of the usual spread times `gain`; `lead` replaces the first value of each row."""
    spread = gain * math.sqrt(12.0 / columns)
    values = array("f", [(rng.random() - 0.5) * spread for _ in range(rows * columns)])
    if lead is not None:
        for row in range(rows):
            values[row * columns] = lead
    return values


def _silenced(values: "array[float]", columns: int) -> "array[float]":
    """The same weights without any effect on feature 0."""
    values[:columns] = array("f", [0.0] * columns)
    return values


def _output(rng: random.Random, vocab: list[_Token], embd: int, embedding: "array[float]") -> "array[float]":
    """Output weights: each word points to the next of one shuffled round, so that greedy text is not one word for ever.

    Specials, bytes and single ASCII characters are out of reach through the constant feature.
    """
    values = array("f", [0.0] * (len(vocab) * embd))
    for at in range(len(vocab)):
        values[at * embd] = -100.0
    spoken = [at for at, (text, _, kind) in enumerate(vocab) if kind == _NORMAL and _is_speech(text)]
    rng.shuffle(spoken)
    for at, following in zip(spoken, spoken[1:] + spoken[:1], strict=True):
        row = embedding[at * embd : (at + 1) * embd]
        values[following * embd : (following + 1) * embd] = array("f", [weight * OUTPUT_GAIN for weight in row])
        values[following * embd] = 0.0
    return values


def _is_speech(text: str) -> bool:
    return len(text) > 1 or text in _FOREIGN


def _fields(shape: Shape, vocab: list[_Token], seed: int) -> list[bytes]:
    return [
        string_field("general.architecture", "llama"),
        string_field("general.name", f"orchctl tiny random {seed}"),
        number_field("general.file_type", U32, 0),
        number_field("llama.context_length", U32, shape.ctx),
        number_field("llama.embedding_length", U32, shape.embd),
        number_field("llama.block_count", U32, shape.layers),
        number_field("llama.feed_forward_length", U32, shape.ff),
        number_field("llama.attention.head_count", U32, HEADS),
        number_field("llama.attention.head_count_kv", U32, HEADS),
        number_field("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        number_field("llama.rope.dimension_count", U32, shape.embd // HEADS),
        number_field("llama.vocab_size", U32, len(vocab)),
        string_field("tokenizer.ggml.model", "llama"),
        array_field("tokenizer.ggml.tokens", STRING, [text(word) for word, _, _ in vocab]),
        array_field("tokenizer.ggml.scores", F32, [struct.pack("<f", score) for _, score, _ in vocab]),
        array_field("tokenizer.ggml.token_type", I32, [struct.pack("<i", kind) for _, _, kind in vocab]),
        number_field("tokenizer.ggml.unknown_token_id", U32, 0),
        number_field("tokenizer.ggml.bos_token_id", U32, 1),
        number_field("tokenizer.ggml.eos_token_id", U32, 2),
        number_field("tokenizer.ggml.add_bos_token", BOOL, 1),
    ]
