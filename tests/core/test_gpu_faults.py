"""What follows from a fault of a GPU: who is restarted, what is withheld, and when it is given back."""

import pytest
from msgspec import structs

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.fault_book import HOLD_BLIND_MS, HOLD_FIRST_MS, HOLD_MAX_MS, hold_ms
from supervisor.core.faults import Fault, GpuAlarm
from supervisor.core.invariants import violations
from supervisor.core.lifecycle import Phase
from tests.core.builders import BOTH, GPU0, GPU1, NONE, Stage, make_plan, make_stage, only

WELL0 = structs.replace(GPU0, recovery=0)
WELL1 = structs.replace(GPU1, recovery=0)
WELL = ev.DevicesSeen((WELL0, WELL1))
PART = ev.DeviceSeen("MIG-0", 0, "H100 MIG", 9_000, parent="GPU-0")


def asks(action: int) -> ev.DevicesSeen:
    """GPU 0 asks for a recovery."""
    return ev.DevicesSeen((structs.replace(GPU0, recovery=action), WELL1))


def xid(fault: Fault, uuid: str = "GPU-0", pid: int | None = None, instance: str | None = None) -> ev.DeviceFaulted:
    return ev.DeviceFaulted(uuid, fault, "nvml", pid, instance)


def serving(*plans: ev.DevicesSeen | object, inventory: ev.DevicesSeen = WELL) -> Stage:
    """Pools that are all Ready."""
    stage = make_stage(*plans)  # type: ignore[arg-type]
    stage.give(inventory)
    for pool_id in stage.core.state.replicas:
        stage.serve(pool_id)
    return stage


def two_on_one() -> Stage:
    return serving(make_plan("p0"), make_plan("p1"))


def one_each() -> Stage:
    return serving(make_plan("p0"), make_plan("p1", devices=(1,)))


def phases(stage: Stage) -> dict[str, Phase]:
    return {name: replica.phase for name, replica in stage.core.state.replicas.items()}


def stopped(stage: Stage) -> list[str]:
    return [effect.pool_id for effect in only(stage.done, ef.StopEngine)]


# Restarts


@pytest.mark.orch("ORCH-3038")
def test_an_application_fault_restarts_the_worker_of_that_process_alone() -> None:
    stage = two_on_one()

    stage.give(xid(31, pid=stage.replica("p1").pid))

    assert stopped(stage) == ["p1"]
    assert "XID 31 (GPU memory page fault)" in str(stage.replica("p1").cause)
    assert stage.core.state.devices.withheld == {}


def test_a_fault_of_a_foreign_process_is_no_workers() -> None:
    stage = two_on_one()

    stage.give(xid(31, pid=424_242))
    stage.pass_ms(10_000)

    assert stopped(stage) == []


def test_without_a_pid_the_name_is_waited_for_and_then_all_on_the_gpu_restart() -> None:
    stage = two_on_one()

    stage.give(xid(31))
    stage.pass_ms(400)
    before = stopped(stage)
    stage.pass_ms(200)

    assert before == []
    assert stopped(stage) == ["p0", "p1"]


def test_the_pid_that_the_other_source_knows_spares_the_others() -> None:
    stage = two_on_one()
    stage.give(xid(31))
    stage.pass_ms(300)

    stage.give(xid(31, pid=stage.replica("p0").pid))
    stage.pass_ms(10_000)

    assert stopped(stage) == ["p0"]
    assert len(only(stage.done, ef.NoteFault)) == 1


def test_a_pid_that_came_first_is_not_followed_by_a_restart_of_all() -> None:
    stage = two_on_one()
    stage.give(xid(31, pid=stage.replica("p0").pid))

    stage.give(xid(31))
    stage.pass_ms(10_000)

    assert stopped(stage) == ["p0"]


def test_the_same_fault_of_two_processes_is_two_faults() -> None:
    stage = two_on_one()

    for pool_id in ("p0", "p1"):
        stage.give(xid(31, pid=stage.replica(pool_id).pid))

    assert stopped(stage) == ["p0", "p1"]


