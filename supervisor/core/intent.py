"""What operators asked for and a restart must not forget: plain values, written down by the runtime.

Whoever owns a wish has a field here. The core says when it changed (`State.is_intent_stale`); the runtime stores it
whole, and hands it back at the next start. Times are monotonic milliseconds of the daemon that wrote it; the runtime
says by how much to shift them.
"""

from msgspec import Struct, field


class Intent(Struct, frozen=True, kw_only=True):
    """All wishes. `drained` are pools that an operator took out of service, with the deadline of the drain."""

    drained: dict[str, float] = field(default_factory=dict)
