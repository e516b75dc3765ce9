"""Faults of GPUs against a real daemon, over the real NVML bindings and a scripted driver (ORCH-3038, ORCH-3053).

The engine is the scripted one: what is under test is who is restarted, who is left alone, what is said and counted.
"""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.fake_nvml import ECC_SINGLE, GPU_UNAVAILABLE, FakeMig, FakeNvml, compile_nvml
from tests.support.fault_watch import Measure
from tests.support.gpu_host import LEFT, LEFT_GPU, MEMORY, RIGHT, RIGHT_GPU, Host, a_gpu, host, kernel_log
from tests.support.pools import a_fake_pool
from tests.support.waiting import wait_until

__all__ = ["host", "kernel_log"]

PART = "MIG-77777777-2222-3333-4444-555555555555"
LOST_WITHIN_S = 2.0


def count_starts(host: Host) -> int:
    return sum(line["event"] == "worker spawning" for line in host.daemon.log_lines())


# F21, F30: gone ---------------------------------------------------------------------------------------------------


@pytest.mark.fault("F21")
@pytest.mark.orch("ORCH-3018", "ORCH-3038")
def test_a_lost_gpu_makes_its_pool_unavailable_within_two_seconds_and_no_other(host: Host, measured: Measure) -> None:
    """F21."""
    right_pid = host.pid("right")
    began_s = time.monotonic()
    host.nvml.set(LEFT_GPU, RIGHT_GPU, returns={f"{MEMORY}@{LEFT}": 15})
    host.nvml.raise_event(LEFT, 79)
    wait_until(lambda: not host.daemon.pool("left")["ready"], what="not Ready")
    took_s = time.monotonic() - began_s
    measured("Unready after", took_s * 1_000, "ms")
    pool = host.wait_state("left", "no-device")
    refused = host.daemon.submit(model_ref="left")
    other = host.daemon.read_stream(host.daemon.accept(model_ref="right"))

    assert took_s <= LOST_WITHIN_S
    assert "fell off the bus" in pool["cause"] or "XID 79" in pool["cause"]
    assert (refused.status, refused.json["code"], refused.json["reason"]) == (503, "POOL_UNAVAILABLE", "gpu_lost")
    assert other.text
    assert int(refused.headers["Retry-After"]) >= 1
    assert host.pid("right") == right_pid
    assert host.count("gpu_xids_total", xid="79") == 1
    wait_until(lambda: host.count("gpu_faults_total", kind="gpu_lost") == 1, what="the loss in the metrics")


@pytest.mark.fault("F21")
def test_a_gpu_that_fell_off_the_bus_stays_withheld_until_it_was_gone_and_is_back(host: Host) -> None:
    host.nvml.raise_event(LEFT, 79)
    host.wait_state("left", "no-device")
    withheld = host.device(LEFT)["withheld"]
    host.nvml.set(RIGHT_GPU, LEFT_GPU, returns={f"{MEMORY}@{LEFT}": 15})
    wait_until(lambda: host.daemon.status()["gpu_trouble"], what="the loss")
    still = host.state("left")
    host.nvml.set(RIGHT_GPU, LEFT_GPU)
    host.daemon.wait_ready()

    assert "XID 79" in withheld
    assert still in {"no-device", "stopping"}
    assert host.daemon.pool("left")["devices"] == [LEFT]
    assert host.count("driver_reset_events_total") == 1
    assert host.count("ecc_events_total") == 0


@pytest.mark.fault("F30")
def test_a_mig_instance_that_vanishes_makes_its_pool_unready(
    make_daemon: MakeDaemon, nvml: FakeNvml, kernel_log: tuple[Path, int]
) -> None:
    """F30."""
    whole = replace(LEFT_GPU, facts={**LEFT_GPU.facts, "mig": 1}, migs=(FakeMig(PART),))
    nvml.set(whole)
    daemon = make_daemon(a_fake_pool("part", devices=[PART]), simulate=None, env=nvml.env()).start_ready()
    host = Host(daemon, nvml, kernel_log[1])
    nvml.set(replace(whole, migs=()))
    pool = host.wait_state("part", "no-device")

    assert PART in pool["cause"]
    assert daemon.submit().json["code"] == "POOL_UNAVAILABLE"


# F22: a reset is needed -------------------------------------------------------------------------------------------


