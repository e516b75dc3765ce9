"""The tiny model: the same bytes for the same seed, and the size that keeps tests fast."""

import hashlib
from pathlib import Path

import pytest

from tests.support.tiny_gguf import make_tiny_gguf


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    first = make_tiny_gguf(tmp_path / "a.gguf", seed=3)
    again = make_tiny_gguf(tmp_path / "b.gguf", seed=3)
    other = make_tiny_gguf(tmp_path / "c.gguf", seed=4)

    assert digest(first) == digest(again) != digest(other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gguf", "b.gguf", "c.gguf"]


def test_its_bytes_do_not_depend_on_the_machine(tmp_path: Path) -> None:
    made = make_tiny_gguf(tmp_path / "tiny.gguf")

    assert made.stat().st_size < 1_000_000
    assert digest(made) == "9818759f4a2d7a05f90b53ac7d0281b6dbb7d975ef227b1fed5be3eef5cf3451"


def test_a_shape_that_has_no_heads_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="multiple of 8"):
        make_tiny_gguf(tmp_path / "odd.gguf", embd=63)
