"""The conversion of a published BERT: the same bytes each time, and files that are no such model are refused."""

import math
import struct
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.runtime.gguf import parse_shape
from tests.support.tiny_safetensors import CTX, EMBD, HEADS, LAYERS, write_published_bert
from tools.bert_gguf import ConversionError, convert
from tools.gguf_format import halves


@pytest.fixture
def published(tmp_path: Path) -> tuple[Path, Path]:
    """Weights and vocabulary of a small random model."""
    return write_published_bert(tmp_path)


def converted(published: tuple[Path, Path], name: str = "m.gguf") -> Path:
    weights, vocabulary = published
    return convert(weights, vocabulary, weights.with_name(name), name="tiny", heads=HEADS)


def test_the_same_model_gives_the_same_bytes_and_leaves_nothing_else(published: tuple[Path, Path]) -> None:
    first, again = converted(published), converted(published, "again.gguf")

    assert first.read_bytes() == again.read_bytes()
    assert {path.name for path in first.parent.iterdir()} == {
        "m.gguf", "again.gguf", "model.safetensors", "vocab.txt",
    }  # fmt: skip


def test_its_sizes_are_those_of_the_tensors(published: tuple[Path, Path]) -> None:
    shape = parse_shape(converted(published).read_bytes())

    assert (shape.architecture, shape.block_count, shape.embedding_length) == ("bert", LAYERS, EMBD)
    assert (shape.context_length, shape.head_counts, shape.pooling_type) == (CTX, (HEADS,) * LAYERS, 1)


def without(key: str) -> Callable[[bytes], bytes]:
    """The file with that tensor under another name of the same length."""
    return lambda raw: raw.replace(f'"{key}"'.encode(), f'"{"x" * len(key)}"'.encode())


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda raw: raw[:4], id="no room for a header"),
        pytest.param(lambda raw: raw[:100], id="half a header"),
        pytest.param(lambda raw: b"\xff" * 8 + raw[8:], id="a header beyond the file"),
        pytest.param(lambda raw: raw[:-4096], id="values cut off"),
        pytest.param(lambda raw: raw.replace(b"[64, 64]", b"[64, 63]"), id="a shape that is not its values"),
        pytest.param(lambda raw: raw.replace(b'"F32"', b'"F16"'), id="other floats"),
        pytest.param(without("encoder.layer.1.output.dense.bias"), id="a layer without a bias"),
        pytest.param(without("encoder.layer.0.output.dense.weight"), id="no first layer"),
        pytest.param(without("embeddings.word_embeddings.weight"), id="no words"),
        pytest.param(lambda raw: (2).to_bytes(8, "little") + b"[]" + raw[:0], id="a header that is a list"),
        pytest.param(lambda raw: raw[:0], id="nothing"),
    ],
)
def test_weights_that_are_no_such_model_are_refused(
    published: tuple[Path, Path], spoil: Callable[[bytes], bytes]
) -> None:
    weights, _ = published
    weights.write_bytes(spoil(weights.read_bytes()))

    with pytest.raises(ConversionError):
        converted(published)

    assert not weights.with_name("m.gguf").exists()


@pytest.mark.parametrize(
    ("old", "new"), [("##z\n", ""), ("[SEP]\n", "[sep]\n"), ("##z\n", "##y\n")], ids=["short", "no [SEP]", "twice"]
)
def test_a_vocabulary_of_another_model_is_refused(published: tuple[Path, Path], old: str, new: str) -> None:
    _, vocabulary = published
    vocabulary.write_text(vocabulary.read_text().replace(old, new))

    with pytest.raises(ConversionError, match="vocabulary"):
        converted(published)


def test_halves_are_the_nearest_ones_over_more_than_one_portion() -> None:
    values = array("f", [math.sin(at) for at in range(150_000)])

    found = [value for (value,) in struct.iter_unpack("=e", halves(memoryview(values)).tobytes())]

    assert len(found) == len(values)
    assert all(math.isclose(*pair, rel_tol=2**-11, abs_tol=2**-25) for pair in zip(found, values, strict=True))