@pytest.mark.fault("F22")
@pytest.mark.orch("ORCH-3053")
def test_a_gpu_that_needs_a_reset_is_withheld_without_a_storm_until_the_driver_wants_nothing(host: Host) -> None:
    """F22."""
    host.nvml.set(a_gpu(LEFT, "3B", recovery=1), RIGHT_GPU)
    host.nvml.raise_event(LEFT, 119)
    host.wait_state("left", "no-device")
    withheld = host.device(LEFT)
    starts = count_starts(host)
    host.nvml.raise_event(LEFT, 62)
    host.wait_fault(fault="XID 62 (internal micro-controller halt)")
    host.nvml.set(LEFT_GPU, RIGHT_GPU)
    host.daemon.wait_ready()

    assert withheld["withheld"]
    assert withheld["health"]["recovery_action"] == "a GPU reset"
    assert starts > 0
    assert len(host.daemon.wait_lines("worker spawning", count=starts + 1)) == starts + 1
    assert host.daemon.wait_lines("GPU recovered")
    steps = host.daemon.pool("left")["steps"]
    assert steps[-1]["name"] == "telemetry"


@pytest.mark.fault("F22")
def test_a_recovery_action_alone_withholds_the_gpu(host: Host) -> None:
    host.nvml.set(a_gpu(LEFT, "3B", recovery=2), RIGHT_GPU)
    host.nvml.raise_event(LEFT, 154)
    pool = host.wait_state("left", "no-device")

    assert "a reboot of the host" in pool["cause"]
    assert host.state("right") == "ready"


# F23, F31: whose fault ---------------------------------------------------------------------------------------------


@pytest.mark.fault("F23")
@pytest.mark.orch("ORCH-3038")
def test_an_application_fault_restarts_the_worker_that_the_kernel_names_and_no_other(
    make_daemon: MakeDaemon, nvml: FakeNvml, kernel_log: tuple[Path, int]
) -> None:
    """F23: two workers share a GPU; NVML tells without a pid, the kernel log with it."""
    nvml.set(LEFT_GPU)
    env = {**nvml.env(), "ORCHCTL_KERNEL_LOG": str(kernel_log[0])}
    pools = (a_fake_pool("one", devices=[0]), a_fake_pool("two", devices=[0]))
    host = Host(make_daemon(*pools, simulate=None, env=env).start_ready(), nvml, kernel_log[1])
    one, two = host.pid("one"), host.pid("two")
    host.write_kernel(f"NVRM: Xid (PCI:0000:3b:00): 31, pid={one}, name=llama-server, Ch 00000008")
    nvml.raise_event(LEFT, 31)
    host.wait_restarted("one", one)

    assert host.pid("two") == two
    assert host.count("gpu_xids_total", xid="31") == 1, "the same incident out of both sources"
    assert "XID 31" in str(host.daemon.wait_lines("worker stopping")[0])


@pytest.mark.fault("F31")
@pytest.mark.parametrize(
    "text",
    [
        "NVRM: Xid (PCI:0000:9b:00): 13, pid={pid}, name=x, Graphics Exception",
        "NVRM: Xid (0000:9b:00): 13, pid={pid}",
        "NVRM: Xid (PCI:0000:9b:00 GPU-I:05): 13, pid='{pid}', name=x",
    ],
)
def test_a_fault_that_only_the_kernel_log_tells_of_counts(host: Host, text: str) -> None:
    """F31, both forms of the line."""
    pid = host.pid("right")
    host.write_kernel(text.format(pid=pid))
    host.wait_restarted("right", pid)

    assert host.wait_fault(source="kernel_log", device=RIGHT)["fault"].startswith("XID 13")


@pytest.mark.fault("F31")
def test_a_line_that_a_program_wrote_into_the_kernel_log_is_ignored(host: Host) -> None:
    """F31: facility 1; the line behind it, of the kernel, shows that both were read."""
    host.write_kernel("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.", facility=1)
    host.write_kernel("NVRM: Xid (PCI:0000:9b:00): 44, pid=1, name=x")
    host.wait_fault(device=RIGHT)

    assert host.count("gpu_xids_total", xid="79") == 0
    assert host.state("left") == "ready"


