"""What vLLM and TGI need, out of a folder of safetensors; and that no folder gets more out of the reader."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from supervisor.runtime.needs_safetensors import FolderError, FolderFacts, estimate_folder, read_folder

CONFIG = {
    "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 512,
    "torch_dtype": "bfloat16",
}  # fmt: skip


def a_folder(path: Path, *sizes: int, **config: Any) -> Path:
    """One file of tensors for each size, in bytes."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps({**CONFIG, **config}))
    for number, size in enumerate(sizes):
        header = json.dumps({"__metadata__": {}, "w": {"dtype": "BF16", "data_offsets": [0, size]}}).encode()
        data = struct.pack("<Q", len(header)) + header + b"\0" * size
        (path / f"model-{number}.safetensors").write_bytes(data)
    return path


def test_weights_are_the_sum_of_the_files_and_kv_follows_from_the_config(tmp_path: Path) -> None:
    facts = read_folder(a_folder(tmp_path / "m", 1_000, 2_000))

    assert facts == FolderFacts(3_000, layers=4, kv_heads=2, head_size=64, element_bytes=2)
    assert facts.kv_bytes_per_token == 2 * 4 * 2 * 64 * 2


def test_a_stated_head_size_goes_before_the_computed_one(tmp_path: Path) -> None:
    assert read_folder(a_folder(tmp_path / "m", 10, head_dim=128)).head_size == 128


def test_each_gpu_takes_its_share_of_the_device_however_small_the_model(tmp_path: Path) -> None:
    facts = read_folder(a_folder(tmp_path / "m", 1 << 22))

    need = estimate_folder(facts, recipe="r", ctx=4_096, slots=2, devices=2, utilization=0.8)

    assert [share.weights_mib for share in need.devices] == [2, 2]
    assert [share.kv_mib for share in need.devices] == [8, 8]
    assert need.devices[0].on(10_000) == 8_000


@pytest.mark.parametrize(
    "config",
    [{"num_hidden_layers": 0}, {"hidden_size": "512"}, {"num_key_value_heads": 2**40}, {"num_attention_heads": True}],
)
def test_figures_that_cannot_be_are_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(FolderError):
        read_folder(a_folder(tmp_path / "m", 10, **config))


def test_a_header_longer_than_its_file_is_refused(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "m")
    (folder / "a.safetensors").write_bytes(struct.pack("<Q", 2**40))

    with pytest.raises(FolderError, match="longer"):
        read_folder(folder)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="no safetensors"):
        read_folder(a_folder(tmp_path / "m"))
