"""Where both do not fit, the old revision makes way, and comes back by itself if the new one fails (ORCH-3031)."""

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.intent import LeaseNote
from supervisor.core.lifecycle import Phase
from supervisor.core.revisions import Role, RolloutKind, RolloutOutcome, RolloutPhase
from supervisor.wire.codes import Code, Reason
from tests.core.builders import NONE, error_of, make_plan, make_task, only, started
from tests.core.rollout_stage import DRAIN_MS, RolloutStage, rollout_stage, share

pytestmark = pytest.mark.orch("ORCH-3031")


def making_way(*names: str) -> RolloutStage:
    """A pool whose new revision finds no room beside the old one, on which these tasks run."""
    stage = rollout_stage(make_plan(wall_ms=10_000_000, slots=2, is_batch_invariant=True))
    stage.submit(*(make_task(name) for name in names))
    stage.begin(slots=2, is_batch_invariant=True)
    stage.be_short("p0+2")
    return stage


def swapping(*waiting: str) -> RolloutStage:
    """The old worker is stopped, and the new one verifies its model."""
    stage = making_way()
    stage.submit(*(make_task(name) for name in waiting))
    stage.stopped("p0")
    return stage


def test_the_old_worker_gets_nothing_new_and_ends_what_it_runs() -> None:
    stage = making_way("runs")
    assert started(stage.submit(make_task("t"))) == []

    effects = stage.finish("runs")

    assert only(effects, ef.StopEngine) != []
    assert stage.phase() is RolloutPhase.STOPPING


def test_the_new_worker_starts_once_the_old_one_is_gone() -> None:
    stage = swapping()

    assert stage.phase() is RolloutPhase.SWAPPING
    assert (stage.replica("p0").phase, stage.replica("p0+2").phase) == (Phase.RESTING, Phase.VERIFYING)


def test_what_was_submitted_meanwhile_is_served_by_the_new_revision() -> None:
    stage = swapping("a", "b")
    stage.come_up("p0+2")

    assert started(stage.done)[-2:] == [("a", "p0+2"), ("b", "p0+2")]
    assert list(stage.core.state.replicas) == ["p0+2"]
    assert stage.pool().standby is None


def test_what_runs_past_the_drain_is_reset() -> None:
    stage = making_way("runs")
    stage.answer_aborts(stage.pass_ms(DRAIN_MS))

    assert error_of(stage.outcome("runs")).code is Code.WORKER_RESET
    assert stage.replica("p0").phase is Phase.STOPPING


def test_a_new_revision_that_fails_alone_leads_back_to_the_old_one() -> None:
    stage = swapping("t")
    stage.fail("p0+2")
    stage.pass_ms(3_000)
    stage.fail("p0+2")
    assert stage.phase() is RolloutPhase.WAKING

    stage.serve("p0")

    assert (stage.phase(), stage.pool().current) == (None, "p0")
    assert started(stage.done)[-1] == ("t", "p0")
    assert stage.pool().history[-1].outcome is RolloutOutcome.FAILED


def test_the_old_worker_waits_until_the_process_of_the_new_one_is_gone() -> None:
    stage = swapping()
    stage.load("p0+2")
    stage.give(ev.RolloutAborted("t", "p0", "not today"))
    assert stage.phase() is RolloutPhase.RETURNING
    assert stage.replica("p0").phase is Phase.RESTING

    stage.stopped("p0+2")

    assert stage.phase() is RolloutPhase.WAKING
    assert stage.replica("p0").phase is Phase.VERIFYING


def test_while_the_old_worker_comes_back_tasks_are_let_in() -> None:
    stage = swapping()
    stage.give(ev.RolloutAborted("t", "p0", "not today"))
    stage.submit(make_task("t"))
    stage.serve("p0")

    assert started(stage.done)[-1] == ("t", "p0")


def test_an_abort_during_the_drain_lets_the_old_worker_go_on() -> None:
    stage = making_way("runs")
    stage.submit(make_task("t"))

    assert started(stage.give(ev.RolloutAborted("t", "p0", "not today"))) == [("t", "p0")]
    assert only(stage.done, ef.StopEngine) == []


def test_a_pool_that_did_not_serve_before_refuses_while_it_is_replaced() -> None:
    stage = rollout_stage()
    stage.lose("p0")
    stage.begin()
    stage.be_short("p0+2")

    assert stage.refusal(make_task("t")).code is Code.POOL_UNREADY


def test_a_shortage_that_no_stop_could_end_leaves_the_old_worker_alone() -> None:
    stage = rollout_stage()
    stage.begin()
    stage.give(ev.ModelVerified("p0+2", stage.replica("p0+2").incarnation, "d"))
    stage.measure("p0+2", need_mib=200_000)

    assert (stage.phase(), stage.replica("p0").phase) == (None, Phase.READY)


