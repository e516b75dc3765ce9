"""What moves, and when: never before Ready, late, in order, to the least loaded, strict ones alone."""

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.invariants import violations
from supervisor.core.tasks import Running, Waiting
from supervisor.wire.codes import Workload
from tests.core.builders import BOTH, DIGEST, VERSION, make_plan, make_stage, make_task, only, ready_stage, started


@pytest.mark.orch("ORCH-3010", "ORCH-3002")
def test_nothing_is_dispatched_before_the_last_step_to_ready() -> None:
    stage = make_stage()
    stage.give(ev.TasksRestored((make_task("t"),), ()))
    stage.give(BOTH)
    inc = stage.load()
    stage.give(ev.EngineHealthy("p0", inc))
    stage.give(ev.EngineInspected("p0", inc, VERSION, 1, 4096))
    before = started(stage.done)

    effects = stage.give(ev.EngineTested("p0", inc))

    assert before == []
    assert started(effects) == [("t", "p0")]


@pytest.mark.orch("ORCH-3032")
def test_a_run_carries_what_the_started_frame_says() -> None:
    stage = ready_stage()
    stage.now = 250

    (run,) = only(stage.submit(make_task("t", admitted_ms=100)), ef.StartRun)

    assert run == ef.StartRun(stage.task("t"), 1, "p0", "p0/1", 1, VERSION, DIGEST, 5_000, None)
    assert stage.task("t").queue_time_ms == 150


def test_each_attempt_is_noted_on_disk_before_it_starts() -> None:
    effects = ready_stage().submit(make_task("t"))

    assert effects[-2:] == [ef.CommitAttempt("t", 1), *only(effects, ef.StartRun)]


@pytest.mark.orch("ORCH-3019")
def test_a_task_is_bound_to_a_worker_only_when_a_slot_is_free() -> None:
    stage = ready_stage(make_plan("p0"), make_plan("p1"))
    stage.submit(*(make_task(name) for name in ("a", "b", "c", "d")))
    first = started(stage.done)

    second = started(stage.finish("b"))

    assert first == [("a", "p0"), ("b", "p1")]
    assert second == [("c", "p1")]
    assert isinstance(stage.task("d").phase, Waiting)


@pytest.mark.orch("ORCH-3019")
def test_all_slots_of_a_worker_are_used_and_no_more() -> None:
    stage = ready_stage(make_plan(slots=3))

    effects = stage.submit(*(make_task(f"t{n}", strict=False) for n in range(5)))

    assert started(effects) == [("t0", "p0"), ("t1", "p0"), ("t2", "p0")]


@pytest.mark.orch("ORCH-3019")
def test_slots_are_as_many_as_the_engine_reports() -> None:
    stage = ready_stage(make_plan(slots=1), slots=2)

    assert len(started(stage.submit(*(make_task(f"t{n}", strict=False) for n in range(3))))) == 2


@pytest.mark.orch("ORCH-3008")
def test_the_least_loaded_by_share_of_its_slots_then_the_first_by_name() -> None:
    stage = ready_stage(make_plan("a", slots=2), make_plan("b", slots=4))

    effects = stage.submit(*(make_task(f"t{n}", strict=False) for n in range(6)))

    assert [pool for _, pool in started(effects)] == ["a", "b", "b", "a", "b", "b"]


@pytest.mark.orch("ORCH-3001", "ORCH-3011")
def test_a_worker_is_spawned_on_the_devices_of_its_mask_and_on_no_other() -> None:
    stage = make_stage(make_plan("a", devices=(1,)), make_plan("b", devices=(1, 0)), make_plan("c", devices=("GPU-0",)))
    stage.give(BOTH)
    for pool in ("a", "b", "c"):
        stage.load(pool)

    spawns = {effect.pool_id: effect.devices for effect in only(stage.done, ef.SpawnEngine)}

    assert spawns == {"a": ("GPU-1",), "b": ("GPU-1", "GPU-0"), "c": ("GPU-0",)}


@pytest.mark.orch("ORCH-3011")
def test_a_task_never_leaves_the_sets_that_serve_its_model() -> None:
    stage = ready_stage(
        make_plan("a"), make_plan("b", model_ref="n", model_refs=frozenset({"n"}), model_digest="sha256:n")
    )

    effects = stage.submit(make_task("t0"), make_task("t1"), make_task("n0", model_ref="n"))

    assert started(effects) == [("t0", "a"), ("n0", "b")]


