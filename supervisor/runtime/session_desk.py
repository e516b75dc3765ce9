"""Sessions as their callers see them: looked up by tenant and id, shown, ended. Decides nothing about their KV."""

import uuid
from itertools import islice

from supervisor.core import sessions
from supervisor.core.events import SessionEndRequested
from supervisor.core.refusals import Refused
from supervisor.core.session import Session
from supervisor.core.slots import SessionKey
from supervisor.core.state import State
from supervisor.runtime.caller import Caller
from supervisor.runtime.loop import CoreLoop
from supervisor.wire.codes import Code, Reason
from supervisor.wire.sessions import SessionPage, SessionView

_UNKNOWN = Refused(code=Code.INVALID_PARAMS, reason=Reason.NOT_FOUND, message="There is no such session.")


class SessionDesk:
    """The calls of the HTTP edge about sessions."""

    def __init__(self, core: CoreLoop) -> None:
        self._core = core

    def show(self, caller: Caller, session_id: str) -> SessionView | Refused:
        """One session of the caller; looking never makes one, nor keeps it from expiring."""
        key = _key_of(caller, session_id)
        session = sessions.find(self._core.state, key) if key is not None else None
        now_ms = self._core.now_ms()
        if session is None or session.expires_ms <= now_ms:
            return _UNKNOWN
        return view_session(self._core.state, session, now_ms)

    def page(self, caller: Caller, limit: int) -> SessionPage:
        """The caller's sessions, last used first. O(sessions of all tenants used since the last one shown)."""
        state, now_ms = self._core.state, self._core.now_ms()
        own = (
            view_session(state, session, now_ms)
            for session in reversed(state.sessions.values())
            if session.key[0] == caller.tenant and not session.is_deleted and session.expires_ms > now_ms
        )
        views = list(islice(own, limit + 1))
        return SessionPage(sessions=views[:limit], truncated=len(views) > limit)

    def delete(self, caller: Caller, session_id: str) -> Refused | None:
        """End a session. None: it is ended, now or before."""
        key = _key_of(caller, session_id)
        if key is None or key not in self._core.state.sessions:
            return _UNKNOWN
        self._core.post(SessionEndRequested(*key))
        return None


def _key_of(caller: Caller, session_id: str) -> SessionKey | None:
    """Only the form in which tasks name their session: lower case, with dashes."""
    try:
        ident = uuid.UUID(session_id)
    except ValueError:
        return None
    return (caller.tenant, ident.bytes) if str(ident) == session_id else None


def view_session(state: State, session: Session, now_ms: float) -> SessionView:
    """What a caller may know."""
    plan = state.replicas[session.seat.pool_id].plan if session.seat is not None else None
    return SessionView(
        session_id=str(uuid.UUID(bytes=session.key[1])),
        ttl_ms_remaining=max(round(session.expires_ms - now_ms), 0),
        turns=session.turns,
        kv_bytes=session.tokens * plan.kv_bytes_per_token if plan is not None else 0,
        kv_warmth=session.tokens > 0,
    )