@pytest.mark.fault("F31")
@pytest.mark.parametrize(
    "text",
    [
        "NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus.",
        r"NVRM: The NVIDIA GPU 0000:3b:00.0\x0aNVRM: (PCI ID: 10de:2330) installed\x0aNVRM: fallen off the bus",
    ],
)
def test_both_lines_about_a_lost_gpu_withhold_it(host: Host, text: str) -> None:
    host.write_kernel(text)
    pool = host.wait_state("left", "no-device")

    assert "XID 79" in pool["cause"]
    assert host.state("right") == "ready"


@pytest.mark.fault("F23")
@pytest.mark.orch("ORCH-3053")
def test_the_third_application_fault_opens_the_breaker_of_the_pool(host: Host) -> None:
    for xid in (13, 31, 69):
        pid = host.pid("left")
        host.write_kernel(f"NVRM: Xid (PCI:0000:3b:00): {xid}, pid={pid}, name=x")
        if xid == 69:
            break
        host.wait_restarted("left", pid)
    pool = host.wait_state("left", "broken")

    assert "3 such faults" in pool["cause"]
    assert "breaker open" in pool["cause"]
    assert host.state("right") == "ready"


# F24: memory errors ------------------------------------------------------------------------------------------------


@pytest.mark.fault("F24")
@pytest.mark.orch("ORCH-3053")
def test_memory_errors_are_counted_by_kind_and_only_some_cost_a_worker(host: Host) -> None:
    """F24, those that a GPU serves on with: a remapped row, a high rate, single bits."""
    pid = host.pid("left")
    for xid, kind in ((63, "row_remap"), (92, "single_bit_storm")):
        host.nvml.raise_event(LEFT, xid)
        host.wait_count("ecc_events_total", kind=kind)
    host.nvml.raise_event(LEFT, 0, ECC_SINGLE)
    wait_until(lambda: host.count("ecc_events_total", kind="single_bit") == 1, what="a single bit")

    assert host.pid("left") == pid
    assert host.device(LEFT)["flags"] == ["reset pending", "degraded memory"]
    assert host.count("driver_reset_events_total") == 0


@pytest.mark.fault("F24")
@pytest.mark.parametrize(
    ("xid", "kind"), [(48, "double_bit"), (64, "row_remap_failure"), (95, "uncontained"), (140, "uncontained")]
)
def test_a_memory_error_that_spoils_the_gpu_withholds_it(host: Host, xid: int, kind: str) -> None:
    """F24."""
    host.nvml.set(a_gpu(LEFT, "3B", recovery=1), RIGHT_GPU)
    host.nvml.raise_event(LEFT, xid)
    host.wait_state("left", "no-device")

    assert host.count("ecc_events_total", kind=kind) == 1
    assert host.state("right") == "ready"


@pytest.mark.fault("F24")
def test_a_contained_memory_error_restarts_the_worker_and_keeps_the_gpu(host: Host) -> None:
    """F24."""
    pid = host.pid("left")
    host.nvml.raise_event(LEFT, 94)
    host.wait_restarted("left", pid)

    assert host.count("ecc_events_total", kind="contained") == 1
    assert host.device(LEFT)["withheld"] is None


# F25 to F29: the driver --------------------------------------------------------------------------------------------


@pytest.mark.fault("F25")
@pytest.mark.orch("ORCH-3053", "ORCH-1101")
def test_an_upgraded_driver_is_named_and_needs_no_restart_of_the_daemon(
    make_daemon: MakeDaemon, nvml: FakeNvml
) -> None:
    """F25."""
    nvml.set(LEFT_GPU, returns={"nvmlInitWithFlags": 18})
    daemon = make_daemon(a_fake_pool("left"), simulate=None, env=nvml.env()).start()
    cause = wait_until(lambda: daemon.status()["gpu_cause"], what="the cause")
    nvml.set(LEFT_GPU)
    daemon.wait_ready()

    assert "upgraded" in cause
    assert daemon.status()["gpu_trouble"] is None
    assert daemon.series("gpu_faults_total")['{engine="none",engine_version="none",kind="version_mismatch"}'] == 1


