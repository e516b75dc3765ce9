"""The error envelope of every non-2xx answer and of the SSE `error` event."""

from msgspec import UNSET, Struct, UnsetType

from supervisor.wire.codes import Code, Engine


class ErrorEnvelope(Struct, kw_only=True):
    """One flat error. `message` is one sentence for a person; it holds no path, argv, payload or traceback.

    `retry_after_ms` is a hint in milliseconds, present on every 429 and 503. `policy` and `policy_label` carry the
    full-queue policy on a 429.
    """

    code: Code
    message: str
    retriable: bool
    correlation_id: str
    engine: Engine | UnsetType = UNSET
    pool_id: str | UnsetType = UNSET
    retry_after_ms: int | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    policy: str | UnsetType = UNSET
    policy_label: str | UnsetType = UNSET
