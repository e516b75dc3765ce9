"""Writes a small random BERT encoder as such models are published: a safetensors file and a WordPiece vocabulary.

Every tensor has numbers of its own, biases and norms too, so that two of them cannot change places unseen.
"""

import json
import random
from array import array
from collections.abc import Iterator
from math import prod, sqrt
from pathlib import Path

HEADS = 4
EMBD, FF, CTX, LAYERS = 64, 96, 128, 2
_SPECIALS = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
WORDS = [*_SPECIALS, *"!'[].,", "the", "cat", "cafe", "sit", "##ting", *_LETTERS, *(f"##{x}" for x in _LETTERS)]


def write_published_bert(folder: Path) -> tuple[Path, Path]:
    """The weights and the vocabulary."""
    rng = random.Random(7)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = bytearray()
    for name, shape in _shapes():
        values = array("f", [_value(rng, name, shape) for _ in range(prod(shape))]).tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    weights, vocabulary = folder / "model.safetensors", folder / "vocab.txt"
    weights.write_bytes(len(text).to_bytes(8, "little") + text + data)
    vocabulary.write_text("".join(f"{word}\n" for word in WORDS), encoding="utf-8")
    return weights, vocabulary


def _value(rng: random.Random, name: str, shape: tuple[int, ...]) -> float:
    if len(shape) == 1:
        return float("LayerNorm.weight" in name) + rng.gauss(0, 0.3)
    gain = 3.0 if ".self." in name else 1.5
    return rng.gauss(0, gain / sqrt(shape[1]))


def _shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "embeddings.word_embeddings.weight", (len(WORDS), EMBD)
    yield "embeddings.position_embeddings.weight", (CTX, EMBD)
    yield "embeddings.token_type_embeddings.weight", (2, EMBD)
    yield from _pair("embeddings.LayerNorm", EMBD)
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            yield from _pair(f"{name}.attention.{part}", EMBD, EMBD)
        yield from _pair(f"{name}.attention.output.LayerNorm", EMBD)
        yield from _pair(f"{name}.intermediate.dense", FF, EMBD)
        yield from _pair(f"{name}.output.dense", EMBD, FF)
        yield from _pair(f"{name}.output.LayerNorm", EMBD)
    yield from _pair("pooler.dense", EMBD, EMBD)


def _pair(name: str, rows: int, *columns: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (rows, *columns)
    yield f"{name}.bias", (rows,)
