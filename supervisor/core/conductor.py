"""The conductor: `handle(event, now_ms) -> effects`. Routes each event to the machine that owns it, then settles.

Events about a worker or a run of the past are dropped here. Time is an argument; there is one timer, `next_due_ms`.
"""

from collections.abc import Callable
from typing import TypeVar

from supervisor.core import (
    dispatch,
    ejection,
    endings,
    gpu_faults,
    intake,
    leases,
    live_test,
    masks,
    memory_desk,
    operator,
    pools,
    quiesce,
    rollout_requests,
    rollouts,
    runs,
    sessions,
    trials,
    waiting,
    wedge,
    worker_reports,
    workers,
)
from supervisor.core import events as ev
from supervisor.core.agenda import Alarm, Entry
from supervisor.core.effects import CommitIntent, CommitNeeds, Effect
from supervisor.core.lifecycle import Phase, Signal
from supervisor.core.plan import HostPlan, PoolPlan
from supervisor.core.policy import Policy
from supervisor.core.replicas import Replica
from supervisor.core.state import State, build
from supervisor.core.tasks import Waiting

OF_MEMORY = frozenset({"oom_vram", "oom_host", "host_alloc"})
"""Kinds of exits for want of memory (ORCH-3039)."""

E = TypeVar("E")
Handler = Callable[[State, E, float], None]


class Conductor:
    """The core of one daemon. Not thread-safe: one loop calls it, one event at a time."""

    def __init__(self, plans: tuple[PoolPlan, ...], host: HostPlan | None = None, policy: Policy | None = None) -> None:
        self.state = build(plans, host or HostPlan())
        self.state.policy = policy

    def handle(self, event: ev.Event, now_ms: float) -> list[Effect]:
        """Take one event; gives what is to be done about it, in order. `now_ms` never goes backwards."""
        _HANDLERS[type(event)](self.state, event, now_ms)
        self._settle(now_ms)
        effects, self.state.out = self.state.out, []
        return effects

    def next_due_ms(self) -> float | None:
        """When TimePassed is next wanted; None for never."""
        return self.state.agenda.next_due_ms()

    def _settle(self, now_ms: float) -> None:
        if (self.state.rolling or self.state.aside) and self.state.halt_deadline_ms is None:
            rollouts.settle(self.state, now_ms)
        if self.state.leases and self.state.halt_deadline_ms is None:
            leases.settle(self.state, now_ms)
        if self.state.dirty:
            dispatch.next_moves(self.state, now_ms)
        if self.state.halt_deadline_ms is not None:
            operator.settle_halt(self.state, now_ms)
        if self.state.quiesce_deadline_ms is not None:
            quiesce.settle(self.state, now_ms)
            if self.state.is_dispatching:  # it was refused: what waited may move
                dispatch.next_moves(self.state, now_ms)
        if self.state.is_intent_stale:
            self.state.is_intent_stale = False
            self.state.out.append(CommitIntent(operator.current_intent(self.state)))
        if self.state.are_needs_stale:
            self.state.are_needs_stale = False
            self.state.out.append(CommitNeeds(tuple(self.state.needs.entries.values())))


def _pass_time(state: State, _: ev.TimePassed, now_ms: float) -> None:
    while (entry := state.agenda.pop_due(now_ms)) is not None:
        _fire(state, entry, now_ms)


def _fire(state: State, entry: Entry, now_ms: float) -> None:
    _, alarm, key = entry
    _ALARMS[alarm](state, alarm, key, now_ms)


def _fire_worker(state: State, alarm: Alarm, key: str, now_ms: float) -> None:
    if key.rpartition(" ")[2] not in state.replicas:
        return  # it was forgotten
    if alarm is Alarm.WORKER_STABLE:
        incarnation, pool_id = key.split(" ", 1)
        workers.note_stable(state.replicas[pool_id], int(incarnation))
        memory_desk.note_stable(state, state.replicas[pool_id], int(incarnation))
    elif alarm is Alarm.WORKER_PHASE:
        workers.note_due(state, state.replicas[key], now_ms)
    elif alarm is Alarm.BREAKER:
        ejection.note_due(state, state.replicas[key], now_ms)
    else:
        operator.note_drain_deadline(state, state.replicas[key], now_ms)


def _fire_deadline(state: State, job_id: str, now_ms: float) -> None:
    task = state.tasks.get(job_id)
    if task is not None and isinstance(task.phase, Waiting) and task.deadline_at_ms <= now_ms:
        waiting.expire(state, task)


def _current(state: State, pool_id: str, incarnation: int) -> Replica | None:
    replica = state.replicas.get(pool_id)
    return replica if replica is not None and replica.incarnation == incarnation else None


