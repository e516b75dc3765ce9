"""Leases of GPUs: pools give way, their memory is seen free, and they come back, whatever happens to the holder."""

from typing import Any

import pytest
from msgspec import structs

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.intent import Intent, LeaseNote
from supervisor.core.invariants import violations
from supervisor.core.lifecycle import Phase
from supervisor.core.plan import HostPlan, PoolPlan
from supervisor.wire.codes import Code, Reason
from tests.core.builders import (
    BOTH,
    GPU0,
    Stage,
    error_of,
    make_plan,
    make_stage,
    make_task,
    only,
    ready_stage,
    started,
)
from tests.core.rollout_stage import rollout_stage

HOUR_MS = 3_600_000.0


def a_lease(lease_id: str = "l1", *devices: str, owner: str = "uid:0", expires_ms: float = HOUR_MS) -> LeaseNote:
    return LeaseNote(
        lease_id=lease_id, devices=devices or ("GPU-0",), owner=owner, purpose="train", expires_ms=expires_ms
    )


def take(stage: Stage, note: LeaseNote | None = None, *, drain_ms: float = 30_000) -> list[ef.Effect]:
    return stage.give(ev.LeaseRequested("ticket", note or a_lease(), drain_ms))


def two_pools() -> Stage:
    """One pool on each GPU, each with a model of its own."""
    other = make_plan("p1", devices=(1,), model_ref="n", model_refs=frozenset({"n"}), model_digest="sha256:" + "b" * 64)
    return ready_stage(make_plan("p0"), other)


def hold(stage: Stage) -> None:
    """Take GPU 0 of an idle pool, as far as it can be used."""
    take(stage)
    stage.give(ev.EngineStopped("p0", stage.replica().incarnation))
    stage.give(ev.ReleaseVerified("l1", None))


def phase_of(stage: Stage, lease_id: str = "l1") -> str:
    return stage.core.state.leases[lease_id].phase


def test_an_idle_pool_on_the_gpu_is_stopped_and_the_others_serve_on() -> None:
    stage = two_pools()

    effects = take(stage)

    assert [effect.pool_id for effect in only(effects, ef.StopEngine)] == ["p0"]
    assert stage.replica("p1").is_serving
    assert phase_of(stage) == "stopping"


def test_what_runs_may_end_before_the_worker_is_stopped() -> None:
    stage = two_pools()
    stage.submit(make_task("t"))

    effects = take(stage)
    later = stage.finish("t")

    assert only(effects, ef.StopEngine) == []
    assert [effect.pool_id for effect in only(later, ef.StopEngine)] == ["p0"]


def test_nothing_new_is_dispatched_to_a_pool_that_gives_way() -> None:
    stage = two_pools()
    stage.submit(make_task("t"), make_task("next"))
    take(stage)

    effects = stage.finish("t")

    assert started(effects) == []


def test_what_runs_past_the_drain_ends_as_worker_reset() -> None:
    stage = two_pools()
    stage.submit(make_task("t"))
    take(stage, drain_ms=5_000)

    aborts = stage.pass_ms(5_000)
    stage.answer_aborts(aborts)

    assert error_of(stage.outcome("t")).code is Code.WORKER_RESET
    assert phase_of(stage) == "stopping"


def test_the_lease_is_held_only_once_the_memory_was_seen_free() -> None:
    stage = two_pools()
    take(stage)

    effects = stage.give(ev.EngineStopped("p0", stage.replica().incarnation))
    before = phase_of(stage)
    stage.give(ev.ReleaseVerified("l1", None))

    assert [effect.devices for effect in only(effects, ef.VerifyRelease)] == [("GPU-0",)]
    assert (before, phase_of(stage)) == ("verifying", "held")
    assert stage.replica().phase is Phase.UNPLACED


def test_memory_that_does_not_come_free_ends_the_lease_and_the_pool_comes_back() -> None:
    stage = two_pools()
    take(stage)
    stage.give(ev.EngineStopped("p0", stage.replica().incarnation))

    effects = stage.give(ev.ReleaseVerified("l1", "process 77 still holds 900 MiB"))

    assert stage.core.state.leases == {}
    assert [effect.pool_id for effect in only(effects, ef.VerifyModel)] == ["p0"]
    assert only(effects, ef.NoteLease)[-1].cause == "process 77 still holds 900 MiB"


