"""A driver that lies, hangs and denies: the daemon answers, and the pool of the other GPU serves as if nothing were.

The watch over every test of a fault asks for the daemon's health all the while: each answer within a second.
"""

import time
from pathlib import Path

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.fake_nvml import SONAME, FakeNvml, compile_nvml
from tests.support.gpu_host import LEFT, LEFT_GPU, MEMORY, RIGHT, RIGHT_GPU, Host, host, kernel_log
from tests.support.pools import a_fake_pool, a_model
from tests.support.waiting import wait_until

__all__ = ["host", "kernel_log"]

INIT = "nvmlInitWithFlags"
HANDLE = "nvmlDeviceGetHandleByIndex_v2"
TEMPERATURE = "nvmlDeviceGetTemperature"
WAIT = "nvmlEventSetWait_v2"
NOT_SUPPORTED, NO_PERMISSION, GPU_IS_LOST, MISMATCH = 3, 4, 15, 18
OPTIONAL = (
    "nvmlSystemGetDriverVersion",
    "nvmlDeviceGetPciInfo_v3",
    "nvmlDeviceGetCurrPcieLinkGeneration",
    "nvmlDeviceGetMaxPcieLinkGeneration",
    "nvmlDeviceGetCurrPcieLinkWidth",
    "nvmlDeviceGetMaxPcieLinkWidth",
    "nvmlDeviceGetNumaNodeId",
    "nvmlDeviceGetPersistenceMode",
    "nvmlDeviceGetPowerUsage",
    TEMPERATURE,
    "nvmlDeviceGetEccMode",
    "nvmlDeviceGetCpuAffinity",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetNvLinkState",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetSupportedEventTypes",
    "nvmlEventSetCreate",
)


def serves(host: Host, pool_id: str) -> bool:
    """Whether a task of that pool comes to its end."""
    return bool(host.daemon.read_stream(host.daemon.accept(model_ref=pool_id, max_tokens=4)).text)


def wait_trouble(host: Host, text: str) -> None:
    wait_until(lambda: text in str(host.daemon.status()["gpu_trouble"]), what=f"trouble with {text!r}")


def wait_mended(host: Host) -> None:
    wait_until(lambda: host.daemon.status()["gpu_trouble"] is None, within_s=30, what="the end of the trouble")
    host.daemon.wait_ready()


@pytest.mark.fault("F26")
@pytest.mark.parametrize("function", [f"{MEMORY}@{LEFT}", f"{TEMPERATURE}@{LEFT}", "nvmlDeviceGetCount_v2", HANDLE])
def test_a_call_that_hangs_costs_figures_alone(host: Host, function: str) -> None:
    pids = [host.pid("left"), host.pid("right")]
    host.nvml.set(LEFT_GPU, RIGHT_GPU, hangs=(function,))
    wait_trouble(host, "NVML")
    served = [serves(host, "left"), serves(host, "right")]
    is_old = [host.device(uuid)["stale"] for uuid in (LEFT, RIGHT)]
    host.nvml.set(LEFT_GPU, RIGHT_GPU)
    wait_mended(host)

    assert served == [True, True]
    assert is_old == [True, True]
    assert [host.pid("left"), host.pid("right")] == pids


@pytest.mark.fault("F26")
def test_a_wait_for_events_that_hangs_costs_events_alone(host: Host) -> None:
    """The kernel log still tells; the looks go on, also where they need a new start of NVML."""
    host.nvml.set(LEFT_GPU, RIGHT_GPU, hangs=(WAIT,))
    pid = host.pid("right")
    host.write_kernel(f"NVRM: Xid (PCI:0000:9b:00): 13, pid={pid}, name=x")
    host.wait_restarted("right", pid)
    host.nvml.set(LEFT_GPU, RIGHT_GPU, hangs=(WAIT,), returns={MEMORY: 999})
    wait_trouble(host, "access to the GPU devices")
    host.nvml.set(LEFT_GPU, RIGHT_GPU)
    wait_mended(host)

    assert serves(host, "right")