def _give(state: State, event: ev.EngineHealthy | ev.EngineTested | ev.EngineStopped, now_ms: float) -> None:
    signals = {
        ev.EngineHealthy: Signal.HEALTHY,
        ev.EngineTested: Signal.TESTED,
        ev.EngineStopped: Signal.STOPPED,
    }
    if replica := _current(state, event.pool_id, event.incarnation):
        was = replica.phase
        workers.give(state, replica, signals[type(event)], now_ms)
        if replica.phase is Phase.READY is not was:
            memory_desk.note_ready(state, replica, now_ms)


def _fail_step(state: State, event: ev.StepFailed | ev.EngineExited, now_ms: float) -> None:
    if replica := _current(state, event.pool_id, event.incarnation):
        if isinstance(event, ev.EngineExited):
            replica.oom_events += event.kind in OF_MEMORY
            memory_desk.note_exit(state, replica, event)
        signal = Signal.EXITED if isinstance(event, ev.EngineExited) else Signal.STEP_FAILED
        workers.give(state, replica, signal, now_ms, event.cause)


def _note_model(state: State, event: ev.ModelVerified, now_ms: float) -> None:
    if replica := _current(state, event.pool_id, event.incarnation):
        worker_reports.note_model_verified(state, replica, event, now_ms)


def _note_room(state: State, event: ev.RoomMeasured, now_ms: float) -> None:
    if replica := _current(state, event.pool_id, event.incarnation):
        memory_desk.note_room(state, replica, event, now_ms)
        if replica.is_short and not replica.is_too_big:
            pools.make_room(state, replica, now_ms)


def _note_devices(state: State, event: ev.DevicesSeen, now_ms: float) -> None:
    memory_desk.refuse_masks(state, event.devices, now_ms)
    gpu_faults.note_devices(state, event, now_ms)
    memory_desk.wake(state, event, now_ms)


def _note_spawned(state: State, event: ev.EngineSpawned, now_ms: float) -> None:
    if replica := _current(state, event.pool_id, event.incarnation):
        worker_reports.note_spawned(state, replica, event, now_ms)


def _note_inspected(state: State, event: ev.EngineInspected, now_ms: float) -> None:
    if replica := _current(state, event.pool_id, event.incarnation):
        worker_reports.note_inspected(state, replica, event, now_ms)


def _note_step(state: State, event: ev.StepPassed, now_ms: float) -> None:
    if replica := _current(state, event.pool_id, event.incarnation):
        worker_reports.note_step_passed(replica, event, now_ms)


def _note_probed(state: State, event: ev.EngineProbed, now_ms: float) -> None:
    if replica := _current(state, event.pool_id, event.incarnation):
        gpu_faults.note_probed(state, replica, event, now_ms)


def _note_slots_idle(state: State, event: ev.SlotsSeenIdle, _: float) -> None:
    if replica := _current(state, event.pool_id, event.incarnation):
        runs.note_slots_idle(state, replica, event)


def _note_slot_stuck(state: State, event: ev.SlotStuck, now_ms: float) -> None:
    """The engine decodes on for nobody: only a new worker gives the slot back."""
    replica = _current(state, event.pool_id, event.incarnation)
    if replica is not None and event.run_id in replica.freeing:
        workers.give(state, replica, Signal.REPLACE, now_ms, "a slot was not freed after a cancel")


def _note_finishes(state: State, event: ev.FinishesCommitted, now_ms: float) -> None:
    for job_id, log_bytes in zip(event.job_ids, event.log_bytes, strict=True):
        endings.note_committed(state, job_id, log_bytes, now_ms)


def _note_journal(state: State, event: ev.JournalChanged, _: float) -> None:
    state.is_journal_writable = event.is_writable
    state.journal_cause = event.cause


def _note_idle_probed(state: State, event: ev.IdleEngineProbed, now_ms: float) -> None:
    replica = _current(state, event.pool_id, event.incarnation)
    if replica is not None and (cause := wedge.note_probed(state, replica, event, now_ms)) is not None:
        workers.give(state, replica, Signal.REPLACE, now_ms, cause)


def _note_misplaced(state: State, event: ev.EngineMisplaced, now_ms: float) -> None:
    replica = _current(state, event.pool_id, event.incarnation)
    if replica is not None and replica.phase is Phase.READY:
        workers.give(state, replica, Signal.REPLACE, now_ms, event.cause)


def _note_first_token(state: State, event: ev.FirstTokenCame, now_ms: float) -> None:
    wedge.note_output(state, event.run_id, now_ms)
    trials.note_first_token(state, event.run_id, now_ms)


def _note_finished(state: State, event: ev.RunFinished, now_ms: float) -> None:
    wedge.note_output(state, event.run_id, now_ms)
    runs.note_finished(state, event, now_ms)


def _note_aborted(state: State, event: ev.RunAborted, now_ms: float) -> None:
    wedged = wedge.note_aborted(state, event, now_ms)
    runs.note_aborted(state, event, now_ms)
    if wedged is not None:
        replica, cause = wedged
        workers.give(state, replica, Signal.REPLACE, now_ms, cause)


