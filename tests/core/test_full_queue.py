"""A full queue: its bounds in tasks, classes and bytes, and the three policies with their victims."""

from typing import Any

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.invariants import violations
from supervisor.core.tasks import Ending, Waiting
from supervisor.wire.codes import Code, FullPolicy, Reason
from tests.core.builders import BOTH, Stage, error_of, make_plan, make_stage, make_task, only, ready_stage

REJECT, DROP, SHED = FullPolicy.REJECT, FullPolicy.DROP_LRU, FullPolicy.SHED_LOW_PRIORITY


def full(policy: FullPolicy, *waiting: str, **bounds: Any) -> Stage:
    """One task runs; the others wait in the given order. A name with b is a batch task."""
    stage = ready_stage(make_plan(full_policy=policy, **bounds))
    stage.submit(make_task("running"))
    for name in waiting:
        stage.pass_ms(1)
        stage.submit(make_task(name, batch=name.startswith("b"), admitted_ms=stage.now))
    return stage


def newcomer(stage: Stage, name: str, **given: Any) -> list[str]:
    """Submit one more, which must be admitted; gives the tasks that were dropped for it."""
    effects = stage.give(ev.TaskSubmitted(make_task(name, batch=name.startswith("b"), admitted_ms=stage.now, **given)))
    assert only(effects, ef.CommitAccept)
    assert violations(stage.core.state, stage.now) == []
    return [effect.task.job_id for effect in only(effects, ef.CommitFinish)]


@pytest.mark.orch("ORCH-3004", "ORCH-3005", "ORCH-2007")
def test_reject_refuses_the_newcomer() -> None:
    stage = full(REJECT, "i1", "i2", queue_capacity=2)

    refused = stage.refusal(make_task("i3"))

    assert (refused.code, refused.reason, refused.policy) == (Code.ADMISSION_REJECT, Reason.QUEUE_FULL, "reject")
    assert refused.retry_after_ms


@pytest.mark.orch("ORCH-3004")
def test_a_record_on_its_way_to_the_disk_takes_room() -> None:
    stage = full(REJECT, "i1", queue_capacity=2)
    stage.give(ev.TaskSubmitted(make_task("i2")))

    assert stage.refusal(make_task("i3")).reason is Reason.QUEUE_FULL


@pytest.mark.orch("ORCH-3004")
def test_room_comes_back_when_the_head_is_dispatched() -> None:
    stage = full(REJECT, "i1", "i2", queue_capacity=2)
    stage.finish("running")

    assert newcomer(stage, "i3") == []


@pytest.mark.orch("ORCH-3004")
def test_a_class_has_a_bound_of_its_own() -> None:
    stage = full(REJECT, "b1", queue_capacity=5, batch=1)

    assert stage.refusal(make_task("b2", batch=True)).reason is Reason.QUEUE_FULL
    assert newcomer(stage, "i1") == []


@pytest.mark.orch("ORCH-3004")
def test_the_pool_has_a_bound_over_both_classes() -> None:
    stage = full(REJECT, "b1", "i1", queue_capacity=2)

    assert stage.refusal(make_task("i2")).reason is Reason.QUEUE_FULL


@pytest.mark.orch("ORCH-3004")
def test_the_queue_is_bounded_in_bytes() -> None:
    stage = full(REJECT, "i1", queue_capacity=100, queue_bytes_max=1_200)

    assert stage.refusal(make_task("large", size_bytes=701)).reason is Reason.QUEUE_BYTES
    assert newcomer(stage, "i2", size_bytes=700) == []
    assert stage.refusal(make_task("i3", size_bytes=1)).reason is Reason.QUEUE_BYTES


@pytest.mark.orch("ORCH-3004")
@pytest.mark.parametrize("policy", [REJECT, DROP, SHED])
def test_a_task_that_is_larger_than_the_whole_queue_is_refused_for_good(policy: FullPolicy) -> None:
    stage = full(policy, "b1", queue_bytes_max=1_200)

    refused = stage.refusal(make_task("huge", size_bytes=1_201))

    assert (refused.code, refused.reason) == (Code.ADMISSION_REJECT, Reason.QUEUE_BYTES)
    assert not refused.is_retriable
    assert refused.retry_after_ms
    assert len(stage.home().promises) == 0
    assert isinstance(stage.task("b1").phase, Waiting)


@pytest.mark.orch("ORCH-3004")
def test_a_task_that_two_pools_could_hold_together_may_come_back_while_they_load() -> None:
    stage = make_stage(make_plan("a", queue_bytes_max=1_000), make_plan("b", queue_bytes_max=1_000))
    stage.give(BOTH)
    stage.serve("a")

    refused = stage.refusal(make_task("large", size_bytes=1_500))

    assert (refused.reason, refused.is_retriable) == (Reason.QUEUE_BYTES, True)
    stage.serve("b")
    stage.submit(make_task("large", size_bytes=1_500))


