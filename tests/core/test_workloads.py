"""Workloads in the core: a task is only ever given to a pool that does its workload, also after a restart."""

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.wire.codes import Code, Workload
from tests.core.builders import make_plan, make_task, only, ready_stage, started

EMBEDS = frozenset({Workload.EMBEDDING})


@pytest.mark.parametrize(("workload", "pool_id"), [(Workload.COMPLETION, "a"), (Workload.EMBEDDING, "b")])
def test_a_restored_task_goes_to_a_pool_that_does_its_workload(workload: Workload, pool_id: str) -> None:
    stage = ready_stage(make_plan("a"), make_plan("b", ctx=2048, workloads=EMBEDS))

    effects = stage.give(ev.TasksRestored((make_task("t", workload=workload),), ()))

    assert started(effects) == [("t", pool_id)]


def test_a_restored_task_whose_workload_no_pool_does_any_more_ends() -> None:
    stage = ready_stage(make_plan("a"))

    (end,) = only(stage.give(ev.TasksRestored((make_task("t", workload=Workload.RERANK),), ())), ef.CommitFinish)

    assert end.outcome.error is not None
    assert end.outcome.error.code is Code.POOL_UNAVAILABLE


def test_a_best_effort_one_shot_task_that_was_running_is_run_again_after_a_restart() -> None:
    stage = ready_stage(make_plan("a", workloads=EMBEDS))
    task = make_task("t", workload=Workload.EMBEDDING, strict=False, attempt=1)

    effects = stage.give(ev.TasksRestored((task,), (), ("t",)))

    assert started(effects) == [("t", "a")]