@pytest.mark.parametrize("end", [ev.LeaseEnded("l1", "its holder is gone"), None], ids=["its holder", "its time"])
def test_a_lease_that_ends_brings_its_pool_back(end: ev.LeaseEnded | None) -> None:
    stage = two_pools()
    hold(stage)

    effects = stage.pass_ms(HOUR_MS) if end is None else stage.give(end)

    assert [effect.pool_id for effect in only(effects, ef.VerifyModel)] == ["p0"]
    assert stage.replica().leased_to is None
    assert violations(stage.core.state, stage.now) == []


def test_tasks_for_a_leased_pool_are_told_so() -> None:
    stage = two_pools()
    stage.submit(make_task("running"), make_task("waiting"))
    take(stage)
    stage.finish("running")

    stage.give(ev.EngineStopped("p0", stage.replica().incarnation))
    refused = stage.refusal(make_task("late"))

    assert error_of(stage.outcome("waiting")).reason is Reason.LEASED
    assert (refused.code, refused.reason) == (Code.POOL_UNAVAILABLE, Reason.LEASED)


def test_a_gpu_is_leased_once() -> None:
    stage = two_pools()
    hold(stage)

    (answer,) = only(take(stage, a_lease("l2", "GPU-1", "GPU-0")), ef.AnswerRefused)

    assert (answer.refused.code, answer.refused.reason) == (Code.ADMISSION_REJECT, Reason.BUSY)
    assert answer.refused.retry_after_ms == HOUR_MS
    assert stage.replica("p1").is_serving


def test_a_gpu_that_is_not_there_is_not_leased() -> None:
    stage = two_pools()

    (answer,) = only(take(stage, a_lease("l1", "GPU-9")), ef.AnswerRefused)

    assert (answer.refused.code, answer.refused.reason) == (Code.INVALID_PARAMS, Reason.DEVICE)


def test_an_owner_may_lease_no_more_than_its_quota() -> None:
    stage = ready_stage(make_plan("p0"), host=HostPlan(lease_devices_max=1))
    hold(stage)

    (own,) = only(take(stage, a_lease("l2", "GPU-1")), ef.AnswerRefused)
    others = take(stage, a_lease("l3", "GPU-1", owner="uid:1000"))

    assert (own.refused.code, own.refused.reason) == (Code.ADMISSION_REJECT, Reason.QUOTA)
    assert (own.refused.is_retriable, own.refused.retry_after_ms) == (True, HOUR_MS)
    assert len(only(others, ef.AnswerLease)) == 1


def test_a_lease_of_more_than_the_quota_is_never_to_be_tried_again() -> None:
    stage = ready_stage(make_plan("p0"), host=HostPlan(lease_devices_max=1))

    (answer,) = only(take(stage, a_lease("l1", "GPU-0", "GPU-1")), ef.AnswerRefused)

    assert answer.refused.reason is Reason.QUOTA
    assert (answer.refused.is_retriable, answer.refused.retry_after_ms) == (False, None)


@pytest.mark.parametrize("is_held", [True, False])
def test_a_lease_survives_a_restart_of_the_daemon(is_held: bool) -> None:
    before = two_pools()
    take(before)
    if is_held:
        before.give(ev.EngineStopped("p0", before.replica().incarnation))
        before.give(ev.ReleaseVerified("l1", None))
    wishes = only(before.done, ef.CommitIntent)[-1].intent
    after = make_stage(make_plan("p0"))

    after.give(ev.IntentRestored(wishes, 500.0))
    after.give(BOTH)

    assert after.replica().phase is Phase.UNPLACED
    assert only(after.done, ef.VerifyModel) == []
    assert phase_of(after) == ("held" if is_held else "verifying")
    assert after.core.state.leases["l1"].note.expires_ms == HOUR_MS + 500


