"""Reload side by side: the old revision serves until the new one can, and nobody who asks notices (ORCH-3031)."""

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.lifecycle import Phase
from supervisor.core.plan import HostPlan
from supervisor.core.replicas import Wanted
from supervisor.core.revisions import Role, RolloutKind, RolloutOutcome
from supervisor.wire.codes import Code, Reason
from tests.core.builders import DIGEST, GPU0, error_of, make_plan, make_task, only, started
from tests.core.rollout_stage import DRAIN_MS, NEW_DIGEST, refusals, rollout_stage

pytestmark = pytest.mark.orch("ORCH-3031")
KEPT_MS = HostPlan().keep_previous_ms


def test_until_the_new_revision_is_ready_the_old_one_takes_all_tasks() -> None:
    stage = rollout_stage()
    stage.begin()
    stage.load("p0+2")

    assert started(stage.submit(make_task("t"))) == [("t", "p0")]


def test_once_it_is_ready_the_alias_leads_to_the_new_revision() -> None:
    stage = rollout_stage()
    stage.roll()

    assert started(stage.submit(make_task("t"))) == [("t", "p0+2")]
    assert (stage.role("p0"), stage.role("p0+2")) == (Role.STANDBY, Role.CURRENT)


def test_what_runs_at_the_switch_ends_where_it_runs() -> None:
    stage = rollout_stage()
    stage.submit(make_task("t"))
    stage.roll()

    assert only(stage.done, ef.AbortRun) == []
    stage.finish("t")
    assert stage.outcome("t").error is None


def test_what_waits_at_the_switch_goes_to_the_new_revision_in_its_order() -> None:
    stage = rollout_stage(make_plan(slots=1))
    stage.submit(make_task("runs"), *(make_task(name) for name in "abc"))
    stage.begin(slots=2, is_batch_invariant=True)
    stage.come_up("p0+2")

    assert started(stage.done)[-2:] == [("a", "p0+2"), ("b", "p0+2")]
    assert [task.job_id for task in stage.home("p0+2").waiting] == ["c"]


def test_a_task_that_is_being_written_at_the_switch_waits_for_the_new_revision() -> None:
    stage = rollout_stage()
    stage.give(ev.TaskSubmitted(make_task("t")))
    stage.roll()

    assert started(stage.give(ev.AcceptsCommitted(("t",)))) == [("t", "p0+2")]


def test_a_task_that_asks_for_the_old_model_by_its_digest_still_gets_it() -> None:
    stage = rollout_stage(make_plan(model_refs=frozenset({"m", DIGEST})))
    stage.submit(make_task("runs"), make_task("t", model_ref=DIGEST))
    stage.roll()

    assert started(stage.finish("runs")) == [("t", "p0")]


def test_a_task_that_the_new_revision_cannot_hold_is_served_by_the_old_one() -> None:
    stage = rollout_stage()
    stage.submit(make_task("runs"), make_task("long", ctx=4096))
    stage.begin(ctx=2048)
    stage.serve("p0+2", ctx=2048)

    assert started(stage.finish("runs")) == [("long", "p0")]


@pytest.mark.orch("ORCH-3047")
def test_a_strict_task_that_delivered_tokens_goes_on_with_the_old_revision() -> None:
    stage = rollout_stage()
    stage.submit(make_task("t"))
    stage.roll()
    effects = stage.give(ev.EngineExited("p0", stage.replica("p0").incarnation, "crash", "it crashed"))
    stage.answer_aborts(effects, emitted=5)
    stage.stopped("p0")
    stage.pass_ms(3_000)

    stage.serve("p0")

    assert started(stage.done)[-1] == ("t", "p0")


def test_a_task_whose_stream_names_the_old_revision_is_run_again_there_while_that_is_loaded() -> None:
    stage = rollout_stage()
    stage.submit(make_task("t"))
    (asked,) = only(
        stage.give(ev.RunFailed(stage.run_of("t"), "engine", "cut", 0, is_worker_lost=True)), ef.ConfirmSlotIdle
    )
    stage.roll()

    effects = stage.give(ev.SlotsSeenIdle("p0", asked.incarnation, (asked.run_id,)))

    assert started(effects) == [("t", "p0")]


def test_a_task_without_tokens_whose_old_worker_dies_goes_to_the_new_revision() -> None:
    stage = rollout_stage()
    stage.submit(make_task("t"))
    stage.roll()
    effects = stage.give(ev.EngineExited("p0", stage.replica("p0").incarnation, "crash", "it crashed"))

    assert started(stage.answer_aborts(effects)) == [("t", "p0+2")]


