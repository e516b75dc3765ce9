"""Which workers are alike, which set a task waits in, and what happens when a worker changes its version."""

import pytest
from msgspec import structs

from supervisor.core import events as ev
from supervisor.core.invariants import violations
from supervisor.core.replicas import ReplicaSet
from supervisor.core.state import move_waiting
from supervisor.core.tasks import Waiting
from supervisor.core.waitlist import Waitlist
from supervisor.wire.codes import Engine, QueueOrder
from tests.core.builders import BOTH, Stage, make_plan, make_stage, make_task, ready_stage, started


@pytest.mark.orch("ORCH-3007")
def test_pools_of_one_key_are_one_set_with_one_queue() -> None:
    stage = ready_stage(make_plan("p0"), make_plan("p1"))

    assert stage.home("p0") is stage.home("p1")
    assert [member.pool_id for member in stage.home().serving] == ["p0", "p1"]


@pytest.mark.orch("ORCH-3007", "ORCH-3046")
@pytest.mark.parametrize(
    "other",
    [
        {"engine": Engine.VLLM},
        {"model_digest": "sha256:other"},
        {"quant": "q4"},
        {"ctx": 2048},
        {"sampler_profile_version": "v2"},
    ],
)
def test_whatever_decides_the_bytes_of_a_stream_tells_sets_apart(other: dict[str, object]) -> None:
    stage = ready_stage(make_plan("p0"), structs.replace(make_plan("p1"), **other))

    assert stage.home("p0") is not stage.home("p1")


@pytest.mark.orch("ORCH-3046", "ORCH-3032")
def test_workers_of_two_versions_never_share_a_set() -> None:
    stage = make_stage(make_plan("p0"), make_plan("p1"))
    stage.give(BOTH)
    forming = stage.home("p0") is stage.home("p1")
    stage.serve("p0", version="b100")
    stage.serve("p1", version="b101")

    assert forming
    assert stage.home("p0") is not stage.home("p1")
    assert [stage.home(pool).key.engine_version for pool in ("p0", "p1")] == ["b100", "b101"]


@pytest.mark.orch("ORCH-3046", "ORCH-3047")
def test_a_waiting_task_stays_with_the_version_that_it_was_admitted_to() -> None:
    stage = make_stage(make_plan("p0"), make_plan("p1"))
    stage.give(BOTH)
    stage.serve("p0", version="b100")
    stage.submit(make_task("a"), make_task("b"))

    stage.serve("p1", version="b101")

    assert started(stage.done) == [("a", "p0")]
    assert started(stage.finish("a")) == [("b", "p0")]


def test_restored_tasks_follow_the_first_worker_that_knows_its_version() -> None:
    stage = make_stage(make_plan("p0"), make_plan("p1"))
    stage.give(ev.TasksRestored((make_task("a"), make_task("b")), ()))
    stage.give(BOTH)

    stage.serve("p1")
    stage.serve("p0")

    assert started(stage.done) == [("a", "p1"), ("b", "p0")]


def test_restored_tasks_do_not_follow_a_drained_worker_that_is_ready_first() -> None:
    stage = make_stage(make_plan("p0"), make_plan("p1"))
    stage.give(ev.TasksRestored((make_task("a"),), ()))
    stage.give(BOTH)
    stage.give(ev.DrainRequested("p1", 0))
    stage.pass_ms(1)

    stage.serve("p1")
    sound = violations(stage.core.state, stage.now)
    stage.serve("p0")

    assert sound == []
    assert started(stage.done) == [("a", "p0")]


def upgrade(stage: Stage, version: str) -> None:
    """The worker is lost, and comes back as another version."""
    stage.lose()
    stage.pass_ms(3_000)
    stage.serve(version=version)


@pytest.mark.orch("ORCH-3046")
def test_what_waits_moves_on_with_the_last_worker_of_its_version() -> None:
    stage = ready_stage()
    stage.submit(*(make_task(name) for name in ("a", "b", "c")))

    upgrade(stage, "b200")

    assert {task.job_id: task.set_id for task in stage.home().waiting} == {
        name: stage.home().set_id for name in ("b", "c")
    }
    assert started(stage.done)[-1] == ("a", "p0")
    assert violations(stage.core.state, stage.now) == []