def test_the_same_fault_after_a_second_is_another_one() -> None:
    stage = one_each()
    for _ in range(2):
        stage.give(xid(44))
        stage.pass_ms(1_000)

    assert len(only(stage.done, ef.NoteFault)) == 2


def test_a_fault_of_one_mig_instance_leaves_the_others() -> None:
    other = structs.replace(PART, uuid="MIG-1")
    whole = structs.replace(WELL0, is_divided=True)
    plans = (make_plan("p0", devices=("MIG-0",)), make_plan("p1", devices=("MIG-1",)))
    stage = serving(*plans, inventory=ev.DevicesSeen((whole, PART, other)))

    stage.give(xid(94, instance="MIG-1"))

    assert stopped(stage) == ["p1"]


# 45


@pytest.mark.parametrize("is_first", [True, False])
def test_a_cleanup_beside_another_fault_is_ignored(*, is_first: bool) -> None:
    stage = two_on_one()
    for fault in (45, 44) if is_first else (44, 45):
        stage.give(xid(fault))
        stage.pass_ms(4_900)
    stage.pass_ms(10_000)

    assert stopped(stage) == []


def test_a_cleanup_alone_restarts_the_worker_after_five_seconds() -> None:
    stage = two_on_one()

    stage.give(xid(45, pid=stage.replica("p0").pid))
    stage.pass_ms(4_999)
    before = stopped(stage)
    stage.pass_ms(1)

    assert before == []
    assert stopped(stage) == ["p0"]


def test_a_fault_of_another_gpu_explains_no_cleanup() -> None:
    stage = one_each()
    stage.give(xid(44, uuid="GPU-1"))
    stage.give(xid(45))
    stage.pass_ms(6_000)

    assert stopped(stage) == ["p0"]


# Probes


@pytest.mark.parametrize("fault", [43, 999])
def test_an_idle_worker_is_probed_and_replaced_when_no_token_comes(fault: int) -> None:
    stage = one_each()

    stage.give(xid(fault))
    probes = only(stage.done, ef.ProbeEngine)
    stage.give(ev.EngineProbed("p0", stage.replica().incarnation, None))
    after_token = stopped(stage)
    stage.give(ev.EngineProbed("p0", stage.replica().incarnation, "no token came"))

    assert [probe.pool_id for probe in probes] == ["p0"]
    assert after_token == []
    assert stopped(stage) == ["p0"]


# Too many


@pytest.mark.orch("ORCH-3053")
def test_the_third_application_fault_of_a_model_opens_the_breaker_of_that_pool() -> None:
    stage = one_each()
    for _ in range(3):
        replica = stage.replica()
        stage.give(xid(13, pid=replica.pid))
        stage.give(ev.EngineStopped("p0", replica.incarnation))
        if replica.phase is Phase.BACKOFF:
            stage.pass_ms(10_000)
            stage.serve()

    assert phases(stage) == {"p0": Phase.BROKEN, "p1": Phase.READY}
    assert "this model had 3 such faults" in str(stage.replica().cause)


def test_application_faults_far_apart_are_forgiven() -> None:
    stage = one_each()
    for _ in range(4):
        replica = stage.replica()
        stage.give(xid(13, pid=replica.pid))
        stage.give(ev.EngineStopped("p0", replica.incarnation))
        stage.pass_ms(10_000)
        stage.serve()
        stage.pass_ms(400_000)

    assert stage.replica().phase is Phase.READY


# Holds


@pytest.mark.orch("ORCH-3038", "ORCH-3018")
def test_a_gpu_that_needs_a_reset_is_withheld_from_its_pools_and_from_no_other() -> None:
    stage = one_each()

    stage.give(xid(119))
    stage.give(ev.EngineStopped("p0", stage.replica().incarnation))

    assert phases(stage) == {"p0": Phase.UNPLACED, "p1": Phase.READY}
    assert "XID 119 (GSP RPC timeout)" in str(stage.replica().cause)
    assert violations(stage.core.state, stage.now) == []


