"""Memory is measured before a worker is spawned: what it needs, what others were promised, what stays free."""

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.lifecycle import Phase
from supervisor.core.memory_invariants import memory_violations
from supervisor.core.memory_need import DeviceNeed, need_fitting, reserve_mib
from tests.core.builders import DIGEST, Stage, make_plan, make_stage, only

GPU = "GPU-0"
TOTAL = 24_576


def a_stage(*pool_ids: str) -> Stage:
    """Pools on GPU 0 whose models are verified: each waits for the look at the memory."""
    stage = make_stage(*(make_plan(pool_id, devices=(0,)) for pool_id in pool_ids))
    see(stage, TOTAL)
    for pool_id in pool_ids:
        stage.give(ev.ModelVerified(pool_id, stage.replica(pool_id).incarnation, DIGEST))
    return stage


def see(stage: Stage, free_mib: int) -> list[ef.Effect]:
    return stage.give(ev.DevicesSeen((ev.DeviceSeen(GPU, 0, "fake", TOTAL, free_mib),)))


def measure(
    stage: Stage, pool_id: str, *, need: int, free: int, host_need: int = 0, host_free: int = 64_000, **room: object
) -> list[ef.Effect]:
    rooms = (ev.DeviceRoom(GPU, TOTAL, free, need, **room),)  # type: ignore[arg-type]
    incarnation = stage.replica(pool_id).incarnation
    return stage.give(
        ev.RoomMeasured(
            pool_id, incarnation, rooms, host_free, host_need, 64_000, recipe=f"r-{pool_id}", cells_per_slot=4096
        )
    )


@pytest.mark.parametrize(("need", "reserve"), [(1_000, 512), (5_120, 512), (5_130, 513), (20_000, 2_000)])
def test_the_reserve_is_a_tenth_and_never_less_than_512_mib(need: int, reserve: int) -> None:
    assert reserve_mib(need) == reserve


@pytest.mark.parametrize("room", [400, 600, 5_632, 5_633, 24_576])
def test_what_fits_a_room_is_the_most_that_fits_with_its_reserve(room: int) -> None:
    need = need_fitting(room)

    assert need == 0 or need + reserve_mib(need) <= room
    assert need + 2 + reserve_mib(need + 2) > room


@pytest.mark.orch("ORCH-3003")
def test_a_need_that_fits_with_its_reserve_is_spawned_and_one_mib_less_is_not() -> None:
    roomy, short = a_stage("p0"), a_stage("p0")

    assert only(measure(roomy, "p0", need=10_000, free=11_000), ef.SpawnEngine)
    assert not only(measure(short, "p0", need=10_000, free=10_999), ef.SpawnEngine)
    assert short.replica().phase is Phase.BACKOFF


@pytest.mark.orch("ORCH-3003")
def test_the_cause_names_need_free_reserve_and_who_holds_the_rest() -> None:
    stage = a_stage("p0", "p1")
    measure(stage, "p1", need=6_000, free=24_000)
    stage.give(ev.EngineSpawned("p1", stage.replica("p1").incarnation, 77, 9_000))

    holders = (ev.Holder(77, 5_900), ev.Holder(4242, 9_000, "python3"))
    measure(stage, "p0", need=10_000, free=9_000, holders=holders)

    cause = stage.replica().cause or ""
    for part in (
        "9000 MiB free",
        "11000 MiB (10000 and a reserve of 1000)",
        "pool p1 holds 5900 MiB",
        "pid 4242 (python3)",
    ):
        assert part in cause, cause


def test_two_pools_that_start_at_once_do_not_both_get_the_same_memory() -> None:
    stage = a_stage("p0", "p1")

    first = measure(stage, "p0", need=12_000, free=24_000)
    second = measure(stage, "p1", need=12_000, free=24_000)

    assert only(first, ef.SpawnEngine)
    assert not only(second, ef.SpawnEngine)
    assert "p0 is about to take 12000 MiB" in (stage.replica("p1").cause or "")


def test_what_a_worker_has_taken_of_its_claim_is_not_counted_twice() -> None:
    stage = a_stage("p0", "p1")
    measure(stage, "p0", need=10_000, free=24_000)
    stage.give(ev.EngineSpawned("p0", stage.replica().incarnation, 77, 9_000))

    effects = measure(stage, "p1", need=13_000, free=14_500, holders=(ev.Holder(77, 9_500),))

    assert not only(effects, ef.SpawnEngine)  # 14,500 less the 500 that p0 has still to take
    stage.pass_ms(2_000)
    stage.give(ev.ModelVerified("p1", stage.replica("p1").incarnation, DIGEST))
    effects = measure(stage, "p1", need=13_000, free=14_300, holders=(ev.Holder(77, 10_000),))
    assert only(effects, ef.SpawnEngine)


def test_a_claim_stands_for_a_look_that_was_begun_before_the_other_was_ready() -> None:
    stage = a_stage("p0", "p1")
    measure(stage, "p0", need=12_000, free=24_000)
    stage.now = 5_000
    inc = stage.replica().incarnation
    stage.give(ev.EngineSpawned("p0", inc, 77, 9_000))
    stage.give(ev.EngineHealthy("p0", inc))
    stage.give(ev.EngineInspected("p0", inc, "b1", 1, 4096))
    stage.give(ev.EngineTested("p0", inc))
    assert stage.replica().phase is Phase.READY

    old_look = measure(stage, "p1", need=12_000, free=24_000)

    assert not only(old_look, ef.SpawnEngine)