def test_on_other_gpus_a_shortage_is_a_failure_and_stops_nobody() -> None:
    stage = rollout_stage()
    stage.begin(devices=(1,))
    stage.be_short("p0+2")
    stage.pass_ms(3_000)
    stage.be_short("p0+2")

    assert (stage.phase(), stage.replica("p0").phase) == (None, Phase.READY)


def test_a_canary_never_takes_the_place_of_the_current_revision() -> None:
    stage = rollout_stage()
    stage.begin(RolloutKind.CANARY, canary=share(500))
    stage.be_short("p0+2")
    stage.pass_ms(3_000)
    stage.be_short("p0+2")

    assert (stage.phase(), stage.replica("p0").phase) == (None, Phase.READY)


def test_what_is_kept_for_a_rollback_goes_before_the_current_revision_makes_way() -> None:
    stage = rollout_stage()
    stage.roll()
    stage.begin()
    stage.be_short("p0+3")
    assert (stage.phase(), stage.replica("p0").phase) == (RolloutPhase.STARTING, Phase.STOPPING)

    stage.stopped("p0")

    assert stage.replica("p0+3").phase is Phase.VERIFYING
    assert stage.role("p0+2") is Role.CURRENT
    assert stage.replica("p0+2").can_run


def test_a_lost_gpu_while_the_new_one_starts_alone_ends_what_waits() -> None:
    stage = swapping("t")
    stage.give(NONE)

    assert (stage.phase(), stage.replica("p0").phase) == (None, Phase.UNPLACED)
    assert error_of(stage.outcome("t")).code is Code.POOL_UNAVAILABLE


@pytest.mark.orch("ORCH-3047")
def test_a_strict_stream_that_only_the_old_worker_could_go_on_with_is_reset_by_the_switch() -> None:
    stage = making_way("runs")
    exits = stage.give(ev.EngineExited("p0", stage.replica("p0").incarnation, "crash", "it crashed"))
    stage.answer_aborts(exits, emitted=4)
    stage.stopped("p0")
    stage.come_up("p0+2")

    assert error_of(stage.outcome("runs")).code is Code.WORKER_RESET


def test_a_prompt_that_an_engine_would_have_to_count_is_asked_for_later() -> None:
    stage = making_way("runs")

    refused = stage.refusal(make_task("t", prompt_bytes=3_000))

    assert (refused.code, refused.reason) == (Code.POOL_UNREADY, Reason.LOADING)


def test_a_pool_that_makes_way_lets_nothing_in_once_it_is_drained() -> None:
    stage = making_way("runs")
    stage.give(ev.DrainRequested("p0", 5_000))

    assert stage.refusal(make_task("t")).reason is Reason.DRAINING


def test_a_shortage_of_an_earlier_attempt_stops_nobody_when_the_next_one_fails_otherwise() -> None:
    stage = rollout_stage()
    stage.roll()
    stage.begin()
    stage.submit(make_task("runs"))
    stage.be_short("p0+3")
    stage.stopped("p0")
    assert stage.replica("p0+3").phase is Phase.VERIFYING

    stage.fail("p0+3")

    assert stage.phase() is RolloutPhase.STARTING
    assert not stage.replica("p0+2").is_making_way


def test_a_pool_that_makes_way_lets_nothing_in_once_its_gpu_is_leased() -> None:
    stage = making_way("runs")
    note = LeaseNote(lease_id="l1", devices=("GPU-0",), owner="o", purpose="", expires_ms=1e9)
    stage.give(ev.LeaseRequested("t", note, 30_000.0))

    assert stage.refusal(make_task("t")).reason is Reason.LEASED


def test_such_a_prompt_is_asked_for_later_too_where_all_that_serve_meanwhile_are_ejected() -> None:
    stage = rollout_stage(make_plan("p0", wall_ms=10_000_000), make_plan("p1", devices=(1,)))
    stage.submit(make_task("runs"))
    for name in "abcde":
        stage.submit(make_task(name))
        asked = only(stage.give(ev.RunFailed(stage.run_of(name), "engine", "it broke", 0)), ef.ConfirmSlotIdle)
        stage.give(ev.SlotsSeenIdle("p1", asked[0].incarnation, (asked[0].run_id,)))
    assert stage.replica("p1").is_ejected
    stage.begin()
    stage.be_short("p0+2")

    refused = stage.refusal(make_task("t", prompt_bytes=3_000))

    assert (refused.code, refused.reason) == (Code.POOL_UNREADY, Reason.LOADING)
