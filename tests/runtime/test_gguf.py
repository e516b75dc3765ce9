"""The header of a model file: what it says of the model's shape, and that no bytes whatever get more out of it."""

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.runtime.gguf import GgufError, ModelShape, parse_shape
from supervisor.runtime.model_heads import HEAD_BYTES, ModelHeads
from tests.support.tiny_gguf import make_tiny_gguf

U32, STRING, ARRAY, BOOL, I32 = 4, 8, 9, 7, 5


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def number(key: str, value: int) -> bytes:
    return entry(key, U32, struct.pack("<I", value))


def words(key: str, count: int) -> bytes:
    return entry(key, ARRAY, struct.pack("<IQ", STRING, count) + b"".join(text(f"w{each}") for each in range(count)))


def a_head(*entries: bytes, keys: int | None = None, version: int = 3, magic: bytes = b"GGUF") -> bytes:
    count = len(entries) if keys is None else keys
    return magic + struct.pack("<IQQ", version, 7, count) + b"".join(entries)


ARCH = entry("general.architecture", STRING, text("llama"))
BLOCKS, WIDTH = number("llama.block_count", 4), number("llama.embedding_length", 64)
HEADS, KV_HEADS = number("llama.attention.head_count", 8), number("llama.attention.head_count_kv", 2)
SHAPE = (ARCH, BLOCKS, WIDTH, HEADS, KV_HEADS)


def test_lengths_of_keys_and_values_follow_from_the_heads() -> None:
    shape = parse_shape(a_head(*SHAPE, number("llama.context_length", 2048)))

    assert (shape.architecture, shape.block_count, shape.context_length) == ("llama", 4, 2048)
    assert (shape.head_counts, shape.kv_head_counts) == ((8,) * 4, (2,) * 4)
    assert (shape.key_length, shape.value_length, shape.pooling_type) == (8, 8, None)
    assert shape.kv_bytes_per_token() == 4 * 2 * (8 + 8) * 2


def test_stated_lengths_and_heads_of_each_block_count() -> None:
    heads = entry("llama.attention.head_count_kv", ARRAY, struct.pack("<IQ4i", I32, 4, 2, 0, 2, 1))
    lengths = number("llama.attention.key_length", 16), number("llama.attention.value_length", 4)

    shape = parse_shape(a_head(ARCH, BLOCKS, WIDTH, HEADS, heads, *lengths))

    assert shape.kv_bytes_per_token() == (2 + 0 + 2 + 1) * (16 + 4) * 2
    assert shape.kv_bytes_per_token(key_bytes=1, value_bytes=1) == (2 + 0 + 2 + 1) * (16 + 4)


def test_without_heads_of_its_own_the_kv_has_all_of_them() -> None:
    assert parse_shape(a_head(ARCH, BLOCKS, WIDTH, HEADS)).kv_bytes_per_token() == 4 * 8 * (8 + 8) * 2


def test_an_encoder_has_no_kv_cache_and_says_how_it_pools() -> None:
    causal = entry("llama.attention.causal", BOOL, b"\0")

    shape = parse_shape(a_head(*SHAPE, causal, number("llama.pooling_type", 1)))

    assert (shape.pooling_type, shape.is_causal, shape.kv_bytes_per_token()) == (1, False, 0)


def test_a_model_without_attention_has_no_figure() -> None:
    assert parse_shape(a_head(ARCH, BLOCKS, WIDTH)).kv_bytes_per_token() == 0


def test_the_tokenizer_is_not_read_where_the_shape_is_known_and_passed_over_where_not() -> None:
    cut = a_head(*SHAPE, words("tokenizer.ggml.tokens", 3), keys=9)
    before = a_head(ARCH, words("tokenizer.ggml.tokens", 3), BLOCKS, WIDTH, HEADS, KV_HEADS)

    assert parse_shape(cut) == parse_shape(before) == parse_shape(a_head(*SHAPE))


