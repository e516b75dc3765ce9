"""The oracle itself: a core that breaks a promise is caught. Each story is a sound one but for its last effect."""

from collections.abc import Callable

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.tasks import Outcome
from supervisor.wire.codes import FinishReason
from tests.core.builders import BOTH, CTX, DIGEST, GPU1, NONE, VERSION, make_plan, make_task
from tests.core.ledger import BrokenPromiseError, Ledger
from tests.core.oracle import Oracle

TASK = make_task("t", strict=False)
OTHER = make_task("u", strict=False)
END = ef.CommitFinish(TASK, Outcome(finish_reason=FinishReason.STOP, emitted=3))
STEPS: list[ev.Event | ef.Effect] = [
    BOTH,
    ef.VerifyModel("p0", 1),
    ef.MeasureRoom("p0", 1, ("GPU-0",)),
    ef.SpawnEngine("p0", 1, ("GPU-0",)),
    ef.AwaitHealth("p0", 1),
    ef.InspectEngine("p0", 1),
    ev.EngineInspected("p0", 1, VERSION, 1, CTX),
    ef.RunSelfTest("p0", 1),
]
READY = [*STEPS, ev.EngineTested("p0", 1)]


def accepted(task_name: str) -> list[ev.Event | ef.Effect]:
    task = TASK if task_name == "t" else OTHER
    return [
        ev.TaskSubmitted(task),
        ef.CommitAccept(task),
        ev.AcceptsCommitted((task_name,)),
        ef.AnswerAccepted(task_name, task_name, task_name, 0, None),
    ]


def start(run_id: int, name: str = "t", incarnation: int = 1) -> ef.StartRun:
    task = TASK if name == "t" else OTHER
    return ef.StartRun(task, run_id, "p0", "p0/1", incarnation, VERSION, DIGEST, 5_000, None)


def finished(run_id: int) -> ev.RunFinished:
    return ev.RunFinished(run_id, FinishReason.STOP, 1, 3, 3, 1.0)


def lost(run_id: int) -> ev.RunFailed:
    return ev.RunFailed(run_id, "engine", "cut", 0, is_worker_lost=True)


IDLE = ev.SlotsSeenIdle("p0", 1, (1, 2))
RUNNING = [*READY, *accepted("t"), start(1)]
Story = list[ev.Event | ef.Effect]
BROKEN: dict[str, Story] = {
    "a dispatch before Ready": [*STEPS, *accepted("t"), start(1)],
    "a dispatch to a drained worker": [*READY, *accepted("t"), ev.DrainRequested("p0", 1), start(1)],
    "a dispatch to a dead incarnation": [*READY, *accepted("t"), start(1, incarnation=7)],
    "a dispatch to a full worker": [*RUNNING, *accepted("u"), start(2, "u")],
    "a dispatch to a slot that is not seen idle": [
        *RUNNING,
        *accepted("u"),
        ef.AbortRun(1),
        ev.RunAborted(1, None, 3, 3, 1.0),
        start(2, "u"),
    ],
    "a dispatch while the daemon stops": [*READY, *accepted("t"), ev.HaltRequested(1), start(1)],
    "one task on two slots": [*RUNNING, start(2)],
    "a third attempt": [*RUNNING, lost(1), IDLE, start(2), lost(2), IDLE, start(3)],
    "a dispatch of a cancelled task": [*READY, *accepted("t"), ev.CancelRequested("c", "t"), start(1)],
    "a re-run after tokens were delivered": [
        *RUNNING,
        ev.RunFailed(1, "engine", "cut", 2, is_worker_lost=True),
        ev.SlotsSeenIdle("p0", 1, (1,)),
        start(2),
    ],
    "an ack before the disk has it": [*READY, *accepted("t")[:2], accepted("t")[3]],
    "an answer twice": [*READY, *accepted("t"), ef.AnswerAccepted("t", "t", "t", 0, None)],
    "an end twice": [*RUNNING, finished(1), END, END],
    "an end while it runs": [*RUNNING, END],
    "an end that forgets tokens": [
        *RUNNING,
        finished(1),
        ef.CommitFinish(TASK, Outcome(finish_reason=FinishReason.STOP, emitted=2)),
    ],
    "an abort of a run that is over": [*RUNNING, finished(1), ef.AbortRun(1)],
    "an engine without a GPU": [NONE, *STEPS[1:4]],
    "an engine on a foreign mask": [ev.DevicesSeen((GPU1,)), *STEPS[1:4]],
    "an incarnation twice": [*STEPS[:3], ef.VerifyModel("p0", 1)],
    "a worker replaced while it serves": [*READY, ef.VerifyModel("p0", 2)],
    "a stop twice": [*READY, ef.StopEngine("p0", 1), ef.StopEngine("p0", 1)],
    "a halt that leaves an engine": [*READY, ev.HaltRequested(1), ef.CompleteHalt()],
}


def tell(story: Story) -> Callable[[], None]:
    """Play a story up to its last part; gives what tells that one."""
    oracle = Oracle((make_plan(queue_capacity=1),), Ledger())

    def hear(part: ev.Event | ef.Effect) -> None:
        if isinstance(part, ev.Event):
            oracle.note_event(part, 0.0)
        else:
            oracle.note_effects([part])

    for part in story[:-1]:
        hear(part)
    return lambda: hear(story[-1])


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_noticed_when_it_is_broken(name: str) -> None:
    last = tell(BROKEN[name])

    with pytest.raises(BrokenPromiseError):
        last()


def test_a_queue_above_its_bound_is_noticed() -> None:
    last = tell([*READY, *accepted("t"), ev.TaskSubmitted(OTHER), ef.CommitAccept(OTHER)])

    with pytest.raises(BrokenPromiseError, match="2 tasks wait"):
        last()


def test_the_sixth_start_in_five_minutes_is_noticed() -> None:
    story: Story = [BOTH]
    for incarnation in range(1, 7):
        story += [
            ef.VerifyModel("p0", incarnation),
            ef.MeasureRoom("p0", incarnation, ("GPU-0",)),
            ef.SpawnEngine("p0", incarnation, ("GPU-0",)),
            ev.StepFailed("p0", incarnation, "no"),
        ]
    last = tell(story[:-1])

    with pytest.raises(BrokenPromiseError, match="6 starts"):
        last()


def test_a_sound_story_is_let_pass() -> None:
    tell([*RUNNING, finished(1), END])()


def test_callers_see_one_end_and_one_job() -> None:
    ledger = Ledger()
    ledger.ack("task", "job")
    ledger.end("job", END.outcome)

    with pytest.raises(BrokenPromiseError):
        ledger.end("job", END.outcome)
    with pytest.raises(BrokenPromiseError):
        ledger.ack("task", "other")


def test_a_caller_without_an_end_and_a_ticket_without_an_answer_are_noticed() -> None:
    ledger = Ledger()
    ledger.ack("task", "job")
    oracle = Oracle((make_plan(),), ledger)
    oracle.note_event(ev.TaskSubmitted(TASK), 0.0)

    assert ledger.unended() == ["job"]
    with pytest.raises(BrokenPromiseError):
        oracle.check_all_answered()