@pytest.mark.fault("F26")
def test_nvml_that_hangs_leaves_the_daemon_quick_and_marks_the_figures_stale(host: Host, measured: Measure) -> None:
    """F26."""
    pid = host.pid("left")
    host.nvml.set(LEFT_GPU, RIGHT_GPU, hangs=(MEMORY,))
    wait_until(lambda: host.device(LEFT)["stale"], what="stale figures")
    answer = host.daemon.read_stream(host.daemon.accept(model_ref="left"))
    lag_ms = max(host.daemon.series("event_loop_lag_ms").values())
    measured("loop lag", lag_ms, "ms")
    trouble = host.daemon.status()["gpu_trouble"]
    host.nvml.set(LEFT_GPU, RIGHT_GPU)
    wait_until(lambda: not host.device(LEFT)["stale"], what="fresh figures")

    assert "did not answer" in trouble
    assert answer.text
    assert lag_ms < 100
    assert host.pid("left") == pid


@pytest.mark.fault("F27")
def test_a_driver_without_events_or_recovery_action_costs_those_alone(
    make_daemon: MakeDaemon, tmp_path: Path, kernel_log: tuple[Path, int]
) -> None:
    """F27: a symbol is missing; the kernel log still tells of faults."""
    nvml = FakeNvml(compile_nvml(tmp_path / "old", omit="nvmlEventSetCreate"), tmp_path / "script")
    nvml.set(a_gpu(LEFT, "3B", recovery=None))
    env = {**nvml.env(), "ORCHCTL_KERNEL_LOG": str(kernel_log[0])}
    host = Host(make_daemon(a_fake_pool("left"), simulate=None, env=env).start_ready(), nvml, kernel_log[1])
    pid = host.pid("left")
    host.write_kernel(f"NVRM: Xid (PCI:0000:3b:00): 31, pid={pid}, name=x")
    host.wait_restarted("left", pid)

    assert host.device(LEFT)["health"]["recovery_action"] is None


@pytest.mark.fault("F27")
@pytest.mark.orch("ORCH-1101")
def test_a_host_without_the_library_runs_the_control_plane_and_says_why(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    """F27."""
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "libnvidia-ml.so.1").write_text("not a library")
    env = {"LD_LIBRARY_PATH": str(tmp_path / "hidden")}
    daemon = make_daemon(a_fake_pool("left"), simulate=None, env=env).start()
    cause = wait_until(lambda: daemon.status()["gpu_cause"], what="the cause")

    assert "not installed" in cause
    assert daemon.submit().json["code"] == "POOL_UNAVAILABLE"
    assert daemon.series("gpu_faults_total")['{engine="none",engine_version="none",kind="library_missing"}'] == 1


@pytest.mark.fault("F28")
def test_access_to_the_devices_that_is_taken_away_is_named_and_comes_back(host: Host) -> None:
    """F28."""
    pid = host.pid("left")
    host.nvml.set(LEFT_GPU, RIGHT_GPU, returns={MEMORY: 999, "nvmlInitWithFlags": 999})
    trouble = wait_until(lambda: host.daemon.status()["gpu_trouble"], what="the trouble")
    host.nvml.set(LEFT_GPU, RIGHT_GPU)
    wait_until(lambda: host.daemon.status()["gpu_trouble"] is None, what="its end")

    assert "access to the GPU devices is taken away" in trouble
    assert host.count("gpu_faults_total", kind="access_lost") == 1
    assert host.pid("left") == pid, "one lost answer never touches a healthy worker"


@pytest.mark.fault("F29")
def test_pools_follow_their_gpu_by_uuid_when_the_order_changes(host: Host) -> None:
    """F29."""
    host.nvml.set(RIGHT_GPU, LEFT_GPU, returns={f"{MEMORY}@{LEFT}": 15})
    host.wait_state("left", "no-device")
    host.nvml.set(RIGHT_GPU, LEFT_GPU)
    host.daemon.wait_ready()
    pid = host.pid("left")
    environ = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")

    assert host.device(LEFT)["index"] == 1
    assert f"CUDA_VISIBLE_DEVICES={LEFT}" in environ
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in environ
    assert host.daemon.pool("right")["devices"] == [RIGHT]


def test_an_unavailable_gpu_is_withheld(host: Host) -> None:
    host.nvml.raise_event(LEFT, 0, GPU_UNAVAILABLE)
    pool = host.wait_state("left", "no-device")
    host.daemon.wait_ready()

    assert "unavailable" in pool["cause"]
