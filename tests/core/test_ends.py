"""How a run ends a task: by the engine, by its refusal, by an error; and what is on disk then."""

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.invariants import violations
from supervisor.core.tasks import Ended
from supervisor.wire.codes import Code, Reason
from tests.core.builders import error_of, make_task, only, ready_stage, started


@pytest.mark.orch("ORCH-3025")
def test_a_request_that_the_engine_refuses_is_the_callers_fault() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"), make_task("next"))

    effects = stage.give(ev.RunFailed(1, "token_budget", "too long", 0, is_client_fault=True))

    error = error_of(stage.outcome("t"))
    assert (error.code, error.reason, error.is_retriable) == (Code.INVALID_PARAMS, Reason.TOKEN_BUDGET, False)
    assert started(effects) == [("next", "p0")], "the engine never took the slot"


def test_an_engine_error_ends_the_task_as_worker_reset() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"))

    effects = stage.give(ev.RunFailed(1, "no such word", "garbage", 2))

    error = error_of(stage.outcome("t"))
    assert (error.code, error.reason) == (Code.WORKER_RESET, Reason.ENGINE)
    assert len(only(effects, ef.ConfirmSlotIdle)) == 1


def test_an_end_is_final_once_it_is_on_disk() -> None:
    stage = ready_stage()
    stage.submit(make_task("t"))
    stage.finish("t")
    stage.now = 900
    stage.settle()

    phase = stage.task("t").phase
    assert isinstance(phase, Ended)
    assert phase.at_ms == 900
    assert stage.task("t").body == b""
    assert violations(stage.core.state, stage.now) == []
