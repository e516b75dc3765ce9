"""Sessions: where the KV of a conversation lies, how long it is of use, and when it is given up (ORCH-3009, ORCH-3021).

A session is known for tasks that ask for reuse and are best effort; all others leave it alone. It lives for `ttl_ms`
from its first turn and for `turns_max` turns. Both are ceilings: the next task past one of them runs cold, as turn 1.

Its KV lies in one slot of one engine process (its *seat*) or nowhere: it never moves between workers (ORCH-3023). It is
given up when the slot is needed for another task, when the session ends, when its worker is drained, and when another
turn of the same session had to run elsewhere; it is gone when its worker is. The session stays, and is cold.

A turn finds its KV (`is_warm`) only in its own slot of the same process, once the turn before it is over. Everything
else about slots is `slots`' to say, and which worker takes a task is `placement`'s.
"""

from msgspec import Struct

from supervisor.core.agenda import Alarm
from supervisor.core.effects import NoteEviction
from supervisor.core.events import SessionEndRequested
from supervisor.core.replicas import Replica
from supervisor.core.revisions import TRAFFIC
from supervisor.core.session import Seat, Session, key_of, name_of
from supervisor.core.slots import SessionKey, SlotTable
from supervisor.core.state import State
from supervisor.core.tasks import Task


class Place(Struct, frozen=True, gc=False):
    """The slot of a run, and whether the KV of its session lies in it."""

    slot: int
    is_warm: bool


def find(state: State, key: SessionKey) -> Session | None:
    """A session that callers may see."""
    session = state.sessions.get(key)
    return None if session is None or session.is_deleted else session


def warm_replica(state: State, task: Task, now_ms: float) -> Replica | None:
    """The replica in which the task's session has its KV, ready for another turn; None for a cold one."""
    if task.session is None:
        return None
    session = state.sessions.get((task.tenant, task.session))
    if session is None or not session.is_warm or _is_spent(state, session, now_ms):
        return None
    assert session.seat is not None
    return state.replicas[session.seat.pool_id]


def _is_spent(state: State, session: Session, now_ms: float) -> bool:
    """Past a ceiling, or ended by its caller: the next turn is the first one of another life."""
    return session.is_deleted or session.turns >= state.host.session_turns_max or session.expires_ms <= now_ms


def kv_tokens(state: State, replica: Replica) -> int:
    """Tokens of KV that sessions have in the slots of a worker, as far as its engine said so."""
    held = (state.sessions.get(key) for key in replica.slot_table.sessions())
    return sum(session.tokens for session in held if session is not None)


def take_slot(state: State, task: Task, replica: Replica, run_id: int, now_ms: float, wanted: int | None) -> Place:
    """Give a run its slot, and begin a turn where the task has a session. `wanted` is a slot that it must have."""
    if task.session is None:
        slot, evicted = replica.slot_table.take(run_id, None, wanted)
        if evicted is not None:
            _unseat(state, state.sessions[evicted])
        return Place(slot, is_warm=False)
    return _begin_turn(state, task, replica, run_id, now_ms)


def _begin_turn(state: State, task: Task, replica: Replica, run_id: int, now_ms: float) -> Place:
    session = _touched(state, task, now_ms)
    if task.session_life != session.life:  # a turn that is run again in the same life is not another turn
        task.session_life = session.life
        session.turns += 1
    seat = session.seat
    is_warm = session.is_warm and seat is not None and seat.pool_id == replica.pool_id
    if not is_warm:
        _unseat(state, session)
    slot, evicted = replica.slot_table.take(run_id, session.key, seat.slot if is_warm and seat is not None else None)
    if evicted is not None and evicted != session.key:
        _unseat(state, state.sessions[evicted])
    session.seat = Seat(replica.pool_id, replica.incarnation, slot)
    session.run_id = run_id
    return Place(slot, is_warm)


def _touched(state: State, task: Task, now_ms: float) -> Session:
    """The session of a turn that begins now: the known one, or a new one in its place."""
    assert task.session is not None
    key = (task.tenant, task.session)
    session = state.sessions.get(key)
    if session is not None and not _is_spent(state, session, now_ms):
        state.sessions.move_to_end(key)
        return session
    if session is not None:
        _remove(state, session)
    bound(state, state.host.sessions_max - 1)
    session = Session(key=key, expires_ms=now_ms + state.host.session_ttl_ms, life=state.next_life)
    state.sessions[key] = session
    state.next_life += 1
    state.agenda.add(session.expires_ms, Alarm.SESSION_END, name_of(key))
    return session