def test_a_drained_worker_gets_nothing() -> None:
    stage = ready_stage(make_plan("p0"), make_plan("p1"))
    stage.give(ev.DrainRequested("p0", 60_000))

    assert started(stage.submit(make_task("t0"), make_task("t1"))) == [("t0", "p1")]


@pytest.mark.orch("ORCH-3045")
def test_a_strict_task_has_a_worker_with_several_slots_to_itself() -> None:
    stage = ready_stage(make_plan(slots=2))

    alone = started(stage.submit(make_task("strict"), make_task("other", strict=False)))

    assert alone == [("strict", "p0")]
    assert started(stage.finish("strict")) == [("other", "p0")]


@pytest.mark.orch("ORCH-3045")
def test_the_head_is_never_passed_by_while_it_waits_for_an_empty_worker() -> None:
    stage = ready_stage(make_plan(slots=2))
    stage.submit(make_task("shared", strict=False))

    stage.submit(make_task("strict"), make_task("late", strict=False))
    held = started(stage.done)

    assert held == [("shared", "p0")]
    assert started(stage.finish("shared")) == [("strict", "p0")]


def test_strict_tasks_share_a_batch_invariant_engine() -> None:
    stage = ready_stage(make_plan(slots=2, is_batch_invariant=True))

    assert len(started(stage.submit(make_task("a"), make_task("b")))) == 2


@pytest.mark.orch("ORCH-3045")
def test_a_strict_task_waits_until_every_slot_was_seen_idle() -> None:
    stage = ready_stage(make_plan(slots=2))
    stage.submit(make_task("gone", strict=False))
    run = stage.run_of("gone")
    stage.answer_aborts(stage.give(ev.CancelRequested("c", "gone")))
    stage.submit(make_task("strict"))
    held = isinstance(stage.task("strict").phase, Waiting)

    effects = stage.give(ev.SlotsSeenIdle("p0", 1, (run,)))

    assert held
    assert started(effects) == [("strict", "p0")]


@pytest.mark.orch("ORCH-3004")
def test_tasks_are_dispatched_in_the_order_in_which_their_records_were_written() -> None:
    stage = ready_stage()
    for name in ("a", "b", "c"):
        stage.give(ev.TaskSubmitted(make_task(name)))
    effects = stage.give(ev.AcceptsCommitted(("a", "b", "c")))
    order = started(effects) + started(stage.finish("a")) + started(stage.finish("b"))

    assert [name for name, _ in order] == ["a", "b", "c"]


def test_an_accepted_task_runs_until_its_engine_is_done() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"))
    phase = stage.task("t").phase
    (end,) = only(stage.finish("t", tokens=3), ef.CommitFinish)

    assert isinstance(phase, Running)
    assert (end.outcome.finish_reason, end.outcome.tokens_in, end.outcome.tokens_out) == ("stop", 7, 3)
    assert stage.core.state.runs == {}


def test_workloads_of_one_model_go_to_the_pools_that_do_them() -> None:
    both = frozenset({Workload.COMPLETION, Workload.EMBEDDING})
    stage = ready_stage(make_plan("a"), make_plan("b", ctx=2048, workloads=both))

    assert started(stage.submit(make_task("t", workload=Workload.EMBEDDING))) == [("t", "b")]


@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_when_the_task_that_holds_the_others_back_goes_they_move_at_once(how: str) -> None:
    stage = ready_stage(make_plan(slots=2))
    stage.submit(make_task("shared", strict=False))
    stage.submit(make_task("strict", deadline_at_ms=500), make_task("late", strict=False))

    effects = stage.give(ev.CancelRequested("c", "strict")) if how == "cancel" else stage.pass_ms(500)

    assert started(effects) == [("late", "p0")]


def test_a_head_that_waits_for_an_empty_worker_is_not_passed_by_a_batch_task_that_grows_old() -> None:
    stage = ready_stage(make_plan(slots=2))
    stage.submit(make_task("shared", strict=False), make_task("strict"), make_task("b", strict=False, batch=True))
    stage.pass_ms(40_000)

    effects = stage.submit(make_task("more", strict=False))

    assert started(effects) == []
    assert started(stage.finish("shared")) == [("strict", "p0")]
    assert violations(stage.core.state, stage.now) == []


@pytest.mark.orch("ORCH-3046")
def test_a_task_goes_to_the_version_that_has_a_free_slot() -> None:
    stage = make_stage(make_plan("p0"), make_plan("p1"))
    stage.give(BOTH)
    stage.serve("p0", version="b100")
    stage.serve("p1", version="b101")

    effects = stage.submit(make_task("t0"), make_task("t1"))

    assert sorted(pool for _, pool in started(effects)) == ["p0", "p1"]
