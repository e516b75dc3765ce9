"""A worker becomes Ready only where the driver says that it holds memory on its GPU, and on no other."""

from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import Daemon
from tests.support.fake_engine_script import GOOD, Script
from tests.support.fake_nvml import FakeGpu, FakeNvml
from tests.support.pools import a_fake_pool, a_scripted_pool
from tests.support.waiting import wait_until

LEFT, RIGHT = "GPU-aaaaaaaa-0000-4000-8000-000000000001", "GPU-aaaaaaaa-0000-4000-8000-000000000002"


def holding(*held: tuple[int, int]) -> FakeGpu:
    return FakeGpu(LEFT, processes=held, lists_processes=True)


def residency_of(daemon: Daemon) -> dict[str, Any] | None:
    steps: list[dict[str, Any]] = daemon.pool("tiny")["steps"]
    return next((step for step in steps if step["name"] == "residency"), None)


def wait_refused(daemon: Daemon) -> str:
    def look() -> str | None:
        pool = daemon.pool("tiny")
        return pool["cause"] if pool["state"] == "backoff" else None

    return wait_until(look, within_s=30, what="a worker that is refused")


@pytest.mark.orch("ORCH-3018")
def test_a_worker_without_gpu_memory_is_never_ready(make_daemon: MakeDaemon, nvml: FakeNvml) -> None:
    nvml.set(holding())
    daemon = make_daemon(a_fake_pool(), simulate=None, env=nvml.env()).start()

    assert wait_refused(daemon).startswith(f"residency: it holds no memory on GPU {LEFT}")
    assert daemon.submit().json["code"] == "POOL_UNREADY"


@pytest.mark.parametrize(
    ("elsewhere_mib", "cause"),
    [(0, None), (10, f"residency: it holds memory on GPU {RIGHT}, which is not in its mask")],
)
@pytest.mark.orch("ORCH-3018", "ORCH-3011")
def test_memory_on_its_gpu_makes_it_ready_and_memory_on_another_does_not(
    make_daemon: MakeDaemon, nvml: FakeNvml, tmp_path: Path, elsewhere_mib: int, cause: str | None
) -> None:
    script = tmp_path / "engine.json"
    nvml.set(FakeGpu(LEFT), FakeGpu(RIGHT))
    pool = a_scripted_pool(script, Script(never_ready=True))
    daemon = make_daemon(pool, simulate=None, env=nvml.env()).start()
    pid = wait_until(lambda: daemon.pool("tiny")["pid"], within_s=20, what="the engine's process")
    elsewhere = ((pid, elsewhere_mib),) if elsewhere_mib else ()
    nvml.set(holding((pid, 500)), FakeGpu(RIGHT, processes=elsewhere, lists_processes=True))
    script.write_text(GOOD.to_json())

    if cause is None:
        daemon.wait_ready()
        step = residency_of(daemon)
        assert step is not None
        assert step["detail"] == "500 MiB on 1 GPU, none elsewhere"
    else:
        assert wait_refused(daemon) == cause


def test_where_the_driver_lists_no_processes_the_step_passes_says_so_and_is_counted(
    make_daemon: MakeDaemon, nvml: FakeNvml
) -> None:
    nvml.set(FakeGpu(LEFT))
    daemon = make_daemon(a_fake_pool(), simulate=None, env=nvml.env()).start_ready()
    step = residency_of(daemon)

    assert step is not None
    assert (step["state"], step["detail"].partition(":")[0]) == ("passed", "not proved")
    assert sum(daemon.series("steps_unproved_total").values()) == 1
