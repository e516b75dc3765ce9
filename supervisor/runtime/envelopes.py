"""From a refusal of the core to the envelope that clients see, in streams and in views."""

from msgspec import UNSET

from supervisor.core.plan import public_id_of
from supervisor.core.refusals import Refused
from supervisor.wire.errors import ErrorEnvelope


def envelope(refused: Refused, correlation_id: str) -> ErrorEnvelope:
    """The same refusal in the words of the wire; absent fields are left out."""
    return ErrorEnvelope(
        code=refused.code,
        message=refused.message,
        retriable=refused.is_retriable,
        correlation_id=correlation_id,
        engine=refused.engine or UNSET,
        pool_id=public_id_of(refused.pool_id) if refused.pool_id else UNSET,
        retry_after_ms=UNSET if refused.retry_after_ms is None else max(refused.retry_after_ms, 1),
        reason=refused.reason or UNSET,
        policy=refused.policy or UNSET,
        policy_label=refused.policy or UNSET,
    )
