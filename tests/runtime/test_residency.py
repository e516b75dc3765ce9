"""Where a worker holds its memory: what the driver says decides, and what it cannot say is said aloud."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from adapters.llamacpp import LlamaCpp
from supervisor.core.events import EngineMisplaced, Event
from supervisor.runtime.gpus import Device, DeviceSample, GpuProcess, GpuTrouble, Inventory, MigPart
from supervisor.runtime.residency import Residency, judge, sees_driver_pids
from supervisor.runtime.residency_reading import read_residency, read_spill
from supervisor.runtime.residency_watch import ResidencyWatch
from tests.support.waiting import until

OWN, FOREIGN = 100, 900
GIB = 1 << 30
Held = tuple[tuple[int, int | None], ...]


def inventory(**held: Held | None) -> Inventory:
    """GPUs A, B …, and the processes on each: pid and MiB."""
    devices = tuple(Device(name, index, "H100", 80_000, (9, 0)) for index, name in enumerate(held))
    samples = {
        name: DeviceSample(0, 80_000, 0, processes=None if rows is None else tuple(GpuProcess(*row) for row in rows))
        for name, rows in held.items()
    }
    return Inventory(devices, (), samples)


def verdict(found: Inventory, *mask: str, can_see: bool = True, model_bytes: int = 4 * GIB) -> Residency:
    return judge({OWN, OWN + 1}, mask or ("A",), found, model_bytes, is_simulated=False, can_see=can_see)


@pytest.mark.orch("ORCH-3018")
def test_memory_on_every_gpu_of_the_mask_and_on_no_other_passes() -> None:
    found = verdict(inventory(A=((OWN, 3_000),), B=((OWN + 1, 2_000), (FOREIGN, 9)), C=((FOREIGN, 500),)), "A", "B")

    assert found == Residency(passed=True, is_proved=True, detail="5000 MiB on 2 GPU, none elsewhere")


@pytest.mark.parametrize(
    ("found", "mask", "part"),
    [
        (inventory(A=()), ("A",), "holds no memory on GPU A: its build has no CUDA"),
        (inventory(A=((FOREIGN, 9_000),)), ("A",), "holds no memory on GPU A"),
        (inventory(A=((OWN, 4_000),), B=()), ("A", "B"), "no memory on GPU B"),
        (inventory(A=(), B=((OWN, 4_000),)), ("A",), "on GPU B, which is not in its mask"),
        (inventory(A=((OWN, 4_000),), B=((OWN + 1, 10),)), ("A",), "on GPU B, which is not in its mask"),
        (inventory(A=((OWN, 2_000),)), ("A",), "holds 2000 MiB on its GPUs of a model of 4096 MiB"),
    ],
    ids=["cpu only", "foreign memory", "one of two", "wrong device", "another one too", "partly spilled"],
)
@pytest.mark.orch("ORCH-3018", "ORCH-3011")
def test_memory_elsewhere_fails(found: Inventory, mask: Sequence[str], part: str) -> None:
    seen = verdict(found, *mask)

    assert (seen.passed, seen.is_proved) == (False, True)
    assert part in seen.detail


@pytest.mark.parametrize(
    ("found", "can_see", "part"),
    [
        (inventory(A=None), True, "does not list the processes"),
        (inventory(A=((OWN, 9),)), False, "in a container"),
        (Inventory(kind=GpuTrouble.TIMEOUT, cause="NVML did not answer"), True, "NVML did not answer"),
        (inventory(B=()), True, "does not list the processes"),
    ],
    ids=["not listed", "other pids", "no answer", "no sample"],
)
def test_what_cannot_be_proved_passes_and_says_so(found: Inventory, can_see: bool, part: str) -> None:
    seen = verdict(found, can_see=can_see)

    assert (seen.passed, seen.is_proved) == (True, False)
    assert seen.detail.startswith("not proved: ")
    assert part in seen.detail


def test_simulated_gpus_hold_nothing_and_the_step_says_so() -> None:
    seen = judge((OWN,), ("A",), inventory(A=()), GIB, is_simulated=True, can_see=True)

    assert seen == Residency(passed=True, is_proved=False, detail="simulated")


def test_memory_of_unknown_size_is_memory() -> None:
    assert verdict(inventory(A=((OWN, None),))).passed


def test_the_gpu_of_a_mig_instance_may_list_its_processes_too() -> None:
    found = inventory(WHOLE=((OWN, 3_000),), PART=((OWN, 3_000),))
    part = Device("PART", 0, "H100 MIG", 10_000, (9, 0), mig=MigPart("WHOLE", 1, 0))
    found = Inventory((found.devices[0], part), (), found.samples)

    assert verdict(found, "PART").passed


def test_pids_are_the_drivers_in_the_first_namespace_only(tmp_path: Path) -> None:
    (tmp_path / "pid").touch()

    assert not sees_driver_pids(tmp_path / "pid")
    assert not sees_driver_pids(tmp_path / "missing")


@pytest.mark.parametrize(
    ("log", "is_spilled"),
    [
        ("load_tensors: offloaded 33/33 layers to GPU\n", False),
        ("0.00.1 I load_tensors: offloaded 12/33 layers to GPU\n", True),
        ("load_tensors: offloaded 0/25 layers to GPU\n", True),
        ("no word about it", False),
    ],
)
@pytest.mark.orch("ORCH-3018")
def test_layers_that_stay_with_the_host_are_read_from_the_engines_own_log(log: str, is_spilled: bool) -> None:
    assert (LlamaCpp().find_spill(log) is not None) is is_spilled


class Looks:
    """Verdicts in the order in which they are asked for, and what the core was told."""

    def __init__(self, *passed: bool) -> None:
        self._passed = list(passed)
        self.told: list[Event] = []
        self.watch = ResidencyWatch(lambda: [("p", 7)], self._look, self.told.append)

    async def _look(self, pool_id: str, incarnation: int) -> Residency | None:
        assert (pool_id, incarnation) == ("p", 7)
        return Residency(passed=self._passed.pop(0), is_proved=True, detail="it is elsewhere")


async def test_two_failed_looks_in_a_row_are_told_once() -> None:
    looks = Looks(False, True, False, False, False)
    told = []
    for _ in range(5):
        await looks.watch.look_at_all()
        told.append(len(looks.told))

    assert told == [0, 0, 0, 1, 1]
    assert looks.told == [EngineMisplaced("p", 7, "residency: it is elsewhere")]


async def test_a_look_that_breaks_proves_nothing_and_the_others_are_looked_at() -> None:
    told: list[Event] = []

    async def look(pool_id: str, _: int) -> Residency | None:
        if pool_id == "broken":
            raise FileNotFoundError(2, "No such file or directory")
        return Residency(passed=False, is_proved=True, detail="it is elsewhere")

    watch = ResidencyWatch(lambda: [("broken", 1), ("p", 7)], look, told.append)
    for _ in range(3):
        await watch.look_at_all()

    assert told == [EngineMisplaced("p", 7, "residency: it is elsewhere")]


class OneEngine:
    """The driver and a process, as one look asks them."""

    def __init__(self, fault: OSError | None = None) -> None:
        self._fault = fault

    def pids(self) -> frozenset[int]:
        if self._fault is not None:
            raise self._fault
        return frozenset({OWN})

    async def inventory(self) -> Inventory:
        return inventory(A=((OWN, 3_000),))


async def test_a_process_that_cannot_be_looked_at_is_not_proved() -> None:
    engine = OneEngine(PermissionError(13, "Permission denied"))
    found = await read_residency(engine.pids, ["A"], engine.inventory, GIB, spill=None, is_simulated=False)

    assert (found.passed, found.is_proved) == (True, False)
    assert found.detail == "not proved: its processes: Permission denied"


@pytest.mark.orch("ORCH-3018")
async def test_what_the_log_said_at_first_holds_and_what_it_is_given_later_counts_for_nothing(tmp_path: Path) -> None:
    log, spilled = tmp_path / "engine.log", "load_tensors: offloaded 12/33 layers to GPU\n"
    run = "pool/1 mark"
    log.write_text(f"\norchctl: engine run {run}\nload_tensors: offloaded 33/33 layers to GPU\n")
    first = await read_spill(log, run, LlamaCpp().find_spill)
    log.write_text(f"{log.read_text()}{spilled}")
    engine = OneEngine()
    later = await read_residency(engine.pids, ["A"], engine.inventory, GIB, spill=first, is_simulated=False)
    at_once = await read_spill(log, run, LlamaCpp().find_spill)
    found = await read_residency(engine.pids, ["A"], engine.inventory, GIB, spill=at_once, is_simulated=False)

    assert first is None
    assert later.passed
    assert (found.passed, found.is_proved, found.detail) == (False, True, at_once)


async def test_it_looks_until_it_is_cancelled() -> None:
    looks = Looks(False, False)
    task = asyncio.create_task(looks.watch.run(every_s=0.001))
    await until(lambda: looks.told)
    task.cancel()
    await asyncio.wait([task])

    assert len(looks.told) == 1
