"""One-shot workloads in engine-neutral words: what is asked, and what comes back whole, without tokens.

An embedding turns each text into a vector; a rerank scores each document against a query. Decides nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

OUTPUTS_BYTES_MAX = 16 * 1024 * 1024
"""Bound of an engine's whole one-shot answer, in bytes: 256 vectors of 3,000 numbers at full precision."""


@dataclass(frozen=True, slots=True)
class EmbeddingCall:
    """One vector of length 1 (Euclidean) for each of `inputs`, which are not empty."""

    inputs: Sequence[str]


@dataclass(frozen=True, slots=True)
class RerankCall:
    """One score for each of `documents`, of which there is at least one; higher fits the query better."""

    query: str
    documents: Sequence[str]


OneShotCall = EmbeddingCall | RerankCall


class Embedding(msgspec.Struct, frozen=True, gc=False):
    """The vector of the input at `index`, counted from 0. All numbers are finite."""

    index: int
    embedding: list[float]


class Score(msgspec.Struct, frozen=True, gc=False):
    """The score of the document at `index`, counted from 0. Finite, of no unit; only the order means something."""

    index: int
    score: float


Outputs = tuple[Embedding, ...] | tuple[Score, ...]
"""The whole result, in the order of the inputs or documents."""


def asked_for(call: OneShotCall) -> int:
    """How many outputs a call has."""
    return len(call.inputs) if isinstance(call, EmbeddingCall) else len(call.documents)
