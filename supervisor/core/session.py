"""What is known of one session. Decides nothing."""

from msgspec import Struct

from supervisor.core.slots import SessionKey


class Seat(Struct, frozen=True, gc=False):
    """The slot in which a session's KV lies. Of another incarnation it is gone."""

    pool_id: str
    incarnation: int
    slot: int


class Session(Struct, kw_only=True):
    """One conversation of one tenant (ORCH-3021). `expires_ms` is monotonic; `turns` counts those that began.

    `life` is a number that no other session has, nor the same one in another life.
    `run_id` is the turn that is under way in the seat. `tokens` is what the KV holds, as far as the engine said so; 0
    while there is none. A session that its caller deleted is remembered as such.
    """

    key: SessionKey
    expires_ms: float
    life: int
    turns: int = 0
    seat: Seat | None = None
    run_id: int | None = None
    tokens: int = 0
    is_deleted: bool = False

    @property
    def is_warm(self) -> bool:
        """Whether a turn that is dispatched to its seat finds its KV there."""
        return self.seat is not None and self.run_id is None

    def vacate(self) -> None:
        """Its KV is gone."""
        self.seat = None
        self.run_id = None
        self.tokens = 0


def name_of(key: SessionKey) -> str:
    """A session's name in the agenda."""
    return f"{key[1].hex()} {key[0]}"


def key_of(name: str) -> SessionKey:
    """The session of that name."""
    ident, tenant = name.split(" ", 1)
    return tenant, bytes.fromhex(ident)
