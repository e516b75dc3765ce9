"""What the log says about tasks and workers.

One line per terminal task with every field of ORCH-3027, null where a value is unknown; one per change of a worker's
phase and of the trust in a replica; one per admission and refusal. A worker that serves again has one line for the
whole incident: why it had not, for how long, and how many starts it took.
"""

import logging
from collections import Counter
from collections.abc import Callable

from supervisor.core.breaker import Trust
from supervisor.core.effects import AnswerAccepted, AnswerRefused, CommitFinish, NoteBreaker, NoteWorker
from supervisor.core.events import EngineExited
from supervisor.core.lifecycle import Phase
from supervisor.core.plan import public_id_of
from supervisor.core.state import State
from supervisor.runtime.outages import Outages
from supervisor.runtime.task_codec import read_body

log = logging.getLogger("orchctl")

REFUSALS_PER_S_MAX = 50
"""Lines about refusals; under a flood the log would cost more than the refusals, and fill the disk."""

_LOUD = (Phase.BACKOFF, Phase.BROKEN, Phase.UNPLACED)


class Chronicle:
    """Writes the lines."""

    def __init__(self, state: Callable[[], State], now_ms: Callable[[], float]) -> None:
        self._state = state
        self._now_ms = now_ms
        self._second_ms = 0.0
        self._refusals = 0
        self._unshown: Counter[str] = Counter()
        self._outages = Outages()

    def note_accepted(self, effect: AnswerAccepted) -> None:
        """An admission, with its place and its prediction (ORCH-3029)."""
        fields = {
            "job_id": effect.job_id,
            "task_id": effect.task_id,
            "queue_position": effect.queue_position,
            "predicted_start_ms": effect.predicted_start_ms,
        }
        log.info("task accepted", extra=fields)

    def note_refused(self, effect: AnswerRefused) -> None:
        """A refusal: nothing of the caller's text is in it. A flood of them is counted instead of written."""
        refused = effect.refused
        if self._now_ms() - self._second_ms >= 1_000:
            self.settle()
        self._refusals += 1
        if self._refusals > REFUSALS_PER_S_MAX:
            self._unshown[refused.reason or refused.code] += 1
            return
        fields = {
            "code": refused.code,
            "reason": refused.reason,
            "pool_id": public_id_of(refused.pool_id) if refused.pool_id else None,
        }
        log.info("task refused", extra={**fields, "retry_after_ms": refused.retry_after_ms})

    def settle(self) -> None:
        """Begin another second, and say what was not shown of the one before."""
        self._second_ms, self._refusals = self._now_ms(), 0
        if self._unshown:
            log.warning("refusals not shown", extra={"reasons": dict(self._unshown)})
            self._unshown.clear()

    def note_finish(self, effect: CommitFinish) -> None:
        """The one line of a terminal task."""
        task, outcome = effect.task, effect.outcome
        replica = self._state().replicas.get(task.last_run.pool_id) if task.last_run else None
        fields = {
            "job_id": task.job_id,
            "task_id": task.task_id,
            "session_id": read_body(task).session_id,
            "client_id": task.client_id or None,
            "engine": task.engine,
            "pool_id": public_id_of(task.last_run.pool_id) if task.last_run else None,
            "replica_id": f"{task.last_run.pool_id}/{task.last_run.incarnation}" if task.last_run else None,
            "model_id": task.model_ref,
            "quant": replica.plan.quant if replica else None,
            "ctx": task.ctx,
            "tensor_split": replica.plan.tensor_split if replica else None,
            "engine_version": replica.engine_version if replica else None,
            "sampler_profile_version": task.sampler_profile_version
            or (replica.plan.sampler_profile_version if replica else None),
            "kv_warmth": outcome.kv_warmth if task.last_run else None,
            "queue_time_ms": round(task.queue_time_ms, 1) if task.last_run else None,
            "decode_time_ms": round(outcome.decode_ms, 1) if task.last_run else None,
            "tokens_in": outcome.tokens_in,
            "tokens_out": outcome.tokens_out,
            "eviction_events": replica.evictions if replica else None,
            "oom_events": replica.oom_events if replica else None,
            "driver_reset_events": self._state().faults.driver_resets,
            "attempt": task.attempt,
            "finish_reason": outcome.finish_reason,
            "code": outcome.error.code if outcome.error else None,
            "reason": outcome.error.reason if outcome.error else None,
        }
        log.info("task ended" if outcome.error is None else "task failed", extra=fields)

    def note_exit(self, event: EngineExited) -> None:
        """A process is gone: the kind for machines, one sentence for people."""
        fields = {"pool_id": event.pool_id, "incarnation": event.incarnation, "kind": event.kind, "cause": event.cause}
        log.warning("engine exited", extra=fields)

    def note_worker(self, effect: NoteWorker) -> None:
        """A worker changed its phase, or what is wanted of it."""
        level = logging.WARNING if effect.phase in _LOUD else logging.INFO
        state, now_ms = self._state(), self._now_ms()
        fields = {**_names(effect), "cause": effect.cause}
        if effect.phase in (Phase.BACKOFF, Phase.BROKEN):
            replica = state.replicas.get(effect.pool_id)
            due_ms = replica.due_ms if replica else None
            fields["retry_in_ms"] = None if due_ms is None else max(0, round(due_ms - now_ms))
        log.log(level, "worker %s", effect.phase, extra=fields)
        over = self._outages.note(effect, state.replicas, now_ms)
        if over is not None:
            starts = effect.incarnation - over.incarnation
            done = f"started again, {starts} {'time' if starts == 1 else 'times'}"
            incident = {"cause": over.cause, "out_ms": round(now_ms - over.since_ms), "done": done}
            log.warning("worker serves again", extra={**_names(effect), **incident})

    def note_breaker(self, effect: NoteBreaker) -> None:
        """The trust in a replica changed: it is ejected, on probation, or closed again."""
        level = logging.INFO if effect.trust == Trust.CLOSED else logging.WARNING
        retry_in_ms = None if effect.retry_in_ms is None else round(effect.retry_in_ms)
        fields = {**_names(effect), "cause": effect.cause}
        log.log(level, "breaker %s", effect.trust, extra={**fields, "retry_in_ms": retry_in_ms})


def _names(effect: NoteWorker | NoteBreaker) -> dict[str, object]:
    """The pool as everybody knows it, and which of its workers."""
    replica_id = f"{effect.pool_id}/{effect.incarnation}"
    return {"pool_id": public_id_of(effect.pool_id), "incarnation": effect.incarnation, "replica_id": replica_id}
