"""GPUs that are there, are not, go and come back: no device, no engine, and no hope that is none."""

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.invariants import violations
from supervisor.core.lifecycle import Phase
from supervisor.wire.codes import Code, Reason
from tests.core.builders import (
    BOTH,
    GPU0,
    GPU1,
    NONE,
    error_of,
    make_plan,
    make_stage,
    make_task,
    only,
    ready_stage,
    started,
)

ONLY_GPU1 = ev.DevicesSeen((GPU1,))


@pytest.mark.orch("ORCH-1101", "ORCH-3018")
@pytest.mark.parametrize("inventory", [NONE, ev.DevicesUnknown("no driver")])
def test_without_a_gpu_no_engine_is_ever_spawned(inventory: ev.Event) -> None:
    stage = make_stage()
    stage.give(inventory)
    stage.give(ev.ResumeRequested("p0"))
    stage.pass_ms(3_600_000)
    stage.give(inventory)

    refused = stage.refusal(make_task("t"))

    assert stage.replica().phase is Phase.UNPLACED
    assert not any(isinstance(effect, ef.VerifyModel | ef.SpawnEngine) for effect in stage.done)
    assert (refused.code, refused.reason) == (Code.POOL_UNAVAILABLE, Reason.NO_GPU)


def test_a_worker_starts_when_its_gpu_appears() -> None:
    stage = make_stage()
    stage.give(NONE)

    effects = stage.give(BOTH)

    assert len(only(effects, ef.VerifyModel)) == 1


@pytest.mark.orch("ORCH-3018", "ORCH-3038")
def test_a_lost_gpu_stops_its_worker_alone_and_ends_what_waits_for_it() -> None:
    stage = ready_stage(
        make_plan("p0"), make_plan("p1", devices=(1,), model_refs=frozenset({"n"}), model_digest="sha256:n")
    )
    stage.submit(make_task("t"), make_task("next"))

    stage.answer_aborts(stage.give(ONLY_GPU1))
    stage.give(ev.EngineStopped("p0", 1))

    assert [stage.replica(pool).phase for pool in ("p0", "p1")] == [Phase.UNPLACED, Phase.READY]
    assert [error_of(stage.outcome(name)).code for name in ("t", "next")] == [Code.POOL_UNAVAILABLE] * 2
    assert "GPU-0" in (stage.replica().cause or "")


def test_what_waits_for_a_set_with_another_worker_goes_there() -> None:
    stage = ready_stage(make_plan("p0"), make_plan("p1", devices=(1,)))
    stage.submit(make_task("a"), make_task("b"), make_task("c"))

    stage.answer_aborts(stage.give(ONLY_GPU1))
    stage.give(ev.EngineStopped("p0", 1))

    assert started(stage.finish("b")) == [("a", "p1")]


@pytest.mark.orch("ORCH-3018")
def test_a_record_that_is_written_after_the_gpu_is_gone_ends_at_once() -> None:
    stage = ready_stage()
    stage.give(ev.TaskSubmitted(make_task("t")))
    stage.give(NONE)
    stage.give(ev.EngineStopped("p0", 1))

    effects = stage.give(ev.AcceptsCommitted(("t",)))

    assert [type(effect) for effect in effects] == [ef.AnswerAccepted, ef.CommitFinish]
    assert error_of(stage.outcome("t")).code is Code.POOL_UNAVAILABLE
    assert violations(stage.core.state, stage.now) == []


def test_a_gpu_that_returns_while_its_worker_stops_is_used_again() -> None:
    stage = ready_stage()
    stage.give(NONE)
    stage.give(BOTH)

    stage.give(ev.EngineStopped("p0", 1))
    stage.pass_ms(2_000)

    assert stage.replica().phase is Phase.VERIFYING


def test_a_gpu_that_goes_while_its_worker_stops_for_another_reason_is_noticed() -> None:
    stage = ready_stage()
    stage.give(ev.EngineExited("p0", 1, "crash", "it crashed"))
    stage.give(NONE)

    stage.give(ev.EngineStopped("p0", 1))

    assert stage.replica().phase is Phase.UNPLACED


def test_a_worker_follows_its_gpu_by_uuid_when_the_order_changes() -> None:
    stage = ready_stage()
    swapped = ev.DevicesSeen((ev.DeviceSeen(GPU1.uuid, 0, "H100", 81_920), ev.DeviceSeen(GPU0.uuid, 1, "H100", 81_920)))
    stage.give(swapped)
    stage.lose()
    stage.pass_ms(2_000)
    stage.load()

    assert only(stage.done, ef.SpawnEngine)[-1].devices == ("GPU-0",)


def test_one_lost_answer_never_touches_a_worker_that_has_begun() -> None:
    stage = ready_stage()

    effects = stage.give(ev.DevicesUnknown("no answer"))

    assert effects == []
    assert stage.replica().phase is Phase.READY


@pytest.mark.orch("ORCH-3011")
def test_a_pool_over_two_gpus_needs_both() -> None:
    stage = make_stage(make_plan(devices=(0, 1)))
    stage.give(ONLY_GPU1)

    assert stage.replica().phase is Phase.UNPLACED
    assert "GPU 0" in (stage.replica().cause or "")