_ALARMS: dict[Alarm, Callable[[State, Alarm, str, float], None]] = {
    Alarm.TASK_DEADLINE: lambda state, _, key, now_ms: _fire_deadline(state, key, now_ms),
    Alarm.RUN_WALL: lambda state, _, key, __: runs.note_wall(state, int(key)),
    Alarm.READERS_GONE: lambda state, _, key, now_ms: runs.note_grace_over(state, key, now_ms),
    Alarm.WORKER_PHASE: _fire_worker,
    Alarm.WORKER_STABLE: _fire_worker,
    Alarm.DRAIN_DEADLINE: _fire_worker,
    Alarm.BREAKER: _fire_worker,
    Alarm.PROBE: lambda state, _, key, now_ms: wedge.note_due(state, key, now_ms),
    Alarm.HALT_DEADLINE: lambda state, _, __, now_ms: operator.note_halt_deadline(state, now_ms),
    Alarm.QUIESCE_DEADLINE: lambda state, _, __, now_ms: quiesce.settle(state, now_ms),
    Alarm.RETENTION: lambda state, _, __, now_ms: endings.expire(state, now_ms),
    Alarm.DEVICE_FAULT: lambda state, _, __, now_ms: gpu_faults.note_due(state, now_ms),
    Alarm.ROLLOUT: lambda _, __, ___, ____: None,  # whatever is due is seen when the event is settled
    Alarm.LEASE: lambda state, _, key, now_ms: leases.note_due(state, key, now_ms),
    Alarm.SESSION_END: lambda state, _, key, now_ms: sessions.expire(state, key, now_ms),
}
assert set(_ALARMS) == set(Alarm), "an alarm that nobody hears"

_HANDLERS: dict[type, Callable[..., None]] = {
    ev.TaskSubmitted: lambda state, event, now_ms: intake.submit(state, event.task, now_ms),
    ev.TokensCounted: intake.note_tokens_counted,
    ev.AcceptsCommitted: intake.note_accepts_committed,
    ev.AcceptsFailed: lambda state, event, _: intake.note_accepts_failed(state, event),
    ev.FinishesCommitted: _note_finishes,
    ev.JournalChanged: _note_journal,
    ev.CancelRequested: lambda state, event, _: intake.cancel(state, event),
    ev.ReadersLeft: runs.note_readers_left,
    ev.ReadersCame: lambda state, event, _: runs.note_readers_came(state, event),
    ev.FirstTokenCame: _note_first_token,
    ev.RunFinished: _note_finished,
    ev.RunFailed: runs.note_failed,
    ev.RunStalled: lambda state, event, _: runs.note_stalled(state, event),
    ev.RunAborted: _note_aborted,
    ev.SlotsSeenIdle: _note_slots_idle,
    ev.SlotStuck: _note_slot_stuck,
    ev.DevicesSeen: _note_devices,
    ev.HostSeen: memory_desk.wake_by_host,
    ev.MemoryHeld: memory_desk.note_held,
    ev.NeedsRestored: memory_desk.restore,
    ev.DeviceFaulted: gpu_faults.note_faulted,
    ev.DriverWasReset: gpu_faults.note_driver_reset,
    ev.EngineProbed: _note_probed,
    ev.DevicesUnknown: masks.note_devices_unknown,
    ev.ModelVerified: _note_model,
    ev.RoomMeasured: _note_room,
    ev.EnginesFound: worker_reports.note_engines_found,
    ev.IntentRestored: operator.restore_intent,
    ev.LeaseRequested: leases.request,
    ev.LeaseEnded: leases.end,
    ev.ReleaseVerified: leases.note_released,
    ev.EngineSpawned: _note_spawned,
    ev.EngineHealthy: _give,
    ev.EngineInspected: _note_inspected,
    ev.StepPassed: _note_step,
    ev.EngineTested: _give,
    ev.StepFailed: _fail_step,
    ev.EngineExited: _fail_step,
    ev.EngineStopped: _give,
    ev.IdleEngineProbed: _note_idle_probed,
    ev.EngineMisplaced: _note_misplaced,
    ev.SelfTestRequested: live_test.request,
    ev.SelfTestOver: live_test.note_over,
    ev.SessionEndRequested: lambda state, event, _: sessions.end(state, event),
    ev.DrainRequested: operator.drain,
    ev.ResumeRequested: operator.resume,
    ev.SplitRequested: operator.split,
    ev.RolloutRequested: rollout_requests.request,
    ev.RolloutPromoted: rollout_requests.promote,
    ev.RolloutAborted: rollout_requests.abort,
    ev.RollbackRequested: rollout_requests.roll_back,
    ev.CanaryShared: rollout_requests.share,
    ev.ParityMeasured: rollout_requests.note_parity,
    ev.PoolsChanged: rollout_requests.change_pools,
    ev.HaltRequested: operator.halt,
    ev.QuiesceRequested: quiesce.begin,
    ev.QuiesceEnded: quiesce.end,
    ev.TasksRestored: intake.restore,
    ev.TimePassed: _pass_time,
}
