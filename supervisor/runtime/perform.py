"""Performs the core's effects: one table from effect to hand. Decides nothing; nothing here waits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from supervisor.core import effects as ef
from supervisor.runtime import rollout_notes
from supervisor.runtime.answers import Answers, is_of_change
from supervisor.runtime.chronicle import Chronicle
from supervisor.runtime.fault_notes import FaultNotes
from supervisor.runtime.intent_file import IntentFile
from supervisor.runtime.journaling import Journaling
from supervisor.runtime.lease_desk import LeaseDesk
from supervisor.runtime.metrics import Metrics
from supervisor.runtime.needs_file import NeedsFile
from supervisor.runtime.parity import ParityProbe
from supervisor.runtime.runs import Runs
from supervisor.runtime.self_test_desk import SelfTestDesk
from supervisor.runtime.stream_logs import StreamLogs
from supervisor.runtime.upgrade import UpgradeDesk
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
    needs: NeedsFile
    faults: FaultNotes
    leases: LeaseDesk
    self_tests: SelfTestDesk
    upgrades: UpgradeDesk
    parity: ParityProbe
    forget: tuple[Callable[[str], None], ...]
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
            ef.AnswerRefused: (answers.give, _of_tasks(metrics.note_refused), _of_tasks(chronicle.note_refused)),
            ef.AnswerCancelled: (answers.give,),
            ef.CountTokens: (hands.count_tokens,),
            ef.StartRun: (hands.note_given, runs.start, metrics.note_started),
            ef.AbortRun: (runs.abort,),
            ef.ConfirmSlotIdle: (hands.confirm_slot_idle,),
            ef.VerifyModel: (hands.verify_model,),
            ef.MeasureRoom: (hands.measure_room,),
            ef.SpawnEngine: (hands.spawn,),
            ef.AdoptEngine: (hands.adopt,),
            ef.EndFoundEngine: (hands.end_found,),
            ef.CommitIntent: (parts.intents.commit,),
            ef.CommitNeeds: (parts.needs.commit,),
            ef.ProbeEngine: (hands.probe,),
            ef.NoteFault: (parts.faults.note_fault,),
            ef.NoteRecovery: (parts.faults.note_recovery,),
            ef.AnswerLease: (parts.leases.answer,),
            ef.VerifyRelease: (parts.leases.verify,),
            ef.NoteLease: (parts.leases.note,),
            ef.AwaitHealth: (hands.await_health,),
            ef.InspectEngine: (hands.inspect,),
            ef.RunSelfTest: (hands.test,),
            ef.ProbeIdleEngine: (hands.probe_idle,),
            ef.RunLiveTest: (parts.self_tests.run,),
            ef.StopEngine: (hands.stop,),
            ef.NoteWorker: (metrics.note_worker, chronicle.note_worker),
            ef.NoteEviction: (metrics.note_eviction,),
            ef.NoteBreaker: (chronicle.note_breaker,),
            ef.AnswerRollout: (answers.give,),
            ef.MeasureParity: (rollout_notes.note_parity, parts.parity.measure),
            ef.NoteRollout: (rollout_notes.note_rollout, metrics.note_rollout),
            ef.ForgetWorker: (rollout_notes.note_forgotten, *(_of_key(forget) for forget in parts.forget)),
            ef.CompleteQuiesce: (parts.upgrades.note_quiet,),
            ef.RefuseQuiesce: (parts.upgrades.note_refused,),
            ef.CompleteHalt: (lambda _: parts.on_halted(),),
        }

    def perform(self, effect: ef.Effect) -> None:
        """Perform one effect. What is slow becomes a task that ends in an event."""
        for hand in self._hands[type(effect)]:
            hand(effect)


def _of_tasks(hand: Callable[[ef.AnswerRefused], None]) -> Hand:
    """A refused change of an operator is in the audit trail; it is no refused task."""

    def pick(effect: ef.AnswerRefused) -> None:
        if not is_of_change(effect.ticket):
            hand(effect)

    return pick


def _of_key(hand: Callable[[str], None]) -> Hand:
    return lambda effect: hand(effect.key)
