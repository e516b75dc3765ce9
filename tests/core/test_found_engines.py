"""Engines that outlived their daemon: each belongs to a worker of this one, or is ended."""

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.lifecycle import Phase
from supervisor.core.replicas import FoundEngine
from tests.core.builders import BOTH, make_stage, only

pytestmark = pytest.mark.orch("ORCH-3053")


def found(key: str) -> FoundEngine:
    return FoundEngine(key, 4_000, 9_000, ("GPU-0",))


def test_an_engine_of_a_worker_that_this_daemon_does_not_know_is_ended() -> None:
    stage = make_stage()

    effects = stage.give(ev.EnginesFound((found("p0+2"), found("p9"))))

    assert only(effects, ef.EndFoundEngine) == [ef.EndFoundEngine("p0+2"), ef.EndFoundEngine("p9")]


def test_beside_it_the_engine_of_a_known_worker_is_adopted() -> None:
    stage = make_stage()
    stage.give(ev.EnginesFound((found("p0+2"), found("p0"))))
    stage.give(BOTH)
    effects = stage.give(ev.ModelVerified("p0", stage.replica().incarnation, "d"))

    assert [effect.pool_id for effect in only(effects, ef.AdoptEngine)] == ["p0"]
    assert stage.replica().phase is Phase.SPAWNING
    assert ef.EndFoundEngine("p0") not in stage.done


def test_one_of_a_worker_that_was_stopped_for_good_meanwhile_is_ended() -> None:
    stage = make_stage()
    stage.give(ev.HaltRequested(0.0))

    effects = stage.give(ev.EnginesFound((found("p0"),)))

    assert only(effects, ef.EndFoundEngine) == [ef.EndFoundEngine("p0")]
    assert stage.replica().found is None