BAD: list[tuple[str, bytes]] = [
    ("empty", b""),
    ("another magic", a_head(*SHAPE, magic=b"GGML")),
    ("version 1", a_head(*SHAPE, version=1)),
    ("big-endian", a_head(*SHAPE, version=0x0300_0000)),
    ("too many keys", a_head(*SHAPE, keys=4_097)),
    ("keys without end", a_head(*SHAPE, keys=2**64 - 1)),
    ("fewer keys than said", a_head(*SHAPE, keys=6)),
    ("no architecture", a_head(BLOCKS, WIDTH)),
    ("architecture a number", a_head(number("general.architecture", 1))),
    ("architecture without end", a_head(entry("general.architecture", STRING, text("x" * 65)))),
    ("key without end", a_head(struct.pack("<Q", 2**63))),
    ("key not UTF-8", a_head(struct.pack("<Q", 2) + b"\xff\xfe" + struct.pack("<II", U32, 1))),
    ("type unknown", a_head(entry("a", 13, b"\0" * 8))),
    ("array of arrays", a_head(entry("a", ARRAY, struct.pack("<IQ", ARRAY, 1) + struct.pack("<IQ", U32, 0)))),
    ("array without end", a_head(entry("a", ARRAY, struct.pack("<IQ", U32, 2**61)))),
    ("strings without end", a_head(entry("a", ARRAY, struct.pack("<IQ", STRING, 2**63)))),
    ("blocks without end", a_head(ARCH, number("llama.block_count", 2**32 - 1), WIDTH, HEADS)),
    ("width without end", a_head(ARCH, BLOCKS, number("llama.embedding_length", 2**32 - 1), HEADS)),
    ("blocks a truth", a_head(ARCH, entry("llama.block_count", BOOL, b"\1"), WIDTH, HEADS)),
    ("heads negative", a_head(ARCH, BLOCKS, entry("llama.attention.head_count", I32, struct.pack("<i", -1)))),
    (
        "heads of three blocks of four",
        a_head(ARCH, BLOCKS, WIDTH, entry("llama.attention.head_count", ARRAY, struct.pack("<IQ3I", U32, 3, 1, 1, 1))),
    ),
]  # fmt: skip


@pytest.mark.parametrize("head", [head for _, head in BAD], ids=[name for name, _ in BAD])
def test_what_cannot_be_believed_is_refused(head: bytes) -> None:
    with pytest.raises(GgufError) as refused:
        parse_shape(head)

    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 100


def outcome(head: bytes) -> Any:
    """A shape with sane figures, or the one error; anything else is a failure of the parser."""
    try:
        shape = parse_shape(head)
    except GgufError as error:
        return error
    assert isinstance(shape, ModelShape)
    assert 0 <= shape.kv_bytes_per_token() <= 4_096 * 2**24 * 2**26
    return shape


WHOLE = a_head(*SHAPE, entry("llama.rope.scale", 6, struct.pack("<f", 1.5)), words("tokenizer.ggml.tokens", 5))


@given(cut=st.integers(0, len(WHOLE)))
def test_a_cut_header_is_an_error_until_the_shape_is_complete(cut: int) -> None:
    found = outcome(WHOLE[:cut])

    assert isinstance(found, GgufError) or found == parse_shape(WHOLE)


@settings(max_examples=500)
@given(flips=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=8))
def test_flipped_bytes_do_no_harm(flips: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE)
    for at, value in flips:
        data[at] = value

    outcome(bytes(data))


@settings(max_examples=500)
@given(data=st.binary(max_size=400), keys=st.integers(0, 4_096))
def test_any_bytes_after_a_good_beginning_do_no_harm(data: bytes, keys: int) -> None:
    outcome(a_head(ARCH, data, keys=keys))


@given(key=st.text(max_size=30), kind=st.integers(0, 14), count=st.integers(0, 2**64 - 1), data=st.binary(max_size=64))
def test_huge_counts_do_no_harm(key: str, kind: int, count: int, data: bytes) -> None:
    outcome(a_head(ARCH, entry(key, ARRAY, struct.pack("<IQ", kind, count) + data)))


def test_a_file_of_our_own_making(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    make_tiny_gguf(path, embd=64, layers=2)
    heads = ModelHeads()

    shape = heads.shape_of(path)

    assert shape is not None
    assert (shape.architecture, shape.block_count, shape.embedding_length) == ("llama", 2, 64)
    assert heads.kv_bytes_per_token(path) == shape.kv_bytes_per_token() > 0


def test_a_shape_behind_a_long_tokenizer_is_found_in_a_second_read(tmp_path: Path) -> None:
    path = tmp_path / "late.gguf"
    path.write_bytes(a_head(ARCH, words("tokenizer.ggml.tokens", 100_000), BLOCKS, WIDTH, HEADS, KV_HEADS))

    assert path.stat().st_size > HEAD_BYTES
    assert ModelHeads().shape_of(path) == parse_shape(a_head(*SHAPE))


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "text"])
def test_what_is_no_model_has_no_shape(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.gguf"
    match kind:
        case "folder":
            path.mkdir()
        case "empty":
            path.touch()
        case "text":
            path.write_text("GGUF, or so it says")

    assert ModelHeads().shape_of(path) is None
    assert ModelHeads().kv_bytes_per_token(path) == 0
