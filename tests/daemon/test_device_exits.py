"""A worker that its GPU ended: the devices are looked at before it is started again (ORCH-3038).

The engine is a shell that waits, says the words of llama.cpp and ends: no engine can be made to lose its GPU on demand.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import Daemon
from tests.support.fake_nvml import FakeGpu, FakeNvml
from tests.support.pools import a_pool
from tests.support.waiting import wait_until

GPU = FakeGpu("GPU-11111111-2222-3333-4444-555555555555")
LOST = {f"nvmlDeviceGetMemoryInfo@{GPU.uuid}": 15}
ENDS = [
    ("CUDA error: an illegal memory access was encountered", "cuda_error"),
    ("ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected", "no_gpu"),
    ("CUDA error: out of memory", "oom_vram"),
]
WAY = {"worker stopping", "worker backoff", "worker no-device"}
"""From the end of an engine to a GPU that is gone, where nothing is tried in between."""


@pytest.fixture
def fuse(tmp_path: Path) -> Callable[[], None]:
    """Makes the engine end, once it has begun to wait."""
    path = tmp_path / "fuse"
    os.mkfifo(path)

    def light() -> None:
        path.write_text("end\n")

    return light


def a_doomed_pool(folder: Path, words: str) -> dict[str, Any]:
    """Its engine waits for the fuse, then ends with these words."""
    script = f'read word < "{folder / "fuse"}"; echo "{words}" >&2; kill -ABRT $$'
    return a_pool(launch={"command": ["sh", "-c", script, "engine", "{port}"]})


def wait_line(daemon: Daemon, event: str) -> int:
    """Until the log has such a line; its number."""

    def look() -> int | None:
        names = [line["event"] for line in daemon.log_lines()]
        return names.index(event) + 1 if event in names else None

    return wait_until(look, within_s=20, what=event) - 1


def wait_next_look(daemon: Daemon, nvml: FakeNvml) -> None:
    """Until a look at the devices was taken, so that the next regular one is two seconds off."""
    nvml.set(FakeGpu(GPU.uuid, vram_used_mib=64))
    wait_until(lambda: daemon.status()["devices"][0]["vram_used_mib"] == 64, what="a look")


@pytest.mark.parametrize(("words", "kind"), ENDS, ids=[kind for _, kind in ENDS])
@pytest.mark.orch("ORCH-3038")
def test_after_an_end_by_its_gpu_the_devices_are_looked_at_before_the_next_start(
    make_daemon: MakeDaemon, nvml: FakeNvml, tmp_path: Path, fuse: Callable[[], None], words: str, kind: str
) -> None:
    nvml.set(GPU)
    daemon = make_daemon(a_doomed_pool(tmp_path, words), simulate=None, env=nvml.env()).start()
    wait_line(daemon, "worker loading")
    wait_next_look(daemon, nvml)
    nvml.set(GPU, returns=LOST)
    fuse()
    unplaced = wait_line(daemon, "worker no-device")

    lines = daemon.log_lines()[wait_line(daemon, "engine exited") : unplaced + 1]
    assert lines[0]["kind"] == kind
    assert {line["event"] for line in lines if line["event"].startswith("worker ")} <= WAY, json.dumps(lines)
    assert "fell off the bus" in daemon.pool("tiny")["cause"]
