"""`make gpu-check` on a host with a scripted driver: every check can pass, and every check can fail.

The whole program runs, over the real bindings, with a fake libnvidia-ml.so.1, libcuda.so.1 and nvidia-smi.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_cuda import cuda_library, with_cuda
from tests.support.fake_nvml import EVENTS, RECOVERY_FIELD, FakeGpu, FakeNvml, nvml, nvml_library
from tests.tools.smi_page import a_page, install_smi

__all__ = ["cuda_library", "nvml", "nvml_library"]

ROOT = Path(__file__).parents[2]
RAN_WITHIN_S = 120
FACTS = {
    "bus_id": "00000000:3B:00.0",
    "pcie_gen": 3,
    "pcie_width": 8,
    "temperature": 61,
    "power_mw": 312_500,
    "persistence": 1,
    "ecc": 1,
    "events": EVENTS,
}
FIELDS = {3: 7, 4: 1, 5: 70, 6: 10, 142: 4, 143: 5, 144: 1, 145: 0, RECOVERY_FIELD: 0}
GPU = FakeGpu("GPU-a", 24_576, 10_000, 40, facts=FACTS, fields=FIELDS, lists_processes=True)
SECOND = replace(GPU, uuid="GPU-b", facts={**FACTS, "bus_id": "00000000:9B:00.0"})


@dataclass(frozen=True)
class Ran:
    """What one run said."""

    code: int
    out: str
    report: dict[str, Any]

    def of(self, name: str) -> tuple[str, str]:
        """The outcome and the detail of one check."""
        found = next(each for each in self.report["checks"] if each["name"] == name)
        return found["outcome"], found["detail"]

    def failures(self) -> list[str]:
        """The names of the checks that failed."""
        return [each["name"] for each in self.report["checks"] if each["outcome"] == "failed"]


class Host:
    """A host with a scripted driver."""

    def __init__(self, nvml: FakeNvml, cuda: Path, folder: Path) -> None:
        self.nvml, self._cuda, self._folder = nvml, cuda, folder
        self.nvml.set(GPU)
        self.set_smi({})

    def set_smi(self, *gpus: dict[str, str], driver: str = "580.00.00") -> None:
        """What nvidia-smi says: these figures are other than the usual ones."""
        self.set_page(a_page(*gpus, driver=driver))

    def set_page(self, page: bytes) -> None:
        """The same, byte for byte."""
        self._smi = install_smi(self._folder / "bin", page)

    def check(self, *, cuda_fails: str | None = None) -> Ran:
        """Run the program."""
        path = self._folder / "report.json"
        env = with_cuda(self.nvml.env(), self._cuda, fails=cuda_fails)
        ran = run("--report", str(path), env={**env, "PATH": f"{self._smi}:{os.environ['PATH']}"})
        return Ran(ran.returncode, ran.stdout, json.loads(path.read_text()))


def run(*arguments: str, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tools.gpu_check", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=RAN_WITHIN_S, check=False)


@pytest.fixture
def host(nvml: FakeNvml, cuda_library: Path, tmp_path: Path) -> Host:
    """One GPU with which everything is well."""
    return Host(nvml, cuda_library, tmp_path)


# The whole --------------------------------------------------------------------------------------------------------


@pytest.mark.orch("ORCH-3003", "ORCH-3011", "ORCH-3018")
def test_on_a_host_where_all_is_well_every_check_passes(host: Host) -> None:
    ran = host.check()

    assert (ran.code, ran.failures()) == (0, [])
    assert ran.report["counts"] == {"passed": len(ran.report["checks"]), "failed": 0, "skipped": 0}
    assert ran.report["devices"] == {"GPU-a": "NVIDIA Fake 4090, 24576 MiB"}
    assert ran.out.splitlines()[-1] == f"gpu-check: {len(ran.report['checks'])} passed, 0 failed, 0 skipped"
    assert any(line.startswith("passed   inventory") for line in ran.out.splitlines())


def test_without_a_gpu_it_says_so_and_ends_well(nvml: FakeNvml) -> None:
    ran = run(env=nvml.env())

    assert (ran.returncode, ran.stdout) == (0, "gpu-check SKIPPED: no NVIDIA GPU was found\n")


def test_without_a_report_file_the_document_is_printed(host: Host, tmp_path: Path) -> None:
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    ran = run(env={**host.nvml.env(), "PATH": path, "LD_LIBRARY_PATH": host.nvml.env()["LD_LIBRARY_PATH"]})

    table, brace, rest = ran.stdout.partition("\n{\n")
    assert json.loads(brace + rest)["counts"]["failed"] == 0
    assert table.splitlines()[-1].startswith("gpu-check: ")


def test_where_nvidia_smi_is_missing_the_comparison_is_skipped_aloud(host: Host, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    path = tmp_path / "report.json"
    ran = run("--report", str(path), env={**host.nvml.env(), "PATH": str(tmp_path / "empty")})

    assert ran.returncode == 0
    assert "skipped  nvidia-smi" in ran.stdout


def test_where_nvidia_smi_writes_no_xml_the_check_fails(host: Host) -> None:
    host.set_page(b"Failed to initialize NVML")
    ran = host.check()

    assert (ran.code, ran.failures()) == (1, ["nvidia-smi"])


def test_what_differs_from_nvidia_smi_fails_its_check_alone(host: Host) -> None:
    host.set_smi({"temperature/gpu_temp": "30 C"})
    ran = host.check()

    assert (ran.code, ran.failures()) == (1, ["temperature_c GPU-a"])
    assert "failed   temperature_c GPU-a" in ran.out


# Events, metrics --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "outcome", "said"),
    [
        (EVENTS, "passed", "registered XID, single-bit ECC, double-bit ECC, GPU unavailable, recovery action"),
        (0x8, "passed", "registered XID"),
        (0x3, "failed", "it does not tell of XIDs"),
        (0, "skipped", "not supported: XID"),
    ],
)
@pytest.mark.orch("ORCH-3038")
def test_the_events_that_a_gpu_supports_are_registered(host: Host, events: int, outcome: str, said: str) -> None:
    host.nvml.set(replace(GPU, facts={**FACTS, "events": events}))
    found = host.check().of("events GPU-a")

    assert found[0] == outcome
    assert said in found[1]


def test_a_gpu_that_refuses_to_register_fails_the_check(host: Host) -> None:
    host.nvml.set(GPU, SECOND, returns={"nvmlDeviceRegisterEvents@GPU-b": 3})
    host.set_smi({}, {"uuid": "GPU-b", "id": "00000000:9B:00.0"})
    ran = host.check()

    assert ran.failures() == ["events GPU-b"]
    assert ran.of("events GPU-b")[1].startswith("the listener did not register it")


@pytest.mark.orch("ORCH-3028")
def test_a_metric_that_no_gpu_reports_is_skipped_and_the_others_are_on_the_page(host: Host) -> None:
    host.nvml.set(GPU, returns={"nvmlDeviceGetUtilizationRates": 3})
    ran = host.check()

    assert ran.of("metric gpu_utilization") == ("skipped", "no GPU reports it")
    assert ran.of("metric gpu_withheld") == ran.of("metric vram_free_bytes") == ("passed", "1 on the page")
    assert ran.failures() == ["utilization_percent GPU-a"]


# Memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.orch("ORCH-3003")
def test_a_need_just_below_free_memory_fits_and_one_just_above_does_not(host: Host) -> None:
    ran = host.check()

    assert ran.of("headroom GPU-a accepted") == ("passed", "13018 MiB and a reserve fit")
    assert "GPU GPU-a has 14576 MiB free, 14831 MiB" in ran.of("headroom GPU-a refused")[1]
    assert "GPU GPU-a has 24576 MiB in all" in ran.of("headroom GPU-a never")[1]


def test_where_too_little_is_free_the_headroom_is_skipped(host: Host) -> None:
    host.nvml.set(replace(GPU, vram_used_mib=24_000))
    host.set_smi({"fb_memory_usage/free": "576 MiB"})

    assert host.check().of("headroom GPU-a") == ("skipped", "only 576 MiB are free: stop what runs there")


@pytest.mark.orch("ORCH-3011", "ORCH-3018")
def test_a_cuda_process_is_judged_on_its_mask_and_off_it(host: Host) -> None:
    ran = host.check()

    assert ran.of("processes GPU-a")[1].endswith("holds 256 MiB, of which 256 were asked for")
    assert ran.of("residency GPU-a on its mask")[1] == "256 MiB on 1 GPU, none elsewhere"
    assert "GPU GPU-a, which is not in its mask" in ran.of("residency GPU-a off its mask")[1]
    assert "it holds no memory on GPU GPU-a" in ran.of("residency GPU-a without memory")[1]
    assert "part of it lies with the host" in ran.of("residency GPU-a of half a model")[1]


@pytest.mark.parametrize("function", ["cuInit", "cuDeviceGet", "cuCtxCreate_v2", "cuMemAlloc_v2"])
def test_where_cuda_cannot_be_used_residency_is_skipped_with_the_reason(host: Host, function: str) -> None:
    found = host.check(cuda_fails=function).of("residency GPU-a")

    assert found == ("skipped", f"no CUDA process could be started: failed: {function} gave 2")


def test_a_driver_that_does_not_list_the_process_fails_the_check(host: Host) -> None:
    host.nvml.set(GPU, returns={"nvmlDeviceGetComputeRunningProcesses_v3": 3})
    ran = host.check()

    assert ran.failures() == ["processes GPU-a"]
    assert ran.of("processes GPU-a")[1] == "the driver lists no processes"