def bound(state: State, count_max: int) -> None:
    """Forget the sessions that were used longest ago, until no more than so many are left."""
    while state.sessions and len(state.sessions) > count_max:
        _remove(state, next(iter(state.sessions.values())))


def tune(state: State) -> None:
    """The ceilings of the host are other ones: a session that has reached them keeps no KV, and counts no turn past."""
    bound(state, state.host.sessions_max)
    for session in state.sessions.values():
        if session.turns >= state.host.session_turns_max:
            session.turns = state.host.session_turns_max
            if session.run_id is None:
                _unseat(state, session)


def end_turn(state: State, replica: Replica, run_id: int, tokens: int) -> None:
    """A run is over, its slot perhaps not yet free. `tokens` of KV are left of it, 0 for none that is of use."""
    key = replica.slot_table.session_of(run_id)
    session = None if key is None else state.sessions.get(key)
    if session is not None and session.run_id == run_id:
        session.tokens = tokens


def take_back_turn(state: State, task: Task) -> None:
    """The engine refused a run before it touched its slot: no turn began, and the KV that lay there still does."""
    session = None if task.session is None else state.sessions.get((task.tenant, task.session))
    is_first_try = task.attempt - task.turned_away == 1  # else an earlier run was that turn
    if session is not None and session.life == task.session_life and is_first_try:
        session.turns -= 1
        task.session_life = 0


def free_slot(state: State, replica: Replica, run_id: int) -> None:
    """A run's slot is free: the KV of its session stays in it while that can be of use to another turn.

    A worker that only ends what it has gets no other turn.
    """
    key = replica.slot_table.session_of(run_id)
    session = None if key is None else state.sessions.get(key)
    if session is None or session.run_id != run_id:
        replica.slot_table.give_back(run_id, is_kept=False)
        return
    is_last = session.turns >= state.host.session_turns_max
    is_kept = bool(session.tokens) and not is_last and replica.role in TRAFFIC
    replica.slot_table.give_back(run_id, is_kept=is_kept)
    session.run_id = None
    if not is_kept:
        _unseat(state, session)


def lose_all(state: State, replica: Replica) -> None:
    """The engine process is on its way out, and all KV with it: nothing is evicted, everything is lost."""
    for key in replica.slot_table.sessions():
        session = state.sessions.get(key)
        if session is not None and session.seat is not None and session.seat.pool_id == replica.pool_id:
            session.vacate()
    replica.slot_table = SlotTable()


def evict_all(state: State, replica: Replica) -> None:
    """The worker is taken out of service: its sessions go on elsewhere, cold."""
    for key in list(replica.slot_table.sessions()):
        session = state.sessions.get(key)
        if session is not None and session.seat is not None and session.seat.pool_id == replica.pool_id:
            _unseat(state, session)


def end(state: State, event: SessionEndRequested) -> None:
    """Its caller is done with it: the KV is evicted. That it was known is remembered until it would have expired."""
    session = state.sessions.get((event.tenant, event.session))
    if session is not None:
        _unseat(state, session)
        session.is_deleted = True


def expire(state: State, name: str, now_ms: float) -> None:
    """The time of a session is over, if it is still the one that the alarm was set for."""
    session = state.sessions.get(key_of(name))
    if session is not None and session.expires_ms <= now_ms:
        _unseat(state, session)
        del state.sessions[session.key]


def _remove(state: State, session: Session) -> None:
    _unseat(state, session)
    del state.sessions[session.key]
    state.agenda.note_pointless(state.is_live)


def _unseat(state: State, session: Session) -> None:
    """Give up the KV of a session. A turn that is under way goes on; what it leaves in its slot is nobody's."""
    seat = session.seat
    if seat is None:
        return
    replica = state.replicas[seat.pool_id]
    if session.run_id is None:
        replica.slot_table.forget(seat.slot)
    if session.tokens:
        replica.evictions += 1
        state.out.append(NoteEviction(seat.pool_id))
    session.vacate()