def test_it_comes_back_once_the_driver_asks_for_nothing_and_the_hold_is_over() -> None:
    stage = one_each()
    stage.give(xid(119))
    stage.give(ev.EngineStopped("p0", stage.replica().incarnation))
    stage.give(asks(1))
    stage.pass_ms(100_000)
    stage.give(asks(1))
    while_asked = stage.replica().phase
    stage.give(WELL)

    assert while_asked is Phase.UNPLACED
    assert stage.replica().phase is Phase.VERIFYING
    assert [effect.uuid for effect in only(stage.done, ef.NoteRecovery)] == ["GPU-0"]


def test_the_driver_is_given_time_to_say_what_it_wants() -> None:
    stage = one_each()
    stage.give(xid(119))
    stage.pass_ms(HOLD_FIRST_MS - 1)
    stage.give(WELL)
    too_early = dict(stage.core.state.devices.withheld)
    stage.pass_ms(1)
    stage.give(WELL)

    assert "GPU-0" in too_early
    assert stage.core.state.devices.withheld == {}


def test_a_hold_ends_by_an_inventory_and_never_by_the_clock_alone() -> None:
    stage = one_each()
    stage.give(xid(119))
    stage.pass_ms(3_600_000)

    assert "GPU-0" in stage.core.state.devices.withheld


@pytest.mark.orch("ORCH-3053")
def test_repeats_are_held_longer_and_longer() -> None:
    assert [hold_ms(strikes, is_blind=False) for strikes in (1, 2, 3)] == [5_000, 10_000, 20_000]
    assert hold_ms(1, is_blind=True) == HOLD_BLIND_MS
    assert hold_ms(50, is_blind=False) == HOLD_MAX_MS


def test_a_second_reset_within_ten_minutes_holds_twice_as_long() -> None:
    stage = one_each()
    stage.give(xid(119))
    stage.pass_ms(HOLD_FIRST_MS)
    stage.give(WELL)
    stage.give(xid(62))
    stage.pass_ms(HOLD_FIRST_MS)
    stage.give(WELL)
    is_held = "GPU-0" in stage.core.state.devices.withheld
    stage.pass_ms(HOLD_FIRST_MS)
    stage.give(WELL)

    assert is_held
    assert stage.core.state.devices.withheld == {}


def test_a_driver_that_never_says_what_it_wants_is_given_longer() -> None:
    stage = serving(make_plan("p0"), inventory=BOTH)
    stage.give(xid(119))
    stage.pass_ms(HOLD_FIRST_MS)
    stage.give(BOTH)
    is_held = "GPU-0" in stage.core.state.devices.withheld
    stage.pass_ms(HOLD_BLIND_MS)
    stage.give(BOTH)

    assert is_held
    assert stage.core.state.devices.withheld == {}


@pytest.mark.parametrize("fault", [79, 151])
def test_a_gpu_that_fell_off_the_bus_must_be_gone_and_come_back(fault: int) -> None:
    stage = one_each()
    stage.give(xid(fault))
    stage.pass_ms(3_600_000)
    stage.give(WELL)
    still = dict(stage.core.state.devices.withheld)
    stage.give(ev.DevicesSeen((WELL1,), (("GPU-0", "GPU 0 fell off the bus"),)))
    stage.give(WELL)

    assert "GPU-0" in still
    assert stage.core.state.devices.withheld == {}


def test_a_recovery_action_alone_withholds_and_its_end_releases() -> None:
    stage = one_each()
    stage.give(asks(2))
    cause = stage.replica().cause
    stage.give(ev.EngineStopped("p0", stage.replica().incarnation))
    stage.give(WELL)

    assert "a reboot of the host" in str(cause)
    assert stage.replica().phase is Phase.VERIFYING


def test_a_link_fault_concerns_pools_that_span_gpus_alone() -> None:
    stage = serving(make_plan("p0"), make_plan("p1", devices=(0, 1)))

    stage.give(xid(74))

    assert phases(stage) == {"p0": Phase.READY, "p1": Phase.STOPPING}