def test_a_lease_whose_time_was_over_while_no_daemon_ran_ends_at_once() -> None:
    stage = make_stage(make_plan("p0"))
    kept = LeaseNote(lease_id="l1", devices=("GPU-0",), owner="uid:0", purpose="", expires_ms=1_000.0, is_held=True)
    stage.give(ev.IntentRestored(Intent(leases=(kept,)), -2_000.0))

    stage.pass_ms(1)
    effects = stage.give(BOTH)

    assert stage.core.state.leases == {}
    assert len(only(effects, ef.VerifyModel)) == 1


def test_a_lost_gpu_under_a_lease_does_not_end_it_and_its_return_starts_nothing() -> None:
    stage = two_pools()
    hold(stage)

    stage.give(ev.DevicesSeen((BOTH.devices[1],)))
    effects = stage.give(BOTH)

    assert phase_of(stage) == "held"
    assert only(effects, ef.VerifyModel) == []


def test_the_daemon_can_stop_while_a_lease_is_held() -> None:
    stage = two_pools()
    hold(stage)

    stage.give(ev.HaltRequested(1_000))
    effects = stage.give(ev.EngineStopped("p1", stage.replica("p1").incarnation))

    assert len(only(effects, ef.CompleteHalt)) == 1
    assert "l1" in {note.lease_id for note in only(stage.done, ef.CommitIntent)[-1].intent.leases}


def test_a_worker_that_takes_over_while_its_gpu_is_drained_gives_way_too() -> None:
    stage = rollout_stage(make_plan(slots=2, is_batch_invariant=True))
    stage.submit(make_task("old"))
    take(stage)
    stage.begin(slots=2, is_batch_invariant=True)
    stage.come_up("p0+2")

    refused = stage.refusal(make_task("new", strict=False))
    stops = stage.finish("old")
    verified = stage.stopped("p0")

    assert refused.reason is Reason.LEASED
    assert {effect.pool_id for effect in only(stops, ef.StopEngine)} == {"p0", "p0+2"}
    assert only(verified, ef.VerifyRelease) == []
    assert len(only(stage.stopped("p0+2"), ef.VerifyRelease)) == 1


def test_a_lease_of_a_divided_gpu_takes_its_instances_and_drains_their_pools() -> None:
    part = ev.DeviceSeen("MIG-0", 0, "H100 1g", 10_240, parent="GPU-0")
    stage = make_stage(make_plan(devices=("MIG-0",)))
    stage.give(ev.DevicesSeen((structs.replace(GPU0, is_divided=True), part)))
    stage.serve()
    stage.submit(make_task("t"))

    effects = take(stage)
    (second,) = only(take(stage, a_lease("l2", "MIG-0")), ef.AnswerRefused)

    assert only(effects, ef.AbortRun) == []
    assert phase_of(stage) == "draining"
    assert second.refused.reason is Reason.BUSY


def test_a_worker_on_two_leased_gpus_serves_again_only_once_both_are_back() -> None:
    stage = make_stage(make_plan(devices=(0, 1), slots=2, is_batch_invariant=True))
    stage.give(BOTH)
    stage.serve()
    stage.submit(make_task("a"), make_task("b"))
    take(stage, a_lease("l1", "GPU-0"))
    take(stage, a_lease("l2", "GPU-1"))

    stage.give(ev.LeaseEnded("l2", "it was given back"))
    stage.refusal(make_task("c"))

    assert started(stage.finish("a")) == []
    assert stage.replica().leased_to == "l1"


def test_leases_one_after_another_open_no_breaker() -> None:
    stage = ready_stage()
    for number in range(6):
        take(stage, a_lease(f"l{number}"))
        stage.give(ev.EngineStopped("p0", stage.replica().incarnation))
        stage.give(ev.ReleaseVerified(f"l{number}", None))
        stage.pass_ms(10_000)
        stage.give(ev.LeaseEnded(f"l{number}", "it was given back"))
        stage.serve()

    assert stage.replica().is_serving


def test_no_lease_begins_while_the_daemon_stops() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"))
    stage.give(ev.HaltRequested(30_000))

    (answer,) = only(take(stage), ef.AnswerRefused)

    assert answer.refused.reason is Reason.SHUTDOWN
    assert stage.core.state.leases == {}


