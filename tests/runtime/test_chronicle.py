"""What is written about refusals: each one, until there are too many to be read."""

import logging

import pytest

from supervisor.core.effects import AnswerRefused, NoteWorker
from supervisor.core.lifecycle import Phase
from supervisor.core.plan import HostPlan
from supervisor.core.refusals import Refused
from supervisor.core.state import build
from supervisor.runtime.chronicle import REFUSALS_PER_S_MAX, Chronicle
from supervisor.runtime.outages import Outages
from supervisor.wire.codes import Code, Reason

FULL = AnswerRefused("t", Refused(code=Code.ADMISSION_REJECT, reason=Reason.QUEUE_FULL, message="The queue is full."))
QUOTA = AnswerRefused("t", Refused(code=Code.ADMISSION_REJECT, reason=Reason.QUOTA, message="Too much."))


def lines(caplog: pytest.LogCaptureFixture, event: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.message == event]


def test_a_flood_of_refusals_is_counted_by_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now_ms = [5_000.0]
    state = build((), HostPlan())
    chronicle = Chronicle(lambda: state, lambda: now_ms[0])
    for _ in range(REFUSALS_PER_S_MAX + 7):
        chronicle.note_refused(FULL)
    for _ in range(3):
        chronicle.note_refused(QUOTA)

    now_ms[0] += 1_000
    chronicle.note_refused(FULL)

    assert len(lines(caplog, "task refused")) == REFUSALS_PER_S_MAX + 1
    (summary,) = lines(caplog, "refusals not shown")
    assert summary.__dict__["reasons"] == {"queue_full": 7, "quota": 3}


def test_what_is_left_of_a_flood_is_said_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    state = build((), HostPlan())
    chronicle = Chronicle(lambda: state, lambda: 9_000.0)
    for _ in range(REFUSALS_PER_S_MAX + 1):
        chronicle.note_refused(FULL)

    chronicle.settle()
    chronicle.settle()

    assert len(lines(caplog, "refusals not shown")) == 1


def test_an_incident_is_one_line_with_its_first_cause_its_length_and_its_starts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    now_ms = [1_000.0]
    state = build((), HostPlan())
    chronicle = Chronicle(lambda: state, lambda: now_ms[0])
    for phase, incarnation, cause in (
        (Phase.READY, 1, None),
        (Phase.STOPPING, 1, "the engine ended with status 1"),
        (Phase.BACKOFF, 1, "the engine ended with status 1"),
        (Phase.SPAWNING, 2, None),
        (Phase.BACKOFF, 2, "out of memory"),
        (Phase.SPAWNING, 3, None),
        (Phase.READY, 3, None),
    ):
        chronicle.note_worker(NoteWorker("a", incarnation, phase, cause))
        now_ms[0] += 500

    (incident,) = lines(caplog, "worker serves again")
    assert incident.__dict__["cause"] == "the engine ended with status 1"
    assert incident.__dict__["out_ms"] == 2_500
    assert incident.__dict__["done"] == "started again, 2 times"


def test_a_worker_that_is_gone_leaves_no_open_incident() -> None:
    outages = Outages()
    for number in range(100):
        outages.note(NoteWorker(f"p{number}", 1, Phase.BACKOFF, "no room"), {f"p{number}"}, 0.0)

    assert outages.note(NoteWorker("p98", 2, Phase.READY, None), {"p98"}, 1.0) is None
    assert outages.note(NoteWorker("p99", 2, Phase.READY, None), {"p99"}, 1.0) is not None