@pytest.mark.orch("ORCH-3005")
@pytest.mark.parametrize("name", ["i3", "b3"])
def test_drop_lru_drops_the_oldest_of_any_class(name: str) -> None:
    stage = full(DROP, "b1", "i2", queue_capacity=2)

    dropped = newcomer(stage, name)

    assert dropped == ["b1"]
    error = error_of(stage.outcome("b1"))
    assert (error.code, error.policy, error.is_retriable) == (Code.QUEUE_FULL_DROP_LRU, "drop-lru", True)
    assert stage.core.state.counts.dropped == 1


@pytest.mark.orch("ORCH-3005")
def test_drop_lru_drops_the_oldest_of_the_class_that_is_full() -> None:
    stage = full(DROP, "b1", "i1", "i2", queue_capacity=10, interactive=2)

    assert newcomer(stage, "i3") == ["i1"]


@pytest.mark.orch("ORCH-3005")
def test_drop_lru_refuses_only_where_nothing_waits() -> None:
    stage = full(DROP, queue_capacity=1)
    stage.give(ev.TaskSubmitted(make_task("being-written")))

    refused = stage.refusal(make_task("i1"))

    assert (refused.code, refused.reason) == (Code.QUEUE_FULL_DROP_LRU, Reason.QUEUE_FULL)


@pytest.mark.orch("ORCH-3005")
def test_one_victim_must_be_enough() -> None:
    stage = full(DROP, "i1", "i2", queue_capacity=100, queue_bytes_max=1_000)

    refused = stage.refusal(make_task("large", size_bytes=501))

    assert (refused.code, refused.reason) == (Code.QUEUE_FULL_DROP_LRU, Reason.QUEUE_BYTES)
    assert newcomer(stage, "i3", size_bytes=500) == ["i1"]


@pytest.mark.orch("ORCH-3005")
def test_shed_drops_the_newest_of_a_lower_class() -> None:
    stage = full(SHED, "b1", "b2", "i1", queue_capacity=3)

    dropped = newcomer(stage, "i2")

    assert dropped == ["b2"]
    error = error_of(stage.outcome("b2"))
    assert (error.code, error.policy) == (Code.ADMISSION_REJECT, "shed-low-priority")


@pytest.mark.orch("ORCH-3005")
@pytest.mark.parametrize(("waiting", "name"), [(("i1", "i2"), "i3"), (("b1", "b2"), "b3"), (("i1", "i2"), "b1")])
def test_shed_never_drops_an_equal_or_a_higher_class(waiting: tuple[str, ...], name: str) -> None:
    stage = full(SHED, *waiting, queue_capacity=2)

    refused = stage.refusal(make_task(name, batch=name.startswith("b")))

    assert (refused.code, refused.policy) == (Code.ADMISSION_REJECT, "shed-low-priority")
    assert all(isinstance(stage.task(each).phase, Waiting) for each in waiting)


@pytest.mark.orch("ORCH-3005")
def test_shed_makes_no_room_in_a_class_that_is_full_itself() -> None:
    stage = full(SHED, "b1", "i1", queue_capacity=10, interactive=1)

    assert stage.refusal(make_task("i2")).code is Code.ADMISSION_REJECT
    assert isinstance(stage.task("b1").phase, Waiting)


@pytest.mark.orch("ORCH-3005")
@pytest.mark.parametrize("policy", [DROP, SHED])
def test_a_task_that_was_dispatched_once_is_never_a_victim(policy: FullPolicy) -> None:
    stage = ready_stage(*(make_plan(pool, full_policy=policy, queue_capacity=1) for pool in ("p0", "p1")))
    stage.submit(make_task("b-again", batch=True), make_task("busy"))
    stage.lose("p0")
    stage.submit(make_task("b-new", batch=True, admitted_ms=5))

    assert newcomer(stage, "i1") == ["b-new"]
    assert stage.refusal(make_task("b-next", batch=True)).reason is Reason.QUEUE_FULL


@pytest.mark.parametrize(("policy", "before"), [(DROP, 1), (SHED, 1)])
def test_the_position_of_a_newcomer_does_not_count_its_victim(policy: FullPolicy, before: int) -> None:
    stage = full(policy, "b1", "i1", queue_capacity=2)
    newcomer(stage, "i2")

    assert stage.task("i2").queue_position == before


def test_a_victim_is_over_and_its_end_is_written() -> None:
    stage = full(DROP, "i1", queue_capacity=1)

    newcomer(stage, "i2")

    assert isinstance(stage.task("i1").phase, Ending)
    assert stage.outcome("i1").is_dropped