def drained_to(pool: str) -> LeaseNote:
    return structs.replace(a_lease(), drain_to=pool)


def test_the_pool_that_is_named_serves_in_place_of_the_one_that_gives_way_and_for_as_long() -> None:
    stage = two_pools()
    stage.submit(make_task("running"), make_task("waiting"))
    take(stage, drained_to("p1"))
    meanwhile = started(stage.submit(make_task("new")))
    stage.finish("running")
    moved = started(stage.give(ev.EngineStopped("p0", stage.replica().incarnation)) + stage.finish("new"))
    stage.finish("waiting")
    stage.give(ev.LeaseEnded("l1", "it was given back"))
    stage.serve()

    after = started(stage.submit(make_task("after")))

    assert meanwhile == [("new", "p1")]
    assert moved == [("waiting", "p1")]
    assert after == [("after", "p0")]


def test_who_names_a_model_by_its_digest_gets_that_model_or_none() -> None:
    plan = make_plan("p0", model_refs=frozenset({"m", "sha256:" + "a" * 64}))
    other = make_plan("p1", devices=(1,), model_ref="n", model_refs=frozenset({"n"}), model_digest="sha256:" + "b" * 64)
    stage = ready_stage(plan, other)
    take(stage, drained_to("p1"))

    refused = stage.refusal(make_task("t", model_ref="sha256:" + "a" * 64))

    assert refused.reason is Reason.LEASED


@pytest.mark.parametrize("pool", ["nowhere", "p0"])
def test_a_lease_drains_only_to_a_pool_that_stays(pool: str) -> None:
    stage = two_pools()

    (answer,) = only(take(stage, drained_to(pool)), ef.AnswerRefused)

    assert (answer.refused.code, answer.refused.reason) == (Code.INVALID_PARAMS, Reason.FIELD)


def test_a_worker_that_gives_way_to_two_leases_serves_again_only_after_both() -> None:
    stage = ready_stage(make_plan(devices=(0, 1)))
    stage.submit(make_task("runs"), make_task("waits"))
    take(stage, a_lease("l1", "GPU-0"))
    take(stage, a_lease("l2", "GPU-1"))
    stage.give(ev.LeaseEnded("l2", "it was given back"))

    assert not stage.replica().can_run
    stage.give(ev.LeaseEnded("l1", "it was given back"))
    assert stage.replica().can_run


def third_pool(**given: Any) -> PoolPlan:
    """A pool of a third model, on the GPU of the first one."""
    return make_plan("p2", model_ref="x", model_refs=frozenset({"x"}), model_digest="sha256:" + "c" * 64, **given)


def test_a_pool_that_is_added_on_a_gpu_that_is_lent_says_so() -> None:
    stage = two_pools()
    hold(stage)

    stage.give(ev.PoolsChanged(ticket="t", generation=2, added=(third_pool(),)))

    assert stage.refusal(make_task("t", model_ref="x")).reason is Reason.LEASED


def test_the_pool_that_serves_in_place_of_others_serves_one_that_is_added_later_too() -> None:
    stage = two_pools()
    take(stage, structs.replace(a_lease(), drain_to="p1"))
    stage.give(ev.EngineStopped("p0", stage.replica().incarnation))
    stage.give(ev.ReleaseVerified("l1", None))

    stage.give(ev.PoolsChanged(ticket="t", generation=2, added=(third_pool(),)))

    assert started(stage.submit(make_task("t", model_ref="x"))) == [("t", "p1")]


@pytest.mark.parametrize("is_held", [True, False])
def test_what_waits_after_a_restart_goes_to_the_pool_that_serves_in_place_of_the_one_that_is_lent(
    *, is_held: bool
) -> None:
    note = structs.replace(a_lease(), drain_to="p1", is_held=is_held)
    stage = make_stage(*(replica.plan for replica in two_pools().core.state.replicas.values()))
    stage.give(ev.IntentRestored(Intent(leases=(note,)), 0.0))
    stage.give(ev.TasksRestored((make_task("t"),), ()))

    stage.give(BOTH)
    stage.serve("p1")

    assert started(stage.done) == [("t", "p1")]
