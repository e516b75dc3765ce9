"""A refusal is a value: what a caller is told when the answer is no."""

from msgspec import Struct

from supervisor.wire.codes import RETRIABLE, Code, Engine, Reason


class Refused(Struct, frozen=True, kw_only=True):
    """Why not, and when to try again. `message` is one sentence without paths, argv or payload; times are ms."""

    code: Code
    message: str
    reason: Reason | None = None
    retry_after_ms: int | None = None
    policy: str | None = None
    engine: Engine | None = None
    pool_id: str | None = None
    is_final: bool = False
    """True where a code that is usually retriable must not be retried: a poison task."""

    @property
    def is_retriable(self) -> bool:
        """Whether the client may send the same request again (ORCH-3025)."""
        return self.code in RETRIABLE and not self.is_final
