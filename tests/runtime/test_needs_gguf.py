"""What a model needs on each GPU, out of the head of its file and the command line."""

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.llamacpp_memory import read_memory_flags
from supervisor.runtime.gguf import GgufError
from supervisor.runtime.gguf_tensors import ModelFacts, parse_facts
from supervisor.runtime.needs_gguf import BytesNeed, cells_per_slot, estimate_devices, host_bytes, kv_layer_bytes
from supervisor.runtime.needs_reader import shards_of
from tests.runtime.test_gguf import ARRAY, STRING, entry, number, text
from tests.support.tiny_gguf import make_tiny_gguf

BOOL = 7
F16, Q4_0, UNKNOWN_TYPE = 1, 2, 77
WIDTH, HEADS, KV_HEADS, LAYERS, WORDS = 64, 8, 2, 4, 1_000


def a_tensor(name: str, *dimensions: int, kind: int = F16, offset: int = 0) -> bytes:
    sizes = b"".join(struct.pack("<Q", size) for size in dimensions)
    return text(name) + struct.pack("<I", len(dimensions)) + sizes + struct.pack("<IQ", kind, offset)


def a_file(
    *extra: bytes, arch: str = "llama", layers: int = LAYERS, tied: bool = False, kv_heads: int = KV_HEADS
) -> bytes:
    """A head with one tensor of 64 x 64 in each layer."""
    keys = [
        entry("general.architecture", STRING, text(arch)),
        number(f"{arch}.block_count", layers),
        number(f"{arch}.embedding_length", WIDTH),
        number(f"{arch}.context_length", 4_096),
        number(f"{arch}.attention.head_count", HEADS),
        number(f"{arch}.attention.head_count_kv", kv_heads),
        *extra,
    ]
    tensors = [a_tensor("token_embd.weight", WIDTH, WORDS)]
    tensors += [a_tensor(f"blk.{at}.attn_q.weight", WIDTH, WIDTH) for at in range(layers)]
    tensors += [a_tensor("output_norm.weight", WIDTH, kind=0)]
    tensors += [] if tied else [a_tensor("output.weight", WIDTH, WORDS)]
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(keys))
    return head + b"".join(keys) + b"".join(tensors)


def facts(*extra: bytes, **given: object) -> ModelFacts:
    return parse_facts(a_file(*extra, **given), 10**9)  # type: ignore[arg-type]


def need(found: ModelFacts, *argv: str, ratios: tuple[float, ...] = (1.0,)) -> tuple[BytesNeed, ...]:
    return estimate_devices(found, read_memory_flags(argv), ratios)


