"""A self-test of a worker that serves, when an operator asks for one (ORCH-3049). Judges nothing by its outcome.

It takes one free, cold slot for its time, as a probe does and under the same name in `Generating`, so that the two
exclude each other. It takes no slot in which the KV of a session lies, and none that a task is to have: where there is
no such slot, it is refused as busy. What it finds is told to the operator and leaves the worker as it is.
"""

from supervisor.core import wedge
from supervisor.core.effects import AnswerRefused, RunLiveTest
from supervisor.core.events import SelfTestOver, SelfTestRequested
from supervisor.core.lifecycle import Phase
from supervisor.core.refusals import Refused
from supervisor.core.replicas import Replica
from supervisor.core.state import State, note_load
from supervisor.wire.codes import Code, Reason

RETRY_BUSY_MS = 2_000
_BUSY = "Every slot of the pool is taken, or keeps the cache of a session."


def request(state: State, event: SelfTestRequested, _now_ms: float) -> None:
    """Begin one on the worker that a pool serves with now, or say why not."""
    pool = state.pools.get(event.pool_id)
    if pool is None:
        unknown = Refused(code=Code.INVALID_PARAMS, reason=Reason.NOT_FOUND, message="There is no such pool.")
        state.out.append(AnswerRefused(event.ticket, unknown))
        return
    replica = state.replicas[pool.current]
    refused = _find_refusal(state, replica)
    if refused is not None:
        state.out.append(AnswerRefused(event.ticket, refused))
        return
    run_id = state.next_run
    state.next_run += 1
    slot, _ = replica.slot_table.take(run_id, None, None)
    replica.generating.probe = run_id
    note_load(state, replica)
    pinned = slot if replica.plan.can_pin_slots else None
    state.out.append(RunLiveTest(event.ticket, replica.pool_id, replica.incarnation, run_id, pinned))


def _find_refusal(state: State, replica: Replica) -> Refused | None:
    """1. it is not Ready, or the daemon stops; 2. a test or a probe runs, or no slot is free for one."""
    if replica.phase is not Phase.READY or state.halt_deadline_ms is not None:  # 1
        return _refused(replica, Code.POOL_UNREADY, None, "The pool is not Ready, so there is nothing to test.")
    is_taken = replica.exclusive_run is not None or replica.doubts or replica.generating.probe is not None
    if is_taken or replica.load >= replica.slots or not replica.slot_table.has_cold:  # 2
        return _refused(replica, Code.ADMISSION_REJECT, Reason.BUSY, _BUSY)
    return None


def _refused(replica: Replica, code: Code, reason: Reason | None, message: str) -> Refused:
    return Refused(
        code=code,
        reason=reason,
        message=message,
        retry_after_ms=RETRY_BUSY_MS,
        engine=replica.plan.engine,
        pool_id=replica.plan.public_id,
    )


def note_over(state: State, event: SelfTestOver, _now_ms: float) -> None:
    """It is done, however it went: its slot is free. Of another life, it means nothing."""
    replica = state.replicas.get(event.pool_id)
    if replica is None or replica.incarnation != event.incarnation or replica.generating.probe != event.run_id:
        return
    wedge.give_back(state, replica)
