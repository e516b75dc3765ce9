"""Pools that come, go and change their bounds while the daemon runs; and what a restart must not forget (ORCH-3031)."""

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.intent import Intent
from supervisor.core.lifecycle import Phase
from supervisor.core.plan import HostPlan, TenantPlan
from supervisor.core.revisions import RolloutKind
from supervisor.wire.codes import Code, Reason
from tests.core.builders import GPU0, error_of, make_plan, make_task, only, started
from tests.core.rollout_stage import DRAIN_MS, RolloutStage, refusals, rollout_stage, share

pytestmark = pytest.mark.orch("ORCH-3031")
OTHER = make_plan("p1", model_ref="x", model_refs=frozenset({"x"}), model_digest="sha256:" + "c" * 64)


def change(stage: RolloutStage, **given: object) -> list[ef.Effect]:
    return stage.give(ev.PoolsChanged(ticket="c", generation=2, drain_ms=DRAIN_MS, **given))  # type: ignore[arg-type]


def test_a_pool_that_is_added_comes_up_and_serves() -> None:
    stage = rollout_stage()
    effects = change(stage, added=(OTHER,))
    assert only(effects, ef.AnswerRollout) == [ef.AnswerRollout("c", "", 2)]

    stage.serve("p1")

    assert started(stage.submit(make_task("t", model_ref="x"))) == [("t", "p1")]


def test_an_equal_pool_that_is_added_joins_the_set() -> None:
    stage = rollout_stage()
    change(stage, added=(make_plan("p1"),))
    stage.serve("p1")

    assert [member.pool_id for member in stage.home("p0").members] == ["p0", "p1"]


def test_a_pool_that_is_removed_ends_what_it_has_and_is_forgotten() -> None:
    stage = rollout_stage(make_plan("p0"), OTHER)
    stage.submit(make_task("runs", model_ref="x"), make_task("waits", model_ref="x"))
    change(stage, removed=("p1",))
    assert stage.refusal(make_task("late", model_ref="x")).reason is Reason.MODEL

    assert started(stage.finish("runs")) == [("waits", "p1")]
    stage.finish("waits")
    assert ef.ForgetWorker("p1") in stage.stopped("p1")
    assert list(stage.core.state.pools) == ["p0"]


def test_what_waits_for_a_removed_pool_past_its_drain_ends() -> None:
    stage = rollout_stage(make_plan("p0"), OTHER)
    stage.submit(make_task("runs", model_ref="x"), make_task("waits", model_ref="x"))
    change(stage, removed=("p1",))
    stage.answer_aborts(stage.pass_ms(DRAIN_MS))

    assert error_of(stage.outcome("waits")).code is Code.POOL_UNAVAILABLE
    assert error_of(stage.outcome("runs")).code is Code.WORKER_RESET


def test_what_waits_for_a_removed_pool_goes_to_another_set_of_its_alias() -> None:
    stage = rollout_stage(make_plan("p0"), make_plan("p1", model_digest="sha256:" + "c" * 64))
    stage.submit(*(make_task(name) for name in "abcd"))
    waits = [task.job_id for task in stage.home("p1").waiting]
    assert waits
    change(stage, removed=("p1",))

    assert set(waits) <= {task.job_id for task in stage.home("p0").waiting}


def test_what_waits_for_a_pool_that_lost_its_gpu_goes_to_another_set_of_its_alias() -> None:
    stage = rollout_stage(make_plan("p0"), make_plan("p1", ctx=2048, devices=(1,)))
    stage.submit(make_task("a"), make_task("b"), make_task("waits"))
    assert [task.job_id for task in stage.home("p1").waiting] == ["waits"]
    stage.answer_aborts(stage.give(ev.DevicesSeen((GPU0,))))
    stage.stopped("p1")

    effects = [*stage.finish("b"), *stage.finish("a")]

    assert started(effects) == [("a", "p0"), ("waits", "p0")]


def test_a_pool_that_is_removed_in_the_middle_of_a_rollout_takes_it_along() -> None:
    stage = rollout_stage(make_plan("p0"), OTHER)
    stage.begin(RolloutKind.CANARY, canary=share(5_000))
    stage.come_up("p0+2")
    change(stage, removed=("p0",))
    for key in ("p0", "p0+2"):
        stage.stopped(key)

    assert list(stage.core.state.replicas) == ["p1"]
    assert stage.core.state.splits == {}


def test_bounds_change_in_place_and_the_worker_goes_on() -> None:
    stage = rollout_stage(make_plan(queue_capacity=1))
    stage.submit(make_task("runs"), make_task("waits"))
    assert stage.refusal(make_task("full")).code is Code.ADMISSION_REJECT
    change(stage, tuned=(make_plan(queue_capacity=2),))
    stage.submit(make_task("t"))

    assert stage.replica().phase is Phase.READY
    assert len(stage.home().waiting) == 2