EMBEDDING = WIDTH * WORDS * 2
LAYER = WIDTH * WIDTH * 2
NORM = WIDTH * 4
ROW = KV_HEADS * (WIDTH // HEADS) * 2
"""Bytes of the keys, or of the values, of one token in one layer."""


def test_all_layers_and_the_output_are_on_the_gpu_and_the_input_embedding_is_not() -> None:
    found = facts()

    assert need(found, "-c", "1024")[0].weights == LAYERS * LAYER + NORM + EMBEDDING
    assert host_bytes(found) == EMBEDDING


def test_a_tied_embedding_is_on_the_gpu_too() -> None:
    assert need(facts(tied=True), "-c", "1024")[0].weights == LAYERS * LAYER + NORM + EMBEDDING


@pytest.mark.orch("ORCH-3003")
@pytest.mark.parametrize(
    ("argv", "cells", "slots"),
    [
        (("-c", "1024"), 1_024, 1),
        (("-c", "1000"), 1_024, 1),
        (("-c", "4096", "-np", "2"), 2_048, 2),
        (("-c", "3000", "-np", "2"), 1_536, 2),
        (("-c", "3000", "-np", "5"), 768, 5),
        ((), 4_096, 1),
    ],
)
def test_kv_follows_from_context_and_slots_padded_as_the_engine_does(
    argv: tuple[str, ...], cells: int, slots: int
) -> None:
    assert cells_per_slot(facts(), read_memory_flags(argv)) == cells
    assert need(facts(), *argv)[0].kv == cells * slots * LAYERS * 2 * ROW


@pytest.mark.parametrize(("word", "row"), [("f16", 64), ("f32", 128), ("q8_0", 34), ("q4_0", 18)])
def test_kv_follows_its_cache_type(word: str, row: int) -> None:
    found = facts(kv_heads=4)  # rows of 32 elements: one block of a quantised type

    assert need(found, "-c", "1024", "-ctk", word)[0].kv == 1_024 * LAYERS * (row + 64)


def test_layers_go_to_devices_in_the_ratios_and_the_output_to_the_last() -> None:
    shares = need(facts(), "-c", "1024", ratios=(0.6, 0.4))

    assert [share.weights for share in shares] == [3 * LAYER, LAYER + NORM + EMBEDDING]
    assert [share.kv for share in shares] == [3 * 1_024 * 2 * ROW, 1_024 * 2 * ROW]
    assert shares[1].buffers > shares[0].buffers  # the logits are with the output layer


def test_three_equal_devices_share_all_of_it() -> None:
    shares = need(facts(layers=7), "-c", "1024", ratios=(1.0, 1.0, 1.0))

    assert sum(share.weights for share in shares) == 7 * LAYER + NORM + EMBEDDING
    assert sum(share.kv for share in shares) == 7 * 1_024 * 2 * ROW


def test_a_sliding_window_bounds_the_cells_of_its_layers() -> None:
    window = number("gemma3.attention.sliding_window", 512)
    found = facts(window, arch="gemma3", layers=6)
    flags = read_memory_flags(("-c", "4096", "-b", "256", "-ub", "256"))

    cells = [kv_layer_bytes(found, flags, layer) // (2 * ROW) for layer in range(6)]

    assert cells == [768, 768, 768, 768, 768, 4_096]
    full = read_memory_flags(("-c", "4096", "--swa-full"))
    assert kv_layer_bytes(found, full, 0) // (2 * ROW) == 4_096


def test_a_window_pattern_of_the_file_goes_before_the_architectures_own() -> None:
    pattern = entry(
        "gemma3.attention.sliding_window_pattern", ARRAY, struct.pack("<IQ4?", BOOL, 4, False, True, False, True)
    )
    found = facts(number("gemma3.attention.sliding_window", 256), pattern, arch="gemma3")
    flags = read_memory_flags(("-c", "4096", "-b", "256", "-ub", "256"))

    assert [kv_layer_bytes(found, flags, layer) // (2 * ROW) for layer in range(4)] == [4_096, 512, 4_096, 512]


def test_latent_attention_keeps_one_row_and_no_values() -> None:
    keys = (
        number("deepseek2.attention.key_length", 576),
        number("deepseek2.attention.value_length", 512),
        number("deepseek2.attention.key_length_mla", 192),
        number("deepseek2.attention.value_length_mla", 128),
    )
    found = facts(*keys, arch="deepseek2", kv_heads=1)

    assert need(found, "-c", "1024")[0].kv == 1_024 * LAYERS * 576 * 2


def test_layers_without_attention_keep_a_state_for_each_slot_whatever_the_context() -> None:
    keys = (
        number("qwen3next.ssm.conv_kernel", 4),
        number("qwen3next.ssm.inner_size", 128),
        number("qwen3next.ssm.state_size", 16),
        number("qwen3next.ssm.group_count", 2),
    )
    found = facts(*keys, arch="qwen3next")
    state = (3 * (128 + 2 * 2 * 16) + 16 * 128) * 4

    small, large = (kv_layer_bytes(found, read_memory_flags(("-c", ctx, "-np", "2")), 0) for ctx in ("1024", "8192"))

    assert small == large == state * 2
    assert kv_layer_bytes(found, read_memory_flags(("-c", "1024", "-np", "2")), 3) == 1_024 * 2 * ROW


def test_a_tensor_of_an_unknown_type_is_sized_by_where_the_next_one_begins() -> None:
    head = struct.pack("<4sIQQ", b"GGUF", 3, 2, 1) + entry("general.architecture", STRING, text("llama"))
    head += a_tensor("blk.0.a", 32, kind=UNKNOWN_TYPE, offset=0) + a_tensor("blk.0.b", 32, kind=Q4_0, offset=640)

    assert [tensor.size_bytes for tensor in parse_facts(head, 10**6).tensors] == [640, 18]


def test_without_flash_attention_the_scores_are_a_buffer_of_their_own() -> None:
    on, off = (need(facts(), "-c", "4096", "-fa", word)[0].buffers for word in ("auto", "off"))

    assert off - on == HEADS * 4_096 * 512 * 4 + 4_096 * 512 * 2  # scores, and a mask of wider numbers


@pytest.mark.parametrize("tensors", [70_000, 2**63])
def test_a_directory_of_too_many_tensors_is_refused(tensors: int) -> None:
    head = struct.pack("<4sIQQ", b"GGUF", 3, tensors, 0)

    with pytest.raises(GgufError, match="tensors"):
        parse_facts(head, 100)


def test_a_tensor_larger_than_any_file_is_refused_and_none_is_larger_than_its_own() -> None:
    head = struct.pack("<4sIQQ", b"GGUF", 3, 1, 1) + entry("general.architecture", STRING, text("llama"))

    with pytest.raises(GgufError, match="larger"):
        parse_facts(head + a_tensor("a", 2**40, 2**40), 100)
    assert parse_facts(head + a_tensor("a", 2**20), 100).tensors[0].size_bytes == 100


@given(st.binary(max_size=300), st.integers(0, 500))
@settings(max_examples=300, deadline=None)
def test_whatever_the_bytes_the_answer_is_facts_or_a_refusal(noise: bytes, cut: int) -> None:
    whole = a_file()
    for head in (noise, whole[:cut] + noise, whole[: len(whole) - cut]):
        try:
            found = parse_facts(head, 10_000)
        except GgufError:
            continue
        estimate_devices(found, read_memory_flags(("-c", "512")), (1.0, 1.0))


def test_a_model_in_several_files_is_read_from_all_of_them(tmp_path: Path) -> None:
    names = [path.name for path in shards_of(tmp_path / "m-00001-of-00003.gguf")]

    assert names == ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"]
    assert shards_of(tmp_path / "m-00002-of-00003.gguf") == [tmp_path / "m-00002-of-00003.gguf"]


def test_a_real_file_of_ours_is_read_to_its_end(tmp_path: Path) -> None:
    path = make_tiny_gguf(tmp_path / "tiny.gguf")
    data = path.read_bytes()

    found = parse_facts(data, len(data))

    assert 0 < sum(tensor.size_bytes for tensor in found.tensors) < len(data)
