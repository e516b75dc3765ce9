"""What the core hears of the GPUs: what is there, and free memory in coarse steps, whenever one of them changes."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from supervisor.core.events import DeviceSeen, DevicesSeen, DevicesUnknown, DriverWasReset, Event
from supervisor.core.plan import HostPlan
from supervisor.core.state import build
from supervisor.runtime.device_watch import DeviceWatch
from supervisor.runtime.fault_notes import FaultNotes
from supervisor.runtime.gauges import Gauges
from supervisor.runtime.gpus import Device, DeviceSample, GpuTrouble, Health, Inventory, MigPart, UnusableDevice
from supervisor.runtime.gpus_simulated import SimulatedGpus
from supervisor.runtime.metrics import Metrics
from tests.support.waiting import until

NO_ANSWER = Inventory(kind=GpuTrouble.TIMEOUT, cause="no answer")


def a_look(free_mib: int = 1_000, **health: Any) -> Inventory:
    device = Device("GPU-0", 0, "H100", 81_920, (9, 0))
    sample = DeviceSample(81_920 - free_mib, free_mib, 5, Health(**health))
    return Inventory(devices=(device,), samples={"GPU-0": sample}, driver_version="580")


@dataclass
class Listener:
    """A watch without a driver, and all that it says."""

    posted: list[Event] = field(default_factory=list)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    is_holding: bool = False

    def __post_init__(self) -> None:
        state = build((), HostPlan())
        self.gauges = Gauges(Metrics(lambda: state, {}), {})
        notes = FaultNotes(self.registry)
        self.watch = DeviceWatch(
            SimulatedGpus(()), self.posted.append, self.gauges, notes, has_holds=lambda: self.is_holding
        )

    def hear(self, *looks: Inventory) -> "Listener":
        for look in looks:
            self.watch.note(look)
        return self

    def count(self, name: str, **labels: str) -> float:
        base = {"engine": "none", "engine_version": "none"}
        return self.registry.get_sample_value(name, {**base, **labels}) or 0.0


def seen(free_mib: int, recovery: int | None = None) -> DevicesSeen:
    return DevicesSeen((DeviceSeen("GPU-0", 0, "H100", 81_920, free_mib, recovery, compute_capability=(9, 0)),))


def test_free_memory_is_told_in_steps_and_only_when_it_changed() -> None:
    assert Listener().hear(a_look(1_000), a_look(800), a_look(1_030)).posted == [seen(768), seen(1_024)]


def test_a_failed_look_says_nothing_of_the_memory() -> None:
    assert Listener().hear(a_look(1_000), NO_ANSWER, a_look(1_000)).posted == [seen(768)]


def test_before_the_first_good_look_the_core_is_told_why() -> None:
    assert Listener().hear(NO_ANSWER).posted == [DevicesUnknown("no answer")]


def test_while_a_gpu_is_withheld_every_good_look_is_told() -> None:
    listener = Listener(is_holding=True).hear(a_look(), a_look(), NO_ANSWER)

    assert listener.posted == [seen(768), seen(768)]


def test_figures_are_marked_stale_while_nvml_does_not_answer() -> None:
    listener = Listener().hear(a_look(), NO_ANSWER)
    stale = listener.gauges.devices["GPU-0"]
    listener.hear(a_look())

    assert (stale.stale, stale.vram_free_mib) == (True, 1_000)
    assert not listener.gauges.devices["GPU-0"].stale


def series(listener: Listener, name: str) -> dict[str, float]:
    """The samples of one metric on the page, by device."""
    (metric,) = [each for each in listener.gauges.metrics.registry.collect() if each.name == name]
    return {sample.labels["device"]: sample.value for sample in metric.samples}


DEVICE_SERIES = ("vram_used_bytes", "vram_free_bytes", "gpu_utilization", "gpu_figures_stale")


@pytest.mark.parametrize("name", DEVICE_SERIES)
@pytest.mark.orch("ORCH-3028")
def test_a_gpu_that_is_gone_has_no_series_until_it_is_back(name: str) -> None:
    lost = UnusableDevice(0, GpuTrouble.GPU_LOST, "GPU 0 fell off the bus", "GPU-0")
    listener = Listener().hear(a_look())
    before = series(listener, name)
    listener.hear(Inventory(unusable=(lost,), driver_version="580"))
    while_gone = series(listener, name)
    listener.hear(a_look())

    assert list(before) == ["GPU-0"]
    assert while_gone == {}
    assert series(listener, name) == before


def test_a_figure_that_a_gpu_gives_no_more_has_no_series() -> None:
    silent = replace(a_look(), samples={"GPU-0": DeviceSample(80_920, 1_000, None)})

    assert series(Listener().hear(a_look(), silent), "gpu_utilization") == {}


def test_old_figures_stay_in_the_metrics_and_are_marked() -> None:
    listener = Listener().hear(a_look(), NO_ANSWER)
    marks = [series(listener, "gpu_figures_stale"), series(listener.hear(a_look()), "gpu_figures_stale")]

    assert marks == [{"GPU-0": 1}, {"GPU-0": 0}]
    assert series(listener, "vram_free_bytes") == {"GPU-0": 1_000 * 2**20}


def test_a_gpu_that_denied_an_answer_is_marked_counted_and_not_lost() -> None:
    denied = UnusableDevice(0, GpuTrouble.NO_PERMISSION, "GPU 0: may not", "GPU-0")
    listener = Listener().hear(a_look(), replace(a_look(), unread=(denied,)))

    assert listener.posted == [seen(768)]
    assert listener.gauges.devices["GPU-0"].stale
    assert listener.gauges.gpu_trouble == "GPU 0: may not"
    assert listener.count("gpu_faults_total", kind="no_permission") == 1


def test_one_trouble_is_one_line_and_one_count_however_often_it_is_seen() -> None:
    listener = Listener().hear(a_look(), NO_ANSWER, NO_ANSWER, a_look(), NO_ANSWER)

    assert listener.count("gpu_faults_total", kind="timeout") == 2
    assert listener.gauges.gpu_trouble == "no answer"


def test_a_lost_gpu_is_told_with_its_uuid_and_why() -> None:
    lost = UnusableDevice(0, GpuTrouble.GPU_LOST, "GPU 0 fell off the bus", "GPU-0")
    listener = Listener().hear(a_look(), Inventory(unusable=(lost,), driver_version="580"))

    assert listener.posted[-1] == DevicesSeen((), (("GPU-0", "GPU 0 fell off the bus"),))
    assert listener.count("gpu_faults_total", kind="gpu_lost") == 1


def test_a_mig_instance_is_told_with_what_it_is_a_part_of() -> None:
    device = Device("MIG-1", 0, "H100 MIG", 9_000, (9, 0), mig=MigPart("GPU-0", 1, 0))
    look = Inventory(devices=(device,), samples={"MIG-1": DeviceSample(0, 9_000, None)})

    assert Listener().hear(look).posted == [
        DevicesSeen((DeviceSeen("MIG-1", 0, "H100 MIG", 9_000, 8_960, None, "GPU-0", compute_capability=(9, 0)),))
    ]


@pytest.mark.orch("ORCH-3053")
@pytest.mark.parametrize(
    ("looks", "sign"),
    [
        ((a_look(ecc_double_volatile=3), a_look(ecc_double_volatile=0)), "from zero again"),
        ((a_look(ecc_single_volatile=3), a_look(ecc_single_volatile=1)), "from zero again"),
        ((a_look(recovery_action=1), a_look(recovery_action=0)), "no recovery action any more"),
        ((a_look(), Inventory(kind=GpuTrouble.UNINITIALIZED, cause="down"), a_look()), "there again"),
        ((a_look(), Inventory(kind=GpuTrouble.VERSION_MISMATCH, cause="old"), a_look()), "there again"),
        (
            (
                a_look(),
                Inventory(unusable=(UnusableDevice(0, GpuTrouble.GPU_LOST, "lost", "GPU-0"),), driver_version="580"),
                a_look(),
            ),
            "was lost and is there again",
        ),
    ],
)
def test_a_reset_of_the_driver_is_seen_by_its_signs_and_counted_apart(looks: tuple[Inventory, ...], sign: str) -> None:
    listener = Listener().hear(*looks, looks[-1])

    (reset,) = [event for event in listener.posted if isinstance(event, DriverWasReset)]
    assert reset.uuids == ("GPU-0",)
    assert sign in reset.cause
    assert listener.count("driver_reset_events_total") == 1
    assert listener.count("ecc_events_total", kind="double_bit") == 0


@pytest.mark.parametrize(
    "looks",
    [
        (a_look(ecc_double_volatile=0), a_look(ecc_double_volatile=3)),
        (a_look(recovery_action=0), a_look(recovery_action=1)),
        (a_look(), NO_ANSWER, a_look()),
        (a_look(ecc_single_volatile=3), a_look()),
    ],
)
def test_what_is_no_reset_of_the_driver(looks: tuple[Inventory, ...]) -> None:
    listener = Listener().hear(*looks)

    assert not [event for event in listener.posted if isinstance(event, DriverWasReset)]
    assert listener.count("driver_reset_events_total") == 0


class CountingGpus(SimulatedGpus):
    """Counts the looks that were taken."""

    def __init__(self) -> None:
        super().__init__(())
        self.looks = 0

    async def inventory(self) -> Inventory:
        self.looks += 1
        return await super().inventory()


async def test_a_look_that_is_asked_for_does_not_wait_for_its_turn() -> None:
    gpus, metrics = CountingGpus(), Metrics(lambda: build((), HostPlan()), {})
    watch = DeviceWatch(gpus, lambda _: None, Gauges(metrics, {}), FaultNotes(CollectorRegistry()))
    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(watch.run(every_s=3_600))
        await until(lambda: gpus.looks == 1, what="the first look")
        watch.look_soon()
        watch.look_soon()
        await until(lambda: gpus.looks == 2, what="the look that was asked for")
        looking.cancel()