@pytest.mark.fault("F26")
@pytest.mark.orch("ORCH-1101")
def test_a_driver_that_hangs_from_the_start_holds_up_the_pools_alone(make_daemon: MakeDaemon, nvml: FakeNvml) -> None:
    nvml.set(LEFT_GPU, hangs=(INIT,))
    daemon = make_daemon(a_fake_pool("left"), simulate=None, env=nvml.env()).start()
    began_s = time.monotonic()
    refused = daemon.submit(model_ref="tiny")
    took_s = time.monotonic() - began_s
    cause = wait_until(lambda: daemon.status()["gpu_cause"], what="the cause")
    nvml.set(LEFT_GPU)
    daemon.wait_ready()

    assert refused.json["code"] in {"POOL_UNAVAILABLE", "POOL_UNREADY"}
    assert took_s < 1.0
    assert "did not answer" in cause


@pytest.mark.fault("F25")
def test_a_driver_that_is_upgraded_under_running_engines_leaves_them_alone(host: Host) -> None:
    pids = [host.pid("left"), host.pid("right")]
    host.nvml.set(LEFT_GPU, RIGHT_GPU, returns={MEMORY: MISMATCH, INIT: MISMATCH})
    wait_trouble(host, "upgraded")
    served = [serves(host, "left"), serves(host, "right")]
    host.nvml.set(LEFT_GPU, RIGHT_GPU)
    wait_mended(host)

    assert served == [True, True]
    assert [host.pid("left"), host.pid("right")] == pids
    assert host.count("driver_reset_events_total") == 1


