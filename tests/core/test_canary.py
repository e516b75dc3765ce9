"""A canary: its share of the alias, its judge, and how it takes over or goes (ORCH-3033)."""

from time import perf_counter

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.lifecycle import Phase
from supervisor.core.revisions import Role, RolloutKind, RolloutOutcome, RolloutPhase
from supervisor.wire.codes import Code, Reason
from tests.core.builders import DIGEST, make_plan, make_task, only, started
from tests.core.rollout_stage import RolloutStage, refusals, rollout_stage, share

pytestmark = pytest.mark.orch("ORCH-3033")


def sharing(buckets: int = 500, **terms: object) -> RolloutStage:
    """A pool of ten slots whose canary takes its share."""
    stage = rollout_stage(make_plan(slots=10, is_batch_invariant=True))
    stage.begin(RolloutKind.CANARY, canary=share(buckets, **terms), slots=10, is_batch_invariant=True)
    stage.come_up("p0+2")
    return stage


def pool_of(stage: RolloutStage, name: str, bucket: int) -> str:
    ((_, key),) = started(stage.submit(make_task(name, strict=False, bucket=bucket)))
    return key


def serve(stage: RolloutStage, bucket: int, count: int, *, first_token_ms: float = 0.0) -> None:
    """Let tasks of one side run to their end."""
    for _ in range(count):
        name = f"t{stage.core.state.next_run}"
        pool_of(stage, name, bucket)
        stage.now += first_token_ms
        stage.give(ev.FirstTokenCame(stage.run_of(name)))
        stage.finish(name)


def fail(stage: RolloutStage, bucket: int, count: int) -> list[ef.Effect]:
    """Let tasks of one side fail; gives what followed of the last one."""
    effects: list[ef.Effect] = []
    for _ in range(count):
        name = f"t{stage.core.state.next_run}"
        pool_of(stage, name, bucket)
        effects = stage.give(ev.RunFailed(stage.run_of(name), "engine", "it broke", 0))
    return effects


def test_until_it_is_ready_a_canary_gets_nothing() -> None:
    stage = rollout_stage()
    stage.begin(RolloutKind.CANARY, canary=share(10_000))
    stage.load("p0+2")

    assert pool_of(stage, "t", 0) == "p0"


@pytest.mark.parametrize(("bucket", "key"), [(0, "p0+2"), (499, "p0+2"), (500, "p0"), (9_999, "p0")])
def test_a_session_is_on_the_side_of_its_bucket(bucket: int, key: str) -> None:
    stage = sharing(500)

    assert [pool_of(stage, name, bucket) for name in "abc"] == [key] * 3


def test_another_share_holds_for_the_next_task() -> None:
    stage = sharing(500)
    stage.give(ev.CanaryShared("t", "p0", 1_000))

    assert pool_of(stage, "t", 900) == "p0+2"


@pytest.mark.parametrize("buckets", [-1, 10_001])
def test_a_share_is_between_nothing_and_all(buckets: int) -> None:
    stage = sharing()

    assert refusals(stage.give(ev.CanaryShared("t", "p0", buckets))) == [Reason.FIELD]


def test_a_canary_of_the_same_kind_has_its_own_set_all_the_same() -> None:
    stage = rollout_stage()
    stage.begin(RolloutKind.CANARY, canary=share(500), model_digest=stage.replica().plan.model_digest)
    stage.come_up("p0+2")

    assert stage.home("p0").members == [stage.replica("p0")]
    assert stage.home("p0+2").kind == stage.home("p0").kind
    assert pool_of(stage, "t", 0) == "p0+2"


def test_a_promoted_canary_takes_the_whole_alias_and_what_waits() -> None:
    stage = rollout_stage(make_plan())
    stage.begin(RolloutKind.CANARY, canary=share(5_000))
    stage.come_up("p0+2")
    stage.submit(*(make_task(name, bucket=0) for name in ("c1", "c2")))
    stage.submit(*(make_task(name, bucket=9_999) for name in ("s1", "s2")))
    stage.give(ev.RolloutPromoted("t", "p0"))

    assert (stage.role("p0"), stage.role("p0+2")) == (Role.STANDBY, Role.CURRENT)
    assert stage.core.state.splits == {}
    assert sorted(task.job_id for task in stage.home("p0+2").waiting) == ["c2", "s2"]
    assert stage.task("c1").set_id == stage.replica("p0+2").set_id


