"""What the core hears of the GPUs: what is there, and free memory in coarse steps, whenever one of them changes."""

from supervisor.core.events import DeviceSeen, DevicesSeen, Event
from supervisor.core.plan import HostPlan
from supervisor.core.state import build
from supervisor.runtime.device_watch import DeviceWatch
from supervisor.runtime.gauges import Gauges
from supervisor.runtime.gpus import Device, DeviceSample, Inventory
from supervisor.runtime.gpus_simulated import SimulatedGpus
from supervisor.runtime.metrics import Metrics


def a_look(free_mib: int) -> Inventory:
    device = Device("GPU-0", 0, "H100", 81_920, (9, 0))
    return Inventory(devices=(device,), samples={"GPU-0": DeviceSample(81_920 - free_mib, free_mib, 5)})


def heard(*looks: Inventory) -> list[Event]:
    posted: list[Event] = []
    state = build((), HostPlan())
    watch = DeviceWatch(SimulatedGpus(()), posted.append, Gauges(Metrics(lambda: state, {}), {}))
    for look in looks:
        watch.note(look)
    return posted


def seen(free_mib: int) -> DevicesSeen:
    return DevicesSeen((DeviceSeen("GPU-0", 0, "H100", 81_920, free_mib),))


def test_free_memory_is_told_in_steps_and_only_when_it_changed() -> None:
    assert heard(a_look(1_000), a_look(800), a_look(1_030)) == [seen(768), seen(1_024)]


def test_a_failed_look_says_nothing_of_the_memory() -> None:
    assert heard(a_look(1_000), Inventory(cause="no answer"), a_look(1_000)) == [seen(768)]