@pytest.mark.fault("F25")
def test_a_new_library_beside_a_new_driver_is_taken_by_the_running_daemon(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    """As an upgrade of the package does it: the module is new first, then the file is; no process is started anew."""
    nvml = FakeNvml(compile_nvml(tmp_path / "lib", of_driver="570.86.10"), tmp_path / "script")
    nvml.set(LEFT_GPU, driver="570.86.10")
    daemon = make_daemon(a_fake_pool("left"), simulate=None, env=nvml.env()).start_ready()
    host = Host(daemon, nvml, kernel_log=-1)
    pid = host.pid("left")
    nvml.set(LEFT_GPU, driver="580.95.05")
    wait_trouble(host, "upgraded")
    compile_nvml(tmp_path / "new", of_driver="580.95.05").joinpath(SONAME).replace(tmp_path / "lib" / SONAME)
    wait_mended(host)

    assert serves(host, "tiny")
    assert host.pid("left") == pid
    assert host.count("driver_reset_events_total") == 1


@pytest.mark.fault("F29")
def test_a_count_that_is_one_too_high_takes_no_gpu_from_anybody(host: Host) -> None:
    pids = [host.pid("left"), host.pid("right")]
    host.nvml.set(LEFT_GPU, RIGHT_GPU, count=3)
    wait_trouble(host, "GPU 2: ")
    served = [serves(host, "left"), serves(host, "right")]
    host.nvml.set(LEFT_GPU, RIGHT_GPU)
    wait_mended(host)

    assert served == [True, True]
    assert [host.pid("left"), host.pid("right")] == pids


@pytest.mark.fault("F29")
def test_a_count_that_is_one_too_low_takes_the_last_gpu_alone(host: Host) -> None:
    pid = host.pid("left")
    host.nvml.set(LEFT_GPU, RIGHT_GPU, count=1)
    pool = host.wait_state("right", "no-device")
    served = serves(host, "left")
    series = {name: len(host.daemon.series(name)) for name in ("vram_used_bytes", "gpu_utilization")}
    host.nvml.set(LEFT_GPU, RIGHT_GPU)
    wait_mended(host)

    assert served
    assert RIGHT in pool["cause"]
    assert series == {"vram_used_bytes": 1, "gpu_utilization": 1}, "a GPU that is gone has no figures"
    assert host.pid("left") == pid


@pytest.mark.fault("F29")
def test_gpus_that_change_places_under_running_engines_are_followed(host: Host) -> None:
    pids = [host.pid("left"), host.pid("right")]
    host.nvml.set(RIGHT_GPU, LEFT_GPU, returns={MEMORY: 999})
    wait_trouble(host, "access to the GPU devices")
    host.nvml.set(RIGHT_GPU, LEFT_GPU)
    wait_mended(host)

    assert [host.device(uuid)["index"] for uuid in (LEFT, RIGHT)] == [1, 0]
    assert [host.pid("left"), host.pid("right")] == pids
    assert (serves(host, "left"), serves(host, "right")) == (True, True)


@pytest.mark.fault("F21")
def test_a_gpu_that_is_lost_to_one_call_comes_back_by_itself(host: Host) -> None:
    pids = [host.pid("left"), host.pid("right")]
    host.nvml.fail_once(f"{TEMPERATURE}@{LEFT}", GPU_IS_LOST)
    host.wait_restarted("left", pids[0])

    assert (serves(host, "left"), serves(host, "right")) == (True, True)
    assert host.pid("right") == pids[1]
    assert host.count("gpu_faults_total", kind="gpu_lost") == 1


@pytest.mark.fault("F28")
@pytest.mark.parametrize("function", [HANDLE, MEMORY])
def test_a_gpu_that_may_not_be_read_any_more_keeps_its_worker(host: Host, function: str) -> None:
    pids = [host.pid("left"), host.pid("right")]
    host.nvml.set(LEFT_GPU, RIGHT_GPU, returns={f"{function}@{LEFT}": NO_PERMISSION})
    wait_trouble(host, "GPU 0: the daemon's user may not talk to the NVIDIA driver")
    is_old = [host.device(uuid)["stale"] for uuid in (LEFT, RIGHT)]
    marks = [host.count("gpu_figures_stale", device=uuid) for uuid in (LEFT, RIGHT)]
    served = [serves(host, "left"), serves(host, "right")]
    host.nvml.set(LEFT_GPU, RIGHT_GPU)
    wait_mended(host)

    assert (is_old, marks) == ([True, False], [1, 0])
    assert served == [True, True]
    assert [host.pid("left"), host.pid("right")] == pids
    assert host.count("gpu_faults_total", kind="no_permission") == 1


@pytest.mark.fault("F28")
def test_a_gpu_that_may_never_be_read_holds_up_its_own_pool_alone(
    make_daemon: MakeDaemon, nvml: FakeNvml, kernel_log: tuple[Path, int], tmp_path: Path
) -> None:
    nvml.set(LEFT_GPU, RIGHT_GPU, returns={f"{HANDLE}@{LEFT}": NO_PERMISSION})
    pools = (a_fake_pool("left", devices=[0], model="left"), a_fake_pool("right", devices=[1], model="right"))
    models = {"models": {**a_model(tmp_path, "left"), **a_model(tmp_path, "right", seed=2)}}
    daemon = make_daemon(*pools, settings=models, simulate=None, env=nvml.env()).start()
    host = Host(daemon, nvml, kernel_log[1])
    wait_until(lambda: daemon.pool("right")["ready"], within_s=30, what="the other pool")
    served, left = serves(host, "right"), daemon.pool("left")
    nvml.set(LEFT_GPU, RIGHT_GPU)
    wait_mended(host)

    assert served
    assert left["state"] == "no-device"


@pytest.mark.fault("F27")
def test_a_driver_that_supports_nothing_optional_serves_all_the_same(make_daemon: MakeDaemon, nvml: FakeNvml) -> None:
    nvml.set(LEFT_GPU, returns=dict.fromkeys(OPTIONAL, NOT_SUPPORTED))
    daemon = make_daemon(a_fake_pool("left"), simulate=None, env=nvml.env()).start_ready()
    (device,) = daemon.status()["devices"]

    assert daemon.read_stream(daemon.accept()).end.name == "end"
    assert daemon.status()["gpu_trouble"] is None
    assert {name for name, value in device["health"].items() if value is not None} == set()
    assert daemon.series("gpu_utilization") == {}
