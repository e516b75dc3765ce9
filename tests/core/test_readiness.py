"""Whether the daemon as a whole is ready: somebody takes what is asked for by a model's name, and it can be stored."""

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.breaker import STREAK_MAX
from tests.core.builders import make_stage, make_task, only, ready_stage
from tests.core.rollout_stage import rollout_stage


def test_a_worker_that_serves_makes_the_daemon_ready() -> None:
    assert not make_stage().core.state.is_ready
    assert ready_stage().core.state.is_ready


def test_a_worker_that_is_only_kept_for_a_rollback_does_not() -> None:
    stage = rollout_stage()
    stage.roll()
    stage.lose("p0+2")

    assert stage.replica("p0").can_run
    assert not stage.core.state.is_ready


def test_a_full_disk_or_a_stop_ends_it() -> None:
    full, stopping = ready_stage(), ready_stage()
    full.give(ev.JournalChanged(is_writable=False, cause="full"))
    stopping.give(ev.HaltRequested(1_000))

    assert not full.core.state.is_ready
    assert not stopping.core.state.is_ready


def test_a_worker_that_its_breaker_ejects_is_no_help() -> None:
    stage = ready_stage()
    for number in range(STREAK_MAX):
        stage.submit(make_task(f"t{number}", strict=False))
        effects = stage.give(ev.RunFailed(stage.run_of(f"t{number}"), "engine", "it broke", 0))
        for asked in only(effects, ef.ConfirmSlotIdle):
            stage.give(ev.SlotsSeenIdle(asked.pool_id, asked.incarnation, (asked.run_id,)))

    assert stage.replica().is_ejected
    assert not stage.core.state.is_ready
