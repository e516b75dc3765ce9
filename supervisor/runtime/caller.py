"""Who asks. The HTTP edge finds it out; the service uses it."""

from dataclasses import dataclass

from supervisor.wire.codes import Priority, Scope


@dataclass(frozen=True, slots=True)
class Caller:
    """`is_operator` is true on the control socket, where peer credentials stand in for a key.

    `client_id` names the key (never the key itself); it is logged, counted and rate-limited by, and no metric label.
    `priorities` are the classes that the key may ask for. `pid` is the process on the control socket.
    """

    tenant: str
    is_operator: bool = False
    client_id: str = "local"
    scopes: frozenset[Scope] = frozenset(Scope)
    priorities: frozenset[Priority] = frozenset(Priority)
    pid: int | None = None
