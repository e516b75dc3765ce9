"""Turns refusals and replies into HTTP: status, headers, envelope. Decides no refusal itself.

The status of a refusal:
1. INVALID_PARAMS goes by its reason: auth 401, scope 403, not_found 404, method 405, timeout 408 (the request itself
   came too slowly), expired 410, body_too_large 413, url_too_long 414, media_type 415, headers_too_large 431; all
   others, a second task with a known id included, are 400.
2. ADMISSION_REJECT is 429, but 409 where the same thing is already under way (busy) and 503 where the daemon itself
   cannot take anything (disk, shutdown). QUEUE_FULL_DROP_LRU is 429.
3. POOL_UNREADY, POOL_UNAVAILABLE and REPLICA_EXHAUSTED are 503.
4. DECODE_TIMEOUT, WORKER_RESET and INTERNAL are 500, before a stream opened; afterwards they travel in its frames.
"""

import math
import re
from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from supervisor.core.plan import public_id_of
from supervisor.core.refusals import Refused
from supervisor.runtime.fresh_ids import fresh_id
from supervisor.wire.codes import Code, Reason
from supervisor.wire.errors import ErrorEnvelope

JSON = "application/json"
SERVER = "orchctl"
RETRY_AFTER_MS_DEFAULT = 1000
POLICY_DEFAULT = "reject"
CLOSING = frozenset({Reason.BODY_TOO_LARGE, Reason.HEADERS_TOO_LARGE, Reason.TIMEOUT, Reason.URL_TOO_LONG})
"""Reasons of the edge after which the rest of the connection cannot be trusted or is not worth reading."""

_CORRELATION = re.compile(r"[A-Za-z0-9-]{1,64}")
_BUSY_STATUSES = (429, 503)
_INVALID = {
    Reason.AUTH: 401,
    Reason.SCOPE: 403,
    Reason.NOT_FOUND: 404,
    Reason.METHOD: 405,
    Reason.TIMEOUT: 408,
    Reason.EXPIRED: 410,
    Reason.BODY_TOO_LARGE: 413,
    Reason.URL_TOO_LONG: 414,
    Reason.MEDIA_TYPE: 415,
    Reason.HEADERS_TOO_LARGE: 431,
}
_REJECTED = {Reason.BUSY: 409, Reason.DISK: 503, Reason.SHUTDOWN: 503}
_STATUS = {
    Code.ADMISSION_REJECT: 429,
    Code.QUEUE_FULL_DROP_LRU: 429,
    Code.INVALID_PARAMS: 400,
    Code.POOL_UNREADY: 503,
    Code.POOL_UNAVAILABLE: 503,
    Code.REPLICA_EXHAUSTED: 503,
    Code.DECODE_TIMEOUT: 500,
    Code.WORKER_RESET: 500,
    Code.INTERNAL: 500,
}
_encode = msgspec.json.Encoder().encode


def correlation_of(claimed: str | None) -> str:
    """The caller's own correlation id where it is harmless, else a new UUID."""
    if claimed is not None and _CORRELATION.fullmatch(claimed):
        return claimed
    return fresh_id()


def status_of(refused: Refused) -> int:
    """The HTTP status of a refusal; see the module."""
    if refused.reason is not None:
        if refused.code is Code.INVALID_PARAMS:
            return _INVALID.get(refused.reason, 400)
        if refused.code is Code.ADMISSION_REJECT:
            return _REJECTED.get(refused.reason, 429)
    return _STATUS[refused.code]


def backoff_ms(refused: Refused, status: int) -> int | None:
    """The hint in milliseconds, at least 1; every 429 and 503 has one (ORCH-2007)."""
    if refused.retry_after_ms is not None:
        return max(1, refused.retry_after_ms)
    return RETRY_AFTER_MS_DEFAULT if status in _BUSY_STATUSES else None


def envelope(refused: Refused, correlation_id: str) -> ErrorEnvelope:
    """The body of an error answer."""
    status = status_of(refused)
    error = ErrorEnvelope(
        code=refused.code,
        message=refused.message,
        retriable=refused.is_retriable,
        correlation_id=correlation_id,
    )
    wait_ms = backoff_ms(refused, status)
    if wait_ms is not None:
        error.retry_after_ms = wait_ms
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        error.policy = error.policy_label = refused.policy or POLICY_DEFAULT
    if refused.reason is not None:
        error.reason = refused.reason
    if refused.engine is not None:
        error.engine = refused.engine
    if refused.pool_id is not None:
        error.pool_id = public_id_of(refused.pool_id)
    return error


def refusal_headers(refused: Refused) -> dict[str, str]:
    """The headers that a refusal needs beside its body. `Retry-After` is X-Backoff-Ms in whole seconds, rounded up."""
    status = status_of(refused)
    headers = {"Content-Type": JSON}
    wait_ms = backoff_ms(refused, status)
    if wait_ms is not None:
        headers["Retry-After"] = str(math.ceil(wait_ms / 1000))
        headers["X-Backoff-Ms"] = str(wait_ms)
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def refuse(
    refused: Refused, base: Mapping[str, str], correlation_id: str, extra: Mapping[str, str] | None = None
) -> web.Response:
    """An error answer. It ends the connection where the rest of the request is not going to be read."""
    headers: CIMultiDict[str] = CIMultiDict(base)
    headers.update(refusal_headers(refused))
    headers.update(extra or {})
    body = _encode(envelope(refused, correlation_id))
    response = web.Response(status=status_of(refused), body=body, headers=headers)
    if refused.reason in CLOSING:
        response.force_close()
    return response


def reply(
    answer: msgspec.Struct, base: Mapping[str, str], status: int = 200, extra: Mapping[str, str] | None = None
) -> web.Response:
    """A JSON answer."""
    headers: CIMultiDict[str] = CIMultiDict(base)
    headers["Content-Type"] = JSON
    headers.update(extra or {})
    return web.Response(status=status, body=_encode(answer), headers=headers)


def raw_refusal(refused: Refused) -> bytes:
    """A whole response for a connection on which no request could be read. It closes the connection."""
    correlation_id = correlation_of(None)
    body = _encode(envelope(refused, correlation_id))
    status = HTTPStatus(status_of(refused))
    headers = refusal_headers(refused) | {
        "Server": SERVER,
        "X-Correlation-Id": correlation_id,
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body
