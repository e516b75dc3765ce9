"""What outlives a task or a daemon: restore after a restart, retention of streams, and ids that are remembered."""

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.invariants import violations
from supervisor.core.plan import HostPlan
from supervisor.core.split import Split
from supervisor.core.tasks import Ended, Outcome, Task, Waiting
from supervisor.wire.codes import Code, Engine, FinishReason, Reason
from tests.core.builders import BOTH, Stage, error_of, make_plan, make_stage, make_task, only, ready_stage, started


def ended_task(name: str, at_ms: float = 0.0) -> Task:
    return make_task(name, phase=Ended(Outcome(finish_reason=FinishReason.STOP, emitted=3), at_ms))


def restored(*unfinished: Task, finished: tuple[Task, ...] = (), stage: Stage | None = None) -> Stage:
    stage = stage or make_stage()
    stage.give(ev.TasksRestored(unfinished, tuple((task, 10) for task in finished)))
    return stage


# Restore


@pytest.mark.orch("ORCH-3024")
def test_unfinished_tasks_wait_again_in_their_old_order_and_run() -> None:
    stage = restored(make_task("a"), make_task("b"), make_task("c", batch=True))
    stage.give(BOTH)
    stage.serve()
    order = [name for name, _ in started(stage.done) + started(stage.finish("a")) + started(stage.finish("b"))]

    assert order == ["a", "b", "c"]
    assert stage.core.state.counts.enqueued == 3


def test_a_strict_task_that_was_running_runs_again_and_the_crash_is_not_its_fault() -> None:
    stage = restored(make_task("t", attempt=2))
    stage.give(BOTH)
    stage.serve()

    assert started(stage.done) == [("t", "p0")]
    assert stage.task("t").attempt == 3


def test_a_strict_task_has_its_full_share_of_workers_under_each_daemon() -> None:
    stage = restored(make_task("t", attempt=4, emitted=7, daemons_lost=4))
    stage.give(BOTH)
    stage.serve()
    stage.give(ev.RunFailed(stage.run_of("t"), "engine", "it died", 7, is_worker_lost=True))

    assert isinstance(stage.task("t").phase, Waiting)
    assert stage.task("t").emitted == 7


def home_of(stage: Stage, name: str) -> list[str]:
    """The pools of the set in which a task waits."""
    return [member.pool_id for member in stage.core.state.set_of(stage.task(name)).members]


Q4, Q8 = make_plan("a", quant="q4"), make_plan("b", quant="q8")
ALIAS = "alias"
STABLE = make_plan("stable", model_refs=frozenset({"m", ALIAS}))
CANARY = make_plan("canary", model_digest="sha256:" + "b" * 64, model_refs=frozenset({"n", ALIAS}))


@pytest.mark.orch("ORCH-3024", "ORCH-3045")
@pytest.mark.parametrize("emitted", [0, 5])
def test_a_task_goes_back_to_the_kind_of_set_that_it_was_admitted_to(emitted: int) -> None:
    before = ready_stage(Q4, Q8)
    before.submit(*(make_task(name) for name in "xyz"))
    ran = dict(started(before.done))
    assert set(ran.values()) == {"a", "b"}

    for name, pool_id in ran.items():
        kind = before.task(name).set_kind
        stage = restored(make_task(name, attempt=1, emitted=emitted, set_kind=kind), stage=make_stage(Q4, Q8))
        stage.give(BOTH)
        stage.serve("a")
        stage.serve("b", version="another")

        assert started(stage.done) == [(name, pool_id)]


def test_a_task_of_a_kind_that_can_never_serve_goes_to_another_unless_it_owes_bytes() -> None:
    broken = make_plan("a", quant="q4", unplannable="no such file")
    kind = make_stage(broken).home("a").kind
    waits = [make_task("free", set_kind=kind), make_task("new"), make_task("owes", set_kind=kind, emitted=3)]
    stage = restored(*waits, stage=make_stage(broken, Q8))

    assert [home_of(stage, name) for name in ("free", "new", "owes")] == [["b"], ["b"], ["a"]]


def test_tasks_of_no_known_kind_spread_by_the_work_per_slot() -> None:
    plans = make_plan("a", quant="q4", slots=3), Q8
    stage = restored(*(make_task(f"t{number}") for number in range(8)), stage=make_stage(*plans))

    assert (len(stage.home("a").waiting), len(stage.home("b").waiting)) == (6, 2)


