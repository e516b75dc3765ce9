"""Performs the core's effects: one table from effect to hand. Decides nothing; nothing here waits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from supervisor.core import effects as ef
from supervisor.runtime.answers import Answers
from supervisor.runtime.chronicle import Chronicle
from supervisor.runtime.intent_file import IntentFile
from supervisor.runtime.journaling import Journaling
from supervisor.runtime.metrics import Metrics
from supervisor.runtime.runs import Runs
from supervisor.runtime.stream_logs import StreamLogs
from supervisor.runtime.worker_hands import WorkerHands

Hand = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Parts:
    """Those who perform."""

    answers: Answers
    journaling: Journaling
    runs: Runs
    hands: WorkerHands
    logs: StreamLogs
    metrics: Metrics
    chronicle: Chronicle
    intents: IntentFile
    on_halted: Callable[[], None]


class Performer:
    """Hands each effect to those who perform, count and log it, in this order."""

    def __init__(self, parts: Parts) -> None:
        answers, journaling, runs, hands, logs = parts.answers, parts.journaling, parts.runs, parts.hands, parts.logs
        metrics, chronicle = parts.metrics, parts.chronicle
        self._hands: dict[type, tuple[Hand, ...]] = {
            ef.CommitAccept: (journaling.accept,),
            ef.CommitAttempt: (journaling.attempt,),
            ef.CommitFinish: (journaling.finish, metrics.note_finish, chronicle.note_finish),
            ef.DropLogs: (logs.drop_all,),
            ef.Forget: (journaling.forget,),
            ef.AnswerAccepted: (answers.give, metrics.note_accepted, chronicle.note_accepted),
            ef.AnswerRefused: (answers.give, metrics.note_refused, chronicle.note_refused),
            ef.AnswerCancelled: (answers.give,),
            ef.CountTokens: (hands.count_tokens,),
            ef.StartRun: (runs.start, metrics.note_started),
            ef.AbortRun: (runs.abort,),
            ef.ConfirmSlotIdle: (hands.confirm_slot_idle,),
            ef.VerifyModel: (hands.verify_model,),
            ef.MeasureRoom: (hands.measure_room,),
            ef.SpawnEngine: (hands.spawn,),
            ef.CommitIntent: (parts.intents.commit,),
            ef.AwaitHealth: (hands.await_health,),
            ef.InspectEngine: (hands.inspect,),
            ef.RunSelfTest: (hands.test,),
            ef.StopEngine: (hands.stop,),
            ef.NoteWorker: (metrics.note_worker, chronicle.note_worker),
            ef.NoteEviction: (metrics.note_eviction,),
            ef.NoteBreaker: (chronicle.note_breaker,),
            ef.CompleteHalt: (lambda _: parts.on_halted(),),
        }

    def perform(self, effect: ef.Effect) -> None:
        """Perform one effect. What is slow becomes a task that ends in an event."""
        for hand in self._hands[type(effect)]:
            hand(effect)