def test_only_a_ready_canary_can_be_promoted() -> None:
    stage = sharing()
    stage.lose("p0+2")

    (answer,) = only(stage.give(ev.RolloutPromoted("t", "p0")), ef.AnswerRefused)

    assert answer.refused.code is Code.POOL_UNREADY


def test_an_aborted_canary_ends_what_it_runs_and_leaves_what_waits() -> None:
    stage = rollout_stage(make_plan())
    stage.begin(RolloutKind.CANARY, canary=share(10_000))
    stage.come_up("p0+2")
    stage.submit(make_task("runs"), make_task("t"))
    effects = stage.give(ev.RolloutAborted("t", "p0", "enough seen"))

    assert started(effects) == [("t", "p0")]
    assert only(effects, ef.AbortRun) == []
    assert only(stage.finish("runs"), ef.StopEngine) != []


def test_a_canary_that_goes_leaves_no_share_behind() -> None:
    stage = sharing(10_000)
    stage.give(ev.RolloutAborted("t", "p0", "enough seen"))

    assert stage.core.state.splits == {}


def test_a_conversation_with_a_canary_that_goes_is_cold_elsewhere_also_while_the_canary_ends_its_runs() -> None:
    stage = sharing(10_000)
    stage.submit(make_task("one", strict=False, session=b"s"), make_task("runs", strict=False))
    stage.finish("one")
    stage.give(ev.RolloutAborted("t", "p0", "enough seen"))
    (run,) = only(stage.submit(make_task("two", strict=False, session=b"s")), ef.StartRun)

    assert (run.pool_id, run.kv_warmth) == ("p0", False)
    assert stage.replica("p0+2").phase is Phase.READY


def test_one_command_rolls_a_canary_back() -> None:
    stage = sharing()
    stage.give(ev.RollbackRequested("t", "p0"))

    assert pool_of(stage, "t", 0) == "p0"
    assert stage.role("p0+2") is Role.RETIRING


def test_a_canary_that_cannot_serve_any_more_is_rolled_back_without_a_judge() -> None:
    stage = rollout_stage()
    stage.begin(RolloutKind.CANARY, canary=share(10_000), devices=(1,))
    stage.come_up("p0+2")
    stage.submit(make_task("runs"), make_task("t"))
    stage.answer_aborts(stage.give(ev.DevicesSeen((ev.DeviceSeen("GPU-0", 0, "H100", 81_920),))))
    stage.stopped("p0+2")

    assert stage.phase() is None
    assert ("t", "p0") in started(stage.done)
    assert stage.task("runs").set_id == stage.replica("p0").set_id


def test_what_waits_for_a_canary_that_crashed_goes_to_the_current_revision() -> None:
    stage = rollout_stage()
    stage.begin(RolloutKind.CANARY, canary=share(10_000))
    stage.come_up("p0+2")
    stage.submit(make_task("runs"), make_task("t"))
    stage.lose("p0+2")

    assert ("runs", "p0") in started(stage.done) or ("t", "p0") in started(stage.done)
    assert len(stage.home("p0+2").waiting) == 0
    assert stage.phase() is RolloutPhase.SHARING


def test_a_canary_that_fails_more_is_rolled_back_by_itself() -> None:
    stage = sharing(min_tasks=4)
    serve(stage, 9_999, 20)
    serve(stage, 0, 2)
    effects = fail(stage, 0, 2)

    (note,) = only(effects, ef.NoteRollout)
    assert (note.outcome, stage.phase()) == (RolloutOutcome.ROLLED_BACK, None)
    assert "50.0%" in (note.cause or "")
    assert pool_of(stage, "t", 0) == "p0"


def test_what_harms_both_sides_condemns_neither() -> None:
    stage = sharing(min_tasks=4)
    for _ in range(5):
        serve(stage, 9_999, 1)
        fail(stage, 9_999, 1)
        serve(stage, 0, 1)
        fail(stage, 0, 1)

    assert stage.phase() is RolloutPhase.SHARING


def test_a_canary_that_misses_the_objective_is_rolled_back() -> None:
    stage = sharing(min_tasks=4, first_token_ms_max=100)
    serve(stage, 9_999, 10, first_token_ms=50)
    serve(stage, 0, 4, first_token_ms=500)

    assert stage.phase() is None
    assert stage.pool().history[-1].outcome is RolloutOutcome.ROLLED_BACK


def test_a_canary_with_nothing_against_it_takes_over_where_that_was_agreed() -> None:
    stage = sharing(min_tasks=4, promote_after_tasks=6)
    serve(stage, 0, 6)

    assert stage.pool().current == "p0+2"