def test_a_task_whose_profile_is_gone_ends_as_one_that_is_submitted_would() -> None:
    stage = restored(make_task("t", sampler_profile_version="v0"))

    assert error_of(stage.outcome("t")).code is Code.POOL_UNAVAILABLE


@pytest.mark.orch("ORCH-3033")
def test_a_task_of_no_known_kind_goes_to_the_side_of_its_session() -> None:
    stage = make_stage(STABLE, CANARY)
    stage.give(ev.SplitRequested(Engine.LLAMACPP, ALIAS, Split(frozenset({"canary"}), 5_000)))
    restored(
        *(make_task(f"t{bucket}", model_ref=ALIAS, bucket=bucket) for bucket in (0, 4_999, 5_000, 9_999)),
        make_task("stays", model_ref=ALIAS, bucket=0, set_kind=stage.home("stable").kind),
        stage=stage,
    )

    sides = [home_of(stage, name) for name in ("t0", "t4999", "t5000", "t9999", "stays")]
    assert sides == [["canary"], ["canary"], ["stable"], ["stable"], ["stable"]]


def test_the_memory_of_a_task_is_that_of_the_set_it_goes_to() -> None:
    plans = make_plan("a", quant="q4", kv_bytes_per_token=1), make_plan("b", quant="q8", kv_bytes_per_token=10)
    kinds = {pool_id: make_stage(*plans).home(pool_id).kind for pool_id in "ab"}
    stage = restored(*(make_task(name, set_kind=kinds[name]) for name in "ab"), stage=make_stage(*plans))

    tokens = 100 + 8 + 64
    assert [stage.task(name).memory_bytes for name in "ab"] == [tokens + 500, 10 * tokens + 500]


@pytest.mark.parametrize(("lost", "is_over"), [(4, False), (5, True)])
def test_a_task_that_takes_every_daemon_with_it_ends(lost: int, *, is_over: bool) -> None:
    stage = restored(make_task("t", attempt=lost, daemons_lost=lost, emitted=2))

    if not is_over:
        assert isinstance(stage.task("t").phase, Waiting)
        return
    outcome = stage.outcome("t")
    error = error_of(outcome)
    assert (error.code, error.reason, error.is_retriable) == (Code.WORKER_RESET, Reason.POISON, False)
    assert outcome.emitted == 2


def test_a_best_effort_task_that_may_have_delivered_ends_as_worker_reset() -> None:
    stage = restored(make_task("t", strict=False, attempt=1, emitted=5), make_task("waited", strict=False))

    error = error_of(stage.outcome("t"))
    assert (error.code, error.is_retriable) == (Code.WORKER_RESET, True)
    assert stage.outcome("t").emitted == 5
    assert isinstance(stage.task("waited").phase, Waiting)


def test_a_best_effort_task_that_delivered_nothing_runs_again() -> None:
    stage = make_stage()
    stage.give(ev.TasksRestored((make_task("t", strict=False, attempt=1),), (), ("t",)))
    stage.give(BOTH)
    stage.serve()

    assert started(stage.done) == [("t", "p0")]


def test_a_cancel_of_a_restored_task_says_what_was_delivered() -> None:
    stage = restored(make_task("t", attempt=1, emitted=7))

    (answer, *_) = stage.give(ev.CancelRequested("c", "t"))

    assert answer == ef.AnswerCancelled("c", 7)
    assert stage.outcome("t").tokens_out == 7


def test_a_run_that_began_anew_and_is_cancelled_counts_what_was_delivered_before() -> None:
    stage = make_stage()
    stage.give(ev.TasksRestored((make_task("t", strict=True, attempt=1, emitted=7),), (), ("t",)))
    stage.give(BOTH)
    stage.serve()
    (abort,) = stage.give(ev.CancelRequested("c", "t"))
    assert isinstance(abort, ef.AbortRun)

    stage.give(ev.RunAborted(abort.run_id, tokens_in=3, tokens_out=1, emitted=7, decode_ms=20.0))

    assert (stage.outcome("t").emitted, stage.outcome("t").tokens_out) == (7, 7)


def test_a_task_whose_model_is_no_longer_configured_ends() -> None:
    stage = restored(make_task("t", model_ref="gone"), make_task("large", ctx=9_999))

    assert {error_of(stage.outcome(name)).code for name in ("t", "large")} == {Code.POOL_UNAVAILABLE}
    assert violations(stage.core.state, 0) == []


def test_a_deadline_that_passed_while_no_daemon_ran_fires_at_once() -> None:
    stage = restored(make_task("t", deadline_at_ms=-5.0))
    stage.pass_ms(0)

    assert error_of(stage.outcome("t")).reason is Reason.DEADLINE


