"""A BERT encoder computed from its published files, without any engine: what an engine's vectors are measured against.

WordPiece over the vocabulary, the layers in double precision, the mean over all tokens, length one. Written from the
model's description; shares nothing with the conversion for the engine, nor with the engine. Special words, such as
[SEP], have no meaning inside a text here.
"""

import json
import math
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

EPSILON = 1e-12


class Bert:
    """The encoder of one safetensors file with its vocabulary."""

    def __init__(self, weights: Path, vocabulary: Path, *, heads: int) -> None:
        self._heads = heads
        self._ids = {word: at for at, word in enumerate(vocabulary.read_text(encoding="utf-8").split("\n")) if word}
        raw = weights.read_bytes()
        start = 8 + int.from_bytes(raw[:8], "little")
        self._entries = {key: entry for key, entry in json.loads(raw[8:start]).items() if key != "__metadata__"}
        self._data = raw[start:]

    def embed(self, text: str) -> list[float]:
        """The vector of a text, of length one."""
        state = self._start(self.tokens(text))
        layers = sum(key.endswith("attention.self.query.weight") for key in self._entries)
        for layer in range(layers):
            state = self._layer(f"encoder.layer.{layer}", state)
        mean = state.mean(axis=0)
        return [float(value) for value in mean / np.linalg.norm(mean)]

    def tokens(self, text: str) -> list[int]:
        """Lower case without accents, cut at spaces and punctuation, then the longest known pieces from the left."""
        pieces = [piece for word in _words(text) for piece in self._pieces(word)]
        return [self._ids[piece] for piece in ("[CLS]", *pieces, "[SEP]")]

    def _pieces(self, word: str) -> list[str]:
        found: list[str] = []
        at = 0
        while at < len(word):
            prefix = "##" if at else ""
            ends = (end for end in range(len(word), at, -1) if prefix + word[at:end] in self._ids)
            if (end := next(ends, None)) is None:
                return ["[UNK]"]
            found.append(prefix + word[at:end])
            at = end
        return found

    def _start(self, tokens: list[int]) -> Matrix:
        words, positions, kinds = (
            self._tensor(f"embeddings.{name}_embeddings.weight") for name in ("word", "position", "token_type")
        )
        return self._norm("embeddings.LayerNorm", words[tokens] + positions[: len(tokens)] + kinds[0])

    def _layer(self, layer: str, state: Matrix) -> Matrix:
        mixed = self._linear(f"{layer}.attention.output.dense", self._attention(layer, state))
        state = self._norm(f"{layer}.attention.output.LayerNorm", state + mixed)
        inner = _gelu(self._linear(f"{layer}.intermediate.dense", state))
        return self._norm(f"{layer}.output.LayerNorm", state + self._linear(f"{layer}.output.dense", inner))

    def _attention(self, layer: str, state: Matrix) -> Matrix:
        query, key, value = (
            np.split(self._linear(f"{layer}.attention.self.{name}", state), self._heads, axis=1)
            for name in ("query", "key", "value")
        )
        heads = []
        for q, k, v in zip(query, key, value, strict=True):
            scores = np.exp(q @ k.T / math.sqrt(q.shape[1]))
            heads.append(scores / scores.sum(axis=1, keepdims=True) @ v)
        return np.concatenate(heads, axis=1)

    def _linear(self, name: str, state: Matrix) -> Matrix:
        product: Matrix = state @ self._tensor(f"{name}.weight").T
        return product + self._tensor(f"{name}.bias")

    def _norm(self, name: str, state: Matrix) -> Matrix:
        centred = state - state.mean(axis=1, keepdims=True)
        scaled: Matrix = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPSILON)
        return scaled * self._tensor(f"{name}.weight") + self._tensor(f"{name}.bias")

    def _tensor(self, name: str) -> Matrix:
        entry = self._entries[name]
        start, end = entry["data_offsets"]
        return np.frombuffer(self._data[start:end], dtype="<f4").astype(np.float64).reshape(entry["shape"])


def _words(text: str) -> Iterator[str]:
    plain = "".join(mark for mark in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(mark) != "Mn")
    apart = (f" {mark} " if _stands_alone(mark) else mark for mark in plain)
    yield from "".join(apart).split()


def _stands_alone(mark: str) -> bool:
    """Punctuation, to which BERT counts every ASCII character that is no letter, digit or space; and CJK ideographs."""
    symbol = mark.isascii() and not mark.isalnum() and not mark.isspace()
    return symbol or unicodedata.category(mark).startswith("P") or "\u4e00" <= mark <= "\u9fff"


def _gelu(state: Matrix) -> Matrix:
    curve = [value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in state.ravel().tolist()]
    return np.array(curve).reshape(state.shape)