def test_a_revision_of_the_same_kind_leaves_its_tasks_to_its_successor() -> None:
    stage = rollout_stage()
    stage.submit(make_task("runs"), make_task("t"))
    stage.begin(model_digest=DIGEST, wall_ms=90_000)
    stage.come_up("p0+2")

    assert started(stage.done)[-1] == ("t", "p0+2")


def test_siblings_go_on_with_what_waits_in_their_set() -> None:
    stage = rollout_stage(make_plan("p0"), make_plan("p1"))
    stage.submit(make_task("a"), make_task("b"), make_task("t"))
    stage.roll()

    assert started(stage.finish("b")) == [("t", "p1")]


@pytest.mark.parametrize("kind", [RolloutKind.RELOAD, RolloutKind.CONFIG, RolloutKind.CANARY, RolloutKind.ROLLBACK])
def test_a_second_rollout_is_refused_while_one_is_under_way(kind: RolloutKind) -> None:
    stage = rollout_stage()
    stage.begin()

    assert refusals(stage.begin(kind)) == [Reason.BUSY]


def test_a_rollout_of_a_pool_that_is_not_there_is_refused() -> None:
    stage = rollout_stage()

    effects = stage.give(
        ev.RolloutRequested(ticket="t", pool_id="p9", plan=make_plan("p9"), kind=RolloutKind.RELOAD, drain_ms=0.0)
    )

    assert refusals(effects) == [Reason.NOT_FOUND]


def test_a_new_revision_that_fails_twice_is_given_up_and_the_old_one_never_touched() -> None:
    stage = rollout_stage()
    stage.submit(make_task("t"))
    stage.begin()
    stage.fail("p0+2")
    stage.pass_ms(3_000)
    stage.fail("p0+2")

    assert (stage.phase(), stage.pool().current) == (None, "p0")
    assert stage.pool().history[-1].outcome is RolloutOutcome.FAILED
    assert stage.pool().history[-1].cause == "the digest is wrong"
    assert "p0+2" not in stage.core.state.replicas
    assert ef.ForgetWorker("p0+2") in stage.done
    assert stage.replica("p0").phase is Phase.READY


def test_one_failed_start_is_tried_again() -> None:
    stage = rollout_stage()
    stage.begin()
    stage.fail("p0+2")
    stage.pass_ms(3_000)
    stage.come_up("p0+2")

    assert stage.pool().current == "p0+2"


def test_a_new_revision_whose_gpu_is_not_there_is_given_up_at_once() -> None:
    stage = rollout_stage()
    stage.begin(devices=(7,))

    assert (stage.phase(), stage.pool().current) == (None, "p0")


def test_numbers_of_revisions_are_never_given_twice() -> None:
    stage = rollout_stage()
    stage.begin(devices=(7,))
    stage.roll()

    assert stage.pool().current == "p0+3"


def test_an_operator_can_abort_what_is_on_its_way() -> None:
    stage = rollout_stage()
    stage.begin()
    stage.load("p0+2")
    stage.give(ev.RolloutAborted("t", "p0", "not today"))
    stage.stopped("p0+2")

    assert stage.pool().history[-1].outcome is RolloutOutcome.ABORTED
    assert list(stage.core.state.replicas) == ["p0"]


def test_the_former_revision_is_stopped_and_forgotten_once_it_is_not_kept_any_more() -> None:
    stage = rollout_stage()
    stage.roll()
    stage.pass_ms(KEPT_MS - 1)
    assert stage.role("p0") is Role.STANDBY
    stage.pass_ms(1)

    assert ef.ForgetWorker("p0") in stage.stopped("p0")
    assert list(stage.core.state.replicas) == ["p0+2"]


def test_a_former_revision_that_still_runs_a_task_ends_it_before_it_is_stopped() -> None:
    stage = rollout_stage(make_plan(wall_ms=10_000_000))
    stage.submit(make_task("t"))
    stage.roll()
    effects = stage.pass_ms(KEPT_MS)
    assert only(effects, ef.StopEngine) == []

    assert only(stage.finish("t"), ef.StopEngine) != []


def test_past_its_drain_a_retiring_worker_resets_what_it_runs() -> None:
    stage = rollout_stage(make_plan(wall_ms=10_000_000))
    stage.submit(make_task("t"))
    stage.roll()
    effects = stage.pass_ms(KEPT_MS + DRAIN_MS)
    stage.answer_aborts(effects)

    assert error_of(stage.outcome("t")).code is Code.WORKER_RESET
    assert stage.replica("p0").phase is Phase.STOPPING


def test_at_most_one_former_revision_is_kept() -> None:
    stage = rollout_stage()
    stage.roll()
    stage.roll()

    assert (stage.role("p0"), stage.role("p0+2"), stage.role("p0+3")) == (Role.RETIRING, Role.STANDBY, Role.CURRENT)