def test_a_graver_fault_beside_that_of_a_link_concerns_all() -> None:
    stage = serving(make_plan("p0"), make_plan("p1", devices=(0, 1)))
    stage.give(xid(74))

    stage.give(xid(119))

    assert phases(stage) == {"p0": Phase.STOPPING, "p1": Phase.STOPPING}


def test_a_lesser_fault_does_not_lift_a_graver_one() -> None:
    stage = one_each()
    stage.give(xid(79))
    stage.give(xid(74))
    stage.give(ev.EngineStopped("p0", stage.replica().incarnation))
    stage.pass_ms(60_000)
    stage.give(WELL)

    assert stage.replica().phase is Phase.UNPLACED
    assert stage.core.state.faults.holds["GPU-0"].is_of_link is False


def test_a_fault_of_a_gpu_befalls_its_mig_instances() -> None:
    whole = structs.replace(WELL0, is_divided=True)
    stage = serving(make_plan("p0", devices=("MIG-0",)), inventory=ev.DevicesSeen((whole, PART)))

    stage.give(xid(95))

    assert stage.replica().phase is Phase.STOPPING


# Masks


@pytest.mark.orch("ORCH-3011")
def test_a_mask_may_name_a_mig_instance_and_an_index_never_means_one() -> None:
    stage = make_stage(make_plan("p0", devices=("MIG-0",)), make_plan("p1", devices=(0,)))
    stage.give(ev.DevicesSeen((structs.replace(WELL0, is_divided=True), PART)))

    assert stage.replica("p0").devices == ("MIG-0",)
    assert "divided into MIG instances" in str(stage.replica("p1").cause)


def test_a_gpu_that_is_listed_but_lost_says_why() -> None:
    stage = one_each()

    stage.give(ev.DevicesSeen((WELL1,), (("GPU-0", "GPU 0 fell off the bus"),)))

    assert stage.replica().cause == "GPU 0 fell off the bus"


# Memory and the driver


def test_a_gpu_that_lost_memory_has_its_workers_measured_again() -> None:
    stage = one_each()

    stage.give(ev.DevicesSeen((structs.replace(WELL0, vram_total_mib=40_000), WELL1)))

    assert stopped(stage) == ["p0"]
    assert "40000 MiB left of 81920" in str(stage.replica().cause)


def test_memory_that_is_counted_a_little_otherwise_is_no_loss() -> None:
    stage = one_each()

    stage.give(ev.DevicesSeen((structs.replace(WELL0, vram_total_mib=81_900), WELL1)))

    assert stopped(stage) == []


@pytest.mark.orch("ORCH-3053")
def test_a_reset_of_the_driver_is_counted_and_idle_workers_are_probed() -> None:
    stage = one_each()
    stage.give(xid(63))
    stage.give(ev.DriverWasReset(("GPU-0",), "the driver was loaded anew"))

    assert stage.core.state.faults.driver_resets == 1
    assert [probe.pool_id for probe in only(stage.done, ef.ProbeEngine)] == ["p0"]
    assert stage.core.state.faults.flags == {}


def test_notices_change_nothing_but_the_count() -> None:
    stage = one_each()
    for fault in (37, 44, 66, 63, 92, 121, 172, GpuAlarm.ECC_SINGLE_BIT):
        stage.give(xid(fault))
    stage.pass_ms(60_000)

    assert stopped(stage) == []
    assert len(only(stage.done, ef.NoteFault)) == 8
    assert stage.core.state.faults.flags == {"GPU-0": ("reset pending", "degraded memory")}


def test_a_worker_that_stops_for_a_halt_is_left_alone_by_faults() -> None:
    stage = one_each()
    stage.give(ev.HaltRequested(0))

    stage.give(xid(119))
    stage.give(NONE)

    assert stopped(stage) == ["p0", "p1"]


def test_a_gpu_that_is_withheld_for_its_link_is_withheld_from_all_once_the_driver_asks_for_a_reset() -> None:
    stage = serving(make_plan("p0"))
    stage.give(xid(74))
    assert stage.replica().phase is Phase.READY

    stage.give(asks(1))

    assert stage.replica().phase is Phase.STOPPING
