"""What no answer may say, whatever was asked: checked on every answer of the tables of bad input.

Knows the nine codes and the fields of the envelope by itself, so that a slip in the wire is seen too.
"""

import json
import re

from tests.support.rawhttp import Answer

CODES = {
    "ADMISSION_REJECT",
    "QUEUE_FULL_DROP_LRU",
    "INVALID_PARAMS",
    "POOL_UNREADY",
    "POOL_UNAVAILABLE",
    "REPLICA_EXHAUSTED",
    "DECODE_TIMEOUT",
    "WORKER_RESET",
    "INTERNAL",
}
_NEEDED = {"code", "message", "retriable", "correlation_id"}
_ALLOWED = _NEEDED | {"engine", "pool_id", "retry_after_ms", "reason", "policy", "policy_label"}
_HEADERS = {
    "server",
    "date",
    "content-type",
    "content-length",
    "connection",
    "transfer-encoding",
    "x-correlation-id",
    "x-orchctl-simulated",
    "x-queue-position",
    "x-queue-eta-ms",
    "x-tokens-emitted",
    "x-backoff-ms",
    "x-accel-buffering",
    "cache-control",
    "retry-after",
    "www-authenticate",
    "allow",
}
_LEAKS = (
    re.compile(rb"Traceback|File \"|\bline \d+, in |\.py\b"),
    re.compile(rb"0x[0-9a-f]{6,}|<[a-z_.]+ object|[A-Za-z]+(?:Error|Exception)\b"),
    re.compile(rb"(?<![A-Za-z0-9])/(?:home|root|tmp|usr|var|etc|proc|sys|dev|run|opt|srv|work|lib)\b"),
    re.compile(rb"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])"),
    re.compile(rb"(?:^|[\s\"])--?[a-z][a-z-]+[= ]"),
)
_MESSAGE_BYTES_MAX = 400
_ECHO_BYTES = 24
_CORRELATION = re.compile(r"[A-Za-z0-9-]{1,64}")


def assert_clean(answer: Answer, sent: bytes = b"") -> None:
    """No path, address, argument or traceback; no header of the client's making; an error is an envelope."""
    for leak in _LEAKS:
        assert not leak.search(answer.body), (leak.pattern, answer.body[:500])
    assert set(answer.headers) <= _HEADERS, answer.headers
    assert _CORRELATION.fullmatch(answer.headers["x-correlation-id"])
    assert answer.headers["server"] == "orchctl"
    if answer.status >= 400:
        _assert_envelope(answer, sent)


def _assert_envelope(answer: Answer, sent: bytes) -> None:
    assert answer.status != 500, answer
    assert answer.headers["content-type"] == "application/json"
    if not answer.body:  # HEAD
        return
    error = json.loads(answer.body)
    assert set(error) >= _NEEDED, error
    assert set(error) <= _ALLOWED, error
    assert error["code"] in CODES
    assert error["correlation_id"] == answer.headers["x-correlation-id"]
    assert len(error["message"]) < _MESSAGE_BYTES_MAX
    assert error["message"].isprintable()
    assert not echoes(answer.body, sent), error
    if answer.status in {429, 503}:
        wait_ms = int(answer.headers["x-backoff-ms"])
        assert error["retry_after_ms"] == wait_ms >= 1
        assert int(answer.headers["retry-after"]) == -(-wait_ms // 1000)


def echoes(body: bytes, sent: bytes) -> bool:
    """Whether a stretch of what was sent comes back."""
    stretches = (sent[at : at + _ECHO_BYTES] for at in range(min(len(sent), 8192) - _ECHO_BYTES + 1))
    return any(stretch in body for stretch in stretches if len(set(stretch)) > 1)