def test_a_former_revision_gives_its_memory_back_when_any_worker_is_short() -> None:
    stage = rollout_stage(make_plan("p0"), make_plan("p1", model_ref="x", model_refs=frozenset({"x"})))
    stage.roll()
    stage.lose("p1")
    stage.pass_ms(3_000)
    stage.be_short("p1")
    assert stage.replica("p0").phase is Phase.STOPPING

    effects = stage.stopped("p0")

    assert [effect.pool_id for effect in only(effects, ef.VerifyModel)] == ["p1"]


def test_a_drained_pool_stays_drained_with_its_new_revision() -> None:
    stage = rollout_stage()
    stage.give(ev.DrainRequested("p0", 60_000))
    stage.roll()

    assert stage.replica("p0+2").wanted is Wanted.DRAIN
    stage.give(ev.ResumeRequested("p0"))
    assert started(stage.submit(make_task("t"))) == [("t", "p0+2")]


def test_sessions_go_on_cold_with_the_new_revision() -> None:
    stage = rollout_stage()
    stage.submit(make_task("one", strict=False, session=b"s"))
    stage.finish("one")
    stage.roll()
    (run,) = only(stage.submit(make_task("two", strict=False, session=b"s")), ef.StartRun)

    assert (run.pool_id, run.kv_warmth) == ("p0+2", False)


def test_a_hundred_reloads_under_load_refuse_and_reset_nothing() -> None:
    stage = rollout_stage(make_plan(wall_ms=10_000_000))
    for turn in range(100):
        names = [f"t{turn}-{place}" for place in range(4)]
        stage.submit(*(make_task(name, strict=place % 2 == 0) for place, name in enumerate(names)))
        key = f"p0+{turn + 2}"
        stage.begin(model_digest="sha256:" + f"{turn:064d}")
        stage.come_up(key)
        while live := [job_id for job_id in stage.core.state.runs.values() if job_id in names]:
            stage.finish(live[0])
        for gone in [key for key, each in stage.core.state.replicas.items() if each.phase is Phase.STOPPING]:
            stage.stopped(gone)
        stage.settle()

    assert only(stage.done, ef.AnswerRefused) == []
    ends = only(stage.done, ef.CommitFinish)
    assert (len(ends), {effect.outcome.error for effect in ends}) == (400, {None})
    assert len(stage.core.state.replicas) == 2
    assert len(stage.core.state.sets) <= 3


def test_the_digest_and_the_revision_that_serve_are_those_that_a_run_is_told() -> None:
    stage = rollout_stage()
    stage.roll()
    (run,) = only(stage.submit(make_task("t")), ef.StartRun)

    assert (run.model_digest, run.replica_id) == (NEW_DIGEST, f"p0+2/{stage.replica('p0+2').incarnation}")


def test_a_switch_takes_what_waits_to_the_new_worker_where_only_a_lost_one_is_left_behind() -> None:
    stage = rollout_stage(make_plan("p0"), make_plan("p1", devices=(1,)))
    stage.give(ev.DevicesSeen((GPU0,)))
    stage.stopped("p1")
    stage.submit(make_task("runs"), make_task("waits"))
    stage.begin()

    stage.come_up("p0+2")

    assert started(stage.done)[-1] == ("waits", "p0+2")


def test_a_switch_leaves_what_waits_to_a_sibling_that_still_serves() -> None:
    stage = rollout_stage(make_plan("p0"), make_plan("p1", devices=(1,)))
    stage.submit(make_task("one"), make_task("two"), make_task("waits"))
    stage.begin()

    stage.come_up("p0+2")

    assert stage.task("waits").set_id == stage.replica("p1").set_id


def test_a_turn_that_ends_on_a_worker_kept_for_a_rollback_leaves_no_kv_behind() -> None:
    stage = rollout_stage()
    stage.submit(make_task("turn", strict=False, session=b"s" * 16))
    stage.roll()

    stage.finish("turn")

    assert stage.core.state.sessions["tenant", b"s" * 16].seat is None


def test_a_turn_that_begins_on_a_worker_kept_for_a_rollback_leaves_no_kv_behind() -> None:
    stage = rollout_stage(make_plan(model_refs=frozenset({"m", DIGEST})))
    turn = make_task("turn", strict=False, session=b"s" * 16, model_ref=DIGEST)
    stage.submit(make_task("runs"), turn)
    stage.roll()
    assert started(stage.finish("runs")) == [("turn", "p0")]

    stage.finish("turn")

    assert stage.core.state.sessions["tenant", b"s" * 16].seat is None