@pytest.mark.orch("ORCH-3046")
@pytest.mark.parametrize("order", QueueOrder)
def test_what_lost_its_worker_is_still_at_the_front_after_the_move(order: QueueOrder) -> None:
    stage = ready_stage(make_plan("p0", slots=2, queue_order=order))
    stage.submit(*(make_task(name, strict=False, tenant=name) for name in ("a", "b", "c", "d")))
    stage.lose()
    stage.pass_ms(3_000)
    before = [task.job_id for task in stage.home().waiting]

    stage.serve(version="b200")

    assert sorted(before[:2]) == ["a", "b"]
    assert [name for name, _ in started(stage.done)[-2:]] == before[:2]
    stage.submit(make_task("late", tenant="late"))
    assert [task.job_id for task in stage.home().waiting] == ["c", "d", "late"]


@pytest.mark.orch("ORCH-3046")
@pytest.mark.parametrize("order", QueueOrder)
def test_what_lost_its_worker_goes_before_those_that_wait_where_it_moves_to(order: QueueOrder) -> None:
    old, new = make_plan("p0", queue_order=order), make_plan("p1", devices=(1,), queue_order=order)
    stage = ready_stage(old, new)
    source, target = stage.home(), replace_waiting(stage, "there", order)
    for name, attempt in (("r1", 1), ("r2", 1)):
        source.waiting.push_front(make_task(name, attempt=attempt, tenant=name))
    source.waiting.push(make_task("new"))
    source.waiting.push(make_task("restored", attempt=1))

    move_waiting(stage.core.state, source, target)

    assert [task.job_id for task in target.waiting] == ["r2", "r1", "there", "new", "restored"]


def replace_waiting(stage: Stage, name: str, order: QueueOrder) -> ReplicaSet:
    """Another set in which one task waits."""
    other = ReplicaSet(stage.home().key, "other", waiting=Waitlist(order))
    other.waiting.push(make_task(name))
    return other


def test_a_record_on_its_way_to_the_disk_moves_on_too() -> None:
    stage = ready_stage()
    stage.give(ev.TaskSubmitted(make_task("t")))
    upgrade(stage, "b200")

    effects = stage.give(ev.AcceptsCommitted(("t",)))

    assert started(effects) == [("t", "p0")]
    assert violations(stage.core.state, stage.now) == []


def test_what_waits_does_not_stay_behind_with_workers_that_have_no_hope() -> None:
    stage = ready_stage(make_plan("p0"), make_plan("p1", devices=(1,)))
    stage.submit(*(make_task(name) for name in ("a", "b", "c")))
    stage.answer_aborts(stage.give(ev.DevicesSeen(BOTH.devices[:1])))
    stage.give(ev.EngineStopped("p1", 2))

    upgrade(stage, "b200")

    assert {type(stage.task(name).phase) for name in ("a", "b", "c")} != {Waiting}
    assert stage.home("p1").waiting.head(0) is None
    assert violations(stage.core.state, stage.now) == []


def test_a_worker_that_returns_to_its_old_version_finds_its_set_again() -> None:
    stage = ready_stage()
    first = stage.home()
    upgrade(stage, "b200")
    upgrade(stage, "b100")

    assert stage.home() is first
    assert started(stage.submit(make_task("t"))) == [("t", "p0")]


@pytest.mark.orch("ORCH-3046")
@pytest.mark.parametrize(("one", "other"), [("", "sha256:a"), ("sha256:a", "sha256:b"), ("sha256:a", "sha256:a")])
def test_workers_that_loaded_other_files_beside_their_model_never_share_a_set(one: str, other: str) -> None:
    stage = make_stage(make_plan("p0"), make_plan("p1"))
    stage.give(BOTH)
    for pool_id, beside in (("p0", one), ("p1", other)):
        stage.serve(pool_id, beside=beside)

    homes = [stage.home(pool_id) for pool_id in ("p0", "p1")]

    assert (homes[0] is homes[1]) == (one == other)
    assert homes[0].kind == homes[1].kind
    assert violations(stage.core.state, stage.now) == []