@pytest.mark.orch("ORCH-3003")
def test_it_starts_by_itself_once_enough_is_seen_free_and_not_before() -> None:
    stage = a_stage("p0")
    measure(stage, "p0", need=10_000, free=2_000)

    assert not only(see(stage, 10_752), ef.VerifyModel)
    assert only(see(stage, 11_008), ef.VerifyModel)


def test_without_news_of_the_devices_it_measures_again_after_its_backoff() -> None:
    stage = a_stage("p0")
    measure(stage, "p0", need=10_000, free=2_000)

    assert only(stage.pass_ms(1_500), ef.VerifyModel)


def test_waiting_for_memory_never_opens_the_restart_breaker() -> None:
    stage = a_stage("p0")

    for _ in range(12):
        measure(stage, "p0", need=10_000, free=2_000)
        assert stage.replica().phase is Phase.BACKOFF
        stage.pass_ms(120_000)
        stage.give(ev.ModelVerified("p0", stage.replica().incarnation, DIGEST))

    assert stage.replica().phase is Phase.MEASURING


def test_too_little_memory_of_the_host_keeps_it_from_starting_too() -> None:
    stage = a_stage("p0")

    measure(stage, "p0", need=1_000, free=20_000, host_need=64_001)

    assert "the host has 64000 MiB free, 64001 MiB are needed" in (stage.replica().cause or "")


@pytest.mark.orch("ORCH-3003")
def test_one_that_only_the_host_is_too_small_for_starts_once_the_host_has_enough_and_not_before() -> None:
    stage = a_stage("p0")
    measure(stage, "p0", need=1_000, free=20_000, host_need=9_000, host_free=8_000)

    assert not only(see(stage, TOTAL), ef.VerifyModel)  # its GPU never was the trouble
    assert not only(stage.give(ev.HostSeen(8_960)), ef.VerifyModel)
    assert only(stage.give(ev.HostSeen(9_216)), ef.VerifyModel)


def test_one_that_the_host_is_too_small_for_measures_again_after_its_backoff() -> None:
    stage = a_stage("p0")
    measure(stage, "p0", need=1_000, free=20_000, host_need=9_000, host_free=8_000)

    assert only(stage.pass_ms(1_500), ef.VerifyModel)


def test_one_that_is_short_of_both_is_not_woken_by_half_of_it() -> None:
    stage = a_stage("p0")
    measure(stage, "p0", need=10_000, free=2_000, host_need=9_000, host_free=8_000)

    woken = [*see(stage, TOTAL), *stage.give(ev.HostSeen(60_000))]

    assert not only(woken, ef.VerifyModel)


def test_a_worker_that_stops_after_a_look_was_begun_still_has_what_it_was_promised() -> None:
    stage = a_stage("p0", "p1")
    measure(stage, "p0", need=12_000, free=24_000)
    inc = stage.replica().incarnation
    stage.give(ev.EngineSpawned("p0", inc, 77, 9_000))
    stage.now = 10
    stage.give(ev.StepFailed("p0", inc, "it is not healthy"))
    assert stage.replica().phase is Phase.STOPPING

    assert not only(measure(stage, "p1", need=12_000, free=24_000), ef.SpawnEngine)
    stage.give(ev.EngineStopped("p0", inc))
    assert stage.replica().claims == ()


@pytest.mark.orch("ORCH-3052")
def test_a_share_larger_than_its_device_says_what_would_fit() -> None:
    stage = a_stage("p0")
    parts = DeviceNeed(weights_mib=8_000, kv_mib=20_000, buffers_mib=500, overhead_mib=450)

    measure(stage, "p0", need=parts.sum_mib, free=24_000, parts=parts)

    replica = stage.replica()
    assert replica.is_too_big
    assert "24576 MiB in all" in (replica.cause or "")
    assert "a ctx of 2560 would fit" in (replica.cause or "")  # 13,391 of 20,000 MiB of KV, in whole pages
    assert not only(see(stage, TOTAL), ef.VerifyModel)


def test_an_engine_that_takes_a_share_of_the_device_keeps_its_reserve_outside_of_it() -> None:
    stage = a_stage("p0")
    parts = DeviceNeed(10_000, 4_000, 0, 1_000, total_share=0.9)

    effects = measure(stage, "p0", need=parts.on(TOTAL), free=22_200, parts=parts)

    assert parts.on(TOTAL) == 22_118
    assert only(effects, ef.SpawnEngine)


def test_a_device_that_was_promised_twice_is_noticed() -> None:
    stage = a_stage("p0", "p1")
    measure(stage, "p0", need=12_000, free=24_000)
    assert memory_violations(stage.core.state) == []

    measure(stage, "p1", need=12_000, free=60_000)  # no such device: more is free than it has

    assert memory_violations(stage.core.state) == []
    stage.replica("p1").claims = ((GPU, 13_000),)
    assert [sentence[:5] for sentence in memory_violations(stage.core.state)] == [GPU]


def test_who_has_no_process_and_was_promised_memory_is_noticed() -> None:
    stage = a_stage("p0")

    stage.replica().claims = ((GPU, 1_000),)

    assert "was promised" in memory_violations(stage.core.state)[0]