def test_parity_is_measured_where_it_is_asked_for_and_too_little_condemns() -> None:
    stage = sharing(parity_min=0.9)
    assert only(stage.done, ef.MeasureParity) == [ef.MeasureParity("p0", "p0", "p0+2")]

    stage.give(ev.ParityMeasured("p0", 2, matched=8, total=10))

    assert stage.phase() is None


def test_parity_that_nobody_could_measure_neither_condemns_nor_promotes() -> None:
    stage = sharing(min_tasks=2, promote_after_tasks=2, parity_min=0.9)
    stage.give(ev.ParityMeasured("p0", 2, matched=0, total=0))
    serve(stage, 0, 5)

    assert stage.phase() is RolloutPhase.SHARING


def test_parity_of_another_revision_is_nobody_s() -> None:
    stage = sharing(parity_min=0.9)
    stage.give(ev.ParityMeasured("p0", 7, matched=0, total=10))

    assert stage.phase() is RolloutPhase.SHARING


def test_runs_that_died_with_the_canary_count_against_it() -> None:
    stage = sharing(min_tasks=3)
    for name in "abc":
        pool_of(stage, name, 0)
    stage.lose("p0+2")

    assert stage.phase() is None


def test_an_automatic_rollback_is_one_step_of_less_than_a_millisecond() -> None:
    took = []
    for _ in range(5):
        stage = sharing(min_tasks=4)
        fail(stage, 0, 3)
        pool_of(stage, "last", 0)
        event = ev.RunFailed(stage.run_of("last"), "engine", "it broke", 0)
        began = perf_counter()
        stage.core.handle(event, stage.now)
        took.append(perf_counter() - began)
        assert stage.phase() is None

    assert min(took) < 0.001


@pytest.mark.parametrize("phase", [Phase.READY])
def test_a_switch_back_is_done_in_the_event_that_asks_for_it(phase: Phase) -> None:
    stage = rollout_stage()
    stage.roll()
    effects = stage.give(ev.RollbackRequested("t", "p0"))

    assert only(effects, ef.AnswerRollout) == [ef.AnswerRollout("t", "p0", 1)]
    assert stage.replica("p0").phase is phase
    assert started(stage.submit(make_task("t"))) == [("t", "p0")]


def test_a_rollback_is_idempotent() -> None:
    stage = rollout_stage()
    stage.roll()
    stage.give(ev.RollbackRequested("t", "p0"))

    assert only(stage.give(ev.RollbackRequested("t", "p0")), ef.AnswerRollout) == [ef.AnswerRollout("t", "p0", 1)]
    assert stage.pool().current == "p0"


def test_what_runs_on_the_revision_that_is_rolled_back_ends_there() -> None:
    stage = rollout_stage()
    stage.roll()
    stage.submit(make_task("runs"), make_task("t"))

    effects = stage.give(ev.RollbackRequested("t", "p0"))

    assert started(effects) == [("t", "p0")]
    assert only(stage.finish("runs"), ef.StopEngine) != []


def test_without_a_loaded_revision_before_it_a_rollback_is_refused() -> None:
    stage = rollout_stage()

    assert refusals(stage.give(ev.RollbackRequested("t", "p0"))) == [Reason.NOT_FOUND]


def test_the_revision_before_is_known_after_it_was_stopped() -> None:
    stage = rollout_stage()
    stage.roll()
    stage.pass_ms(600_000)
    stage.stopped("p0")

    previous = stage.pool().previous
    assert previous is not None
    assert (previous.number, previous.model_ref) == (1, "m")


def test_a_rollback_that_loads_the_revision_anew_is_not_undone_by_asking_for_it_again() -> None:
    stage = rollout_stage()
    stage.roll()
    stage.pass_ms(600_000)
    stage.stopped("p0")
    stage.begin(RolloutKind.ROLLBACK, model_digest=DIGEST)

    again = stage.give(ev.RollbackRequested("t", "p0"))
    stage.come_up("p0+3")

    assert only(again, ef.AnswerRollout) == [ef.AnswerRollout("t", "p0", 3)]
    assert (stage.pool().current, stage.pool().is_rolled_back) == ("p0+3", True)


def test_a_promoted_canary_goes_on_with_what_waits_for_it() -> None:
    stage = rollout_stage()
    stage.begin(RolloutKind.CANARY, canary=share(10_000))
    stage.come_up("p0+2")
    stage.submit(make_task("runs"), make_task("waits"))

    stage.give(ev.RolloutPromoted("t", "p0"))

    assert started(stage.finish("runs")) == [("waits", "p0+2")]
