"""The audit trail: who was turned away, and who changed what. One structured line each; no key is ever in one.

Decides nothing. Failures are also counted. How many lines a stranger can cause is bounded where failures are.
"""

import logging
from collections.abc import Callable

from supervisor.runtime.caller import Caller
from supervisor.runtime.key_ring import KeyRejected

log = logging.getLogger("orchctl")

DENIED = "scope"
THROTTLED = "throttled"


class Audit:
    """`count` is told the reason of every failure: a `KeyFault`, `scope` or `throttled`."""

    def __init__(self, count: Callable[[str], None]) -> None:
        self._count = count

    def note_rejected(self, rejected: KeyRejected, address: str) -> None:
        """A request without a key that is in force. `key_id` is there where the key was known once."""
        self._count(rejected.fault)
        fields = {"reason": rejected.fault, "peer": address, "fingerprint": rejected.fingerprint or None}
        log.warning("request not authenticated", extra={**fields, "actor": rejected.key_id or None})

    def note_throttled(self) -> None:
        """One more failure of a peer that has too many: counted, not written down."""
        self._count(THROTTLED)

    def note_denied_again(self) -> None:
        """One more refusal of a caller that has too many: counted, not written down."""
        self._count(DENIED)

    def note_denied(self, caller: Caller, address: str, action: str, correlation_id: str) -> None:
        """A known caller asked for what its key does not allow."""
        self._count(DENIED)
        fields = {"actor": caller.client_id, "tenant": caller.tenant, "peer": address, "action": action}
        log.warning("request not permitted", extra={**fields, "correlation_id": correlation_id})

    def note_action(
        self, caller: Caller, address: str, action: str, target: str, status: int, correlation_id: str
    ) -> None:
        """Somebody used the control plane to change something. `actor` is the id of a key or `uid:N`."""
        fields = {"actor": caller.client_id, "peer": address, "action": action, "target": target or None}
        log.info("control action", extra={**fields, "status": status, "correlation_id": correlation_id})
