"""The policy plugin's word: among what the built-in rules allow, and no further."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.conductor import Conductor
from supervisor.core.policy import AdmitSnapshot, PlaceSnapshot, Verdict
from supervisor.wire.codes import Code, Determinism, FullPolicy, Reason
from tests.core.builders import BOTH, Stage, error_of, make_plan, make_task, only, started

pytestmark = pytest.mark.orch("ORCH-3048")


@dataclass
class Opinion:
    """A policy that says what it was told to say, and remembers what it was asked."""

    pool_id: str | None = None
    verdict: Verdict | None = None
    placed: list[PlaceSnapshot] = field(default_factory=list)
    admitted: list[AdmitSnapshot] = field(default_factory=list)

    def place(self, snapshot: PlaceSnapshot) -> str | None:
        self.placed.append(snapshot)
        return self.pool_id

    def admit(self, snapshot: AdmitSnapshot) -> Verdict | None:
        self.admitted.append(snapshot)
        return self.verdict


def a_stage(opinion: Opinion, *pool_ids: str, **plan: Any) -> Stage:
    stage = Stage(Conductor(tuple(make_plan(pool_id, **plan) for pool_id in pool_ids), policy=opinion))
    stage.give(BOTH)
    for pool_id in pool_ids:
        stage.serve(pool_id)
    return stage


def test_it_chooses_the_replica() -> None:
    stage = a_stage(Opinion("p2"), "p0", "p1", "p2")

    assert started(stage.submit(make_task("t"))) == [("t", "p2")]


def test_it_is_shown_what_could_take_the_task_and_what_would_take_it_without_it() -> None:
    opinion = Opinion()
    stage = a_stage(opinion, "p0", "p1", "p2")
    stage.submit(make_task("first"))
    stage.submit(make_task("t", expected_tokens=7))

    seen = opinion.placed[-1]
    assert [(one.pool_id, one.slots, one.load) for one in seen.candidates] == [("p1", 1, 0), ("p2", 1, 0)]
    assert seen.built_in == "p1"
    assert seen.task.expected_tokens == 7


@pytest.mark.parametrize("word", [None, "p1", "elsewhere"])
def test_a_choice_that_could_not_take_the_task_leaves_the_built_in_one(word: str | None) -> None:
    opinion = Opinion("p1")
    stage = a_stage(opinion, "p0", "p1", "p2")
    stage.submit(make_task("busy"))
    opinion.pool_id = word

    assert started(stage.submit(make_task("t"))) == [("t", "p0")]


def test_it_is_not_asked_where_there_is_no_choice() -> None:
    opinion = Opinion("p0")
    stage = a_stage(opinion, "p0")

    stage.submit(make_task("t"))

    assert opinion.placed == []


def test_it_keeps_a_task_out_with_its_own_hint() -> None:
    stage = a_stage(Opinion(verdict=Verdict(is_admitted=False, retry_after_ms=4_200)), "p0")

    refused = stage.refusal(make_task("t"))

    assert (refused.code, refused.reason, refused.retry_after_ms) == (Code.ADMISSION_REJECT, Reason.POLICY, 4_200)
    assert refused.is_retriable


def test_it_lets_nothing_in_that_the_bounds_keep_out() -> None:
    opinion = Opinion(verdict=Verdict(is_admitted=True))
    stage = a_stage(opinion, "p0", queue_capacity=1)
    stage.submit(make_task("runs"), make_task("waits"))
    asked = len(opinion.admitted)

    refused = stage.refusal(make_task("t"))

    assert refused.reason is Reason.QUEUE_FULL
    assert len(opinion.admitted) == asked


def test_no_victim_is_dropped_for_a_task_that_it_keeps_out() -> None:
    opinion = Opinion()
    stage = a_stage(opinion, "p0", queue_capacity=1, full_policy=FullPolicy.DROP_LRU)
    stage.submit(make_task("runs"), make_task("waits"))
    opinion.verdict = Verdict(is_admitted=False)

    effects = stage.give(ev.TaskSubmitted(make_task("t")))

    assert only(effects, ef.CommitFinish) == []
    assert len(stage.home().waiting) == 1


def test_it_is_shown_the_queue() -> None:
    opinion = Opinion()
    stage = a_stage(opinion, "p0", queue_capacity=10, batch=4)
    stage.submit(make_task("runs"), make_task("waits"), make_task("also", batch=True))

    stage.submit(make_task("t", batch=True, size_bytes=700))

    queue = opinion.admitted[-1].queue
    assert (queue.waiting, queue.capacity, queue.waiting_in_class, queue.capacity_of_class) == (2, 10, 1, 4)
    assert (queue.waiting_bytes, queue.slots) == (1_000, 1)


def test_a_task_that_lost_its_worker_is_not_kept_out_again() -> None:
    opinion = Opinion()
    stage = a_stage(opinion, "p0", "p1")
    stage.submit(make_task("t"))
    opinion.verdict = Verdict(is_admitted=False)

    stage.lose("p0")

    assert stage.run_of("t")
    with pytest.raises(AssertionError):
        error_of(stage.outcome("t"))


def test_it_is_told_where_the_session_is_warm() -> None:
    opinion = Opinion()
    stage = a_stage(opinion, "p0", "p1", "p2", determinism=Determinism.BEST_EFFORT)
    turn: dict[str, Any] = {"strict": False, "session": b"s" * 16}
    opinion.pool_id = "p1"
    stage.submit(make_task("first", **turn))
    stage.finish("first")

    stage.submit(make_task("second", **turn))

    assert [one.is_warm for one in opinion.placed[-1].candidates] == [False, True, False]
    assert opinion.placed[-1].built_in == "p1"
