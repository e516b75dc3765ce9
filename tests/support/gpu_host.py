"""A host of two GPUs with a pool on each, over the fake driver and a kernel log that the test writes."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import Daemon
from tests.support.fake_nvml import EVENTS, RECOVERY_FIELD, FakeGpu, FakeNvml
from tests.support.pools import a_fake_pool, a_model
from tests.support.waiting import wait_until

LEFT = "GPU-11111111-2222-3333-4444-555555555555"
RIGHT = "GPU-99999999-2222-3333-4444-555555555555"
MEMORY = "nvmlDeviceGetMemoryInfo"


def a_gpu(uuid: str, bus: str, *, recovery: int | None = 0, **given: Any) -> FakeGpu:
    """A GPU that tells of its faults."""
    fields = {} if recovery is None else {RECOVERY_FIELD: recovery}
    facts = {"events": EVENTS, "bus_id": f"00000000:{bus}:00.0"}
    return FakeGpu(uuid, facts=facts, fields={**fields, **given.pop("fields", {})}, **given)


LEFT_GPU, RIGHT_GPU = a_gpu(LEFT, "3B"), a_gpu(RIGHT, "9B")


class Host:
    """Two GPUs, a pool on each, and a kernel log that the test writes."""

    def __init__(self, daemon: Daemon, nvml: FakeNvml, kernel_log: int) -> None:
        self.daemon, self.nvml, self._kernel_log = daemon, nvml, kernel_log

    def write_kernel(self, text: str, *, facility: int = 0) -> None:
        """One record, as /dev/kmsg gives it."""
        os.write(self._kernel_log, f"{facility << 3 | 4},77,123456,-;{text}\n".encode())

    def pid(self, pool_id: str) -> int:
        pid: int = self.daemon.pool(pool_id)["pid"]
        return pid

    def state(self, pool_id: str) -> str:
        state: str = self.daemon.pool(pool_id)["state"]
        return state

    def wait_restarted(self, pool_id: str, old_pid: int) -> None:
        """Until the worker is Ready again in another process."""

        def is_new() -> bool:
            pool = self.daemon.pool(pool_id)
            return bool(pool["ready"]) and pool["pid"] != old_pid

        wait_until(is_new, within_s=30, what=f"a new worker of {pool_id}")

    def wait_state(self, pool_id: str, state: str, within_s: float = 20) -> dict[str, Any]:
        """Until the worker is in this state; its view then."""

        def look() -> dict[str, Any] | None:
            pool = self.daemon.pool(pool_id)
            return pool if pool["state"] == state else None

        return wait_until(look, within_s=within_s, what=f"{pool_id} in {state}")

    def wait_fault(self, count: int = 1, **fields: object) -> dict[str, Any]:
        """Until the log has so many lines about a fault with these fields; the last of them."""

        def look() -> dict[str, Any] | None:
            lines = [line for line in self.daemon.log_lines() if line["event"] == "GPU fault"]
            found = [line for line in lines if all(line.get(name) == value for name, value in fields.items())]
            return found[-1] if len(found) >= count else None

        return wait_until(look, what=f"a line about {fields}")

    def count(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(value for key, value in self.daemon.series(name).items() if all(each in key for each in wanted))

    def wait_count(self, name: str, **labels: str) -> None:
        """Until it was counted once."""
        wait_until(lambda: self.count(name, **labels) == 1, what=f"{name} of {labels}")

    def device(self, uuid: str) -> dict[str, Any]:
        """One GPU of the status."""
        found: dict[str, Any] = next(each for each in self.daemon.status()["devices"] if each["uuid"] == uuid)
        return found


@pytest.fixture
def kernel_log(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A pipe in place of /dev/kmsg: its path, and where the test writes."""
    path = tmp_path / "kmsg"
    os.mkfifo(path)
    write_end = os.open(path, os.O_RDWR)
    yield path, write_end
    os.close(write_end)


@pytest.fixture
def host(make_daemon: MakeDaemon, nvml: FakeNvml, kernel_log: tuple[Path, int], tmp_path: Path) -> Host:
    """Both pools Ready."""
    nvml.set(LEFT_GPU, RIGHT_GPU)
    path, write_end = kernel_log
    env = {**nvml.env(), "ORCHCTL_KERNEL_LOG": str(path)}
    pools = (a_fake_pool("left", devices=[0], model="left"), a_fake_pool("right", devices=[1], model="right"))
    models = {"models": {**a_model(tmp_path, "left"), **a_model(tmp_path, "right", seed=2)}}
    daemon = make_daemon(*pools, settings=models, simulate=None, env=env).start_ready()
    return Host(daemon, nvml, write_end)