def test_a_finished_task_is_remembered_with_its_answer() -> None:
    stage = restored(finished=(ended_task("t"),))

    (answer,) = stage.give(ev.TaskSubmitted(make_task("again", task_id="t")))
    cancelled = stage.give(ev.CancelRequested("c", "t"))

    assert isinstance(answer, ef.AnswerAccepted)
    assert cancelled == [ef.AnswerCancelled("c", 3)]


def test_restored_tasks_are_told_when_there_is_no_gpu() -> None:
    stage = restored(make_task("t"))
    stage.give(ev.DevicesSeen(()))

    assert error_of(stage.outcome("t")).code is Code.POOL_UNAVAILABLE


# Retention

SHORT = HostPlan(finished_retention_ms=1_000, finished_ids_min=2, finished_bytes_max=100)


def finish_one(stage: Stage, name: str, log_bytes: int = 10) -> None:
    stage.submit(make_task(name))
    stage.finish(name)
    stage.give(ev.FinishesCommitted((name,), (log_bytes,)))


def dropped(effects: list[ef.Effect]) -> list[str]:
    return [name for effect in only(effects, ef.DropLogs) for name in effect.job_ids]


def forgotten(effects: list[ef.Effect]) -> list[str]:
    return [name for effect in only(effects, ef.Forget) for name in effect.job_ids]


def test_streams_go_after_the_retention_and_ids_while_enough_younger_ones_are_known() -> None:
    stage = ready_stage(host=SHORT)
    for name in ("a", "b", "c", "d"):
        finish_one(stage, name)
        stage.pass_ms(100)
    before = stage.pass_ms(599)

    effects = stage.pass_ms(1_000)

    assert dropped(before) == forgotten(before) == []
    assert dropped(effects) == ["a", "b", "c", "d"]
    assert forgotten(effects) == ["a", "b"], "two ids are always remembered"
    assert set(stage.core.state.tasks) == {"c", "d"}
    assert violations(stage.core.state, stage.now) == []


def test_a_forgotten_id_can_be_used_again() -> None:
    stage = ready_stage(host=SHORT)
    for name in ("a", "b", "c"):
        finish_one(stage, name)
    stage.pass_ms(1_000)

    assert started(stage.submit(make_task("new", task_id="a"))) == [("new", "p0")]


def test_an_old_id_is_forgotten_when_a_younger_one_takes_its_place() -> None:
    stage = ready_stage(host=SHORT)
    for name in ("a", "b"):
        finish_one(stage, name)
    stage.pass_ms(10_000)
    finish_one(stage, "c")

    effects = stage.pass_ms(0)

    assert forgotten(effects) == ["a"]


def test_an_idle_daemon_with_ids_to_remember_is_not_woken_again_and_again() -> None:
    stage = ready_stage(host=SHORT)
    for name in ("a", "b"):
        finish_one(stage, name)
    stage.pass_ms(200_000)

    due = stage.core.next_due_ms()
    assert due is None or due > stage.now + 1e6


def test_the_oldest_streams_go_when_all_of_them_are_too_large() -> None:
    stage = ready_stage(host=SHORT)
    finish_one(stage, "a", 60)
    finish_one(stage, "b", 40)
    finish_one(stage, "c", 70)

    assert dropped(stage.done) == ["a", "b"]
    assert forgotten(stage.done) == []
    assert stage.core.state.log_bytes == 70


def test_the_last_stream_is_kept_however_large() -> None:
    stage = ready_stage(host=SHORT)
    finish_one(stage, "a", 5_000)

    assert dropped(stage.done) == []


def test_restored_ends_keep_their_age() -> None:
    stage = restored(finished=(ended_task("a", -900), ended_task("b", -100)), stage=make_stage(host=SHORT))

    assert dropped(stage.pass_ms(100)) == ["a"]
    assert dropped(stage.pass_ms(800)) == ["b"]


def test_a_restored_end_that_is_too_old_goes_at_once() -> None:
    stage = restored(finished=(ended_task("a", -9_000),), stage=make_stage(make_plan(), host=SHORT))
    stage.pass_ms(0)

    assert dropped(stage.done) == ["a"]


def test_a_moment_that_floats_round_away_is_no_endless_loop() -> None:
    stage = ready_stage(host=HostPlan(finished_retention_ms=5_000, finished_ids_min=0))
    for number in range(200):
        stage.pass_ms(1_000 / 3 + number / 7)
        finish_one(stage, f"t{number}")

    assert len(stage.core.state.ended) < 50