def test_quotas_change_for_what_comes() -> None:
    stage = rollout_stage()
    stage.submit(make_task("a"), make_task("b"))
    change(stage, host=HostPlan(tenants={"tenant": TenantPlan(concurrent_jobs=1)}))

    assert stage.refusal(make_task("c")).reason is Reason.QUOTA


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"removed": ("p9",)}, Reason.NOT_FOUND),
        ({"added": (make_plan("p0"),)}, Reason.BUSY),
        ({"tuned": (make_plan("p9"),)}, Reason.NOT_FOUND),
    ],
)
def test_a_change_that_does_not_fit_is_refused_whole(given: dict[str, object], reason: Reason) -> None:
    stage = rollout_stage(make_plan("p0"), OTHER)

    assert refusals(change(stage, **{"removed": ("p1",), **given})) == [reason]
    assert list(stage.core.state.pools) == ["p0", "p1"]


def test_a_daemon_that_stops_takes_no_change_and_starts_nothing() -> None:
    stage = rollout_stage()
    stage.give(ev.HaltRequested(10_000))
    effects = change(stage, added=(OTHER,))

    assert refusals(effects) == [Reason.SHUTDOWN]
    assert only(effects, ef.VerifyModel) == []
    assert list(stage.core.state.pools) == ["p0"]


def test_a_pool_that_comes_back_before_its_worker_is_gone_gets_the_next_number() -> None:
    stage = rollout_stage(make_plan("p0"), OTHER)
    stage.submit(make_task("runs", model_ref="x"))
    change(stage, removed=("p1",))
    assert refusals(change(stage, added=(OTHER,))) == [Reason.BUSY]

    change(stage, added=(make_plan("p1+2", model_ref="x", model_refs=frozenset({"x"})),))

    assert stage.pool("p1").next_revision == 3


def last_intent(stage: RolloutStage) -> Intent:
    return only(stage.done, ef.CommitIntent)[-1].intent


def test_which_revision_serves_is_written_down_and_taken_up_again() -> None:
    stage = rollout_stage()
    stage.roll()
    known = last_intent(stage)
    assert (known.pools["p0"].current.number, known.pools["p0"].next_revision) == (2, 3)

    later = rollout_stage(make_plan("p0+2"))
    later.give(ev.IntentRestored(known, 500.0))

    pool = later.pool()
    assert (pool.current, pool.next_revision, len(pool.history)) == ("p0+2", 3, 1)
    assert pool.previous is not None
    assert pool.previous.number == 1
    assert pool.history[0].at_ms == stage.pool().history[0].at_ms + 500.0


def test_a_configuration_that_changed_while_the_daemon_was_down_wins_and_is_noted() -> None:
    stage = rollout_stage()
    stage.roll()
    later = rollout_stage(make_plan("p0+3"))
    later.give(ev.IntentRestored(last_intent(stage), 0.0))

    assert (later.pool().history[-1].kind, later.pool().next_revision) == (RolloutKind.CONFIG, 4)
    assert later.pool().previous == last_intent(stage).pools["p0"].current


def test_a_number_that_the_configuration_took_while_the_daemon_was_down_is_written_down() -> None:
    stage = rollout_stage()
    stage.roll()
    later = rollout_stage(make_plan("p0+3"))
    later.give(ev.IntentRestored(last_intent(stage), 0.0))

    assert last_intent(later).pools["p0"].current.number == 3
    assert last_intent(later).pools["p0"].next_revision == 4


def test_a_canary_is_written_down_with_its_share_until_it_is_aborted() -> None:
    stage = rollout_stage()
    stage.begin(RolloutKind.CANARY, canary=share(500))
    stage.come_up("p0+2")
    stage.give(ev.CanaryShared("t", "p0", 900))
    canary = last_intent(stage).pools["p0"].canary
    assert canary is not None
    assert (canary.revision.number, canary.plan.share_buckets) == (2, 900)

    stage.give(ev.RolloutAborted("t", "p0", "enough seen"))

    assert last_intent(stage).pools["p0"].canary is None


def test_a_reload_that_a_crash_cut_short_leaves_the_current_revision() -> None:
    stage = rollout_stage()
    stage.begin()
    stage.load("p0+2")

    assert last_intent(stage).pools["p0"].current.number == 1
    assert last_intent(stage).pools["p0"].next_revision == 3


def test_no_number_is_given_twice_though_the_daemon_ended_in_between() -> None:
    stage = rollout_stage()
    stage.begin()
    later = rollout_stage()
    later.give(ev.IntentRestored(last_intent(stage), 0.0))
    later.roll()

    assert later.pool().current == "p0+3"


def test_a_drain_is_kept_under_the_name_of_the_pool() -> None:
    stage = rollout_stage()
    stage.roll()
    stage.give(ev.DrainRequested("p0", 60_000))
    later = rollout_stage(make_plan("p0+2"))
    later.give(ev.IntentRestored(last_intent(stage), 0.0))

    assert not later.replica("p0+2").is_serving
