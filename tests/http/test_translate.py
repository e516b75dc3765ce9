"""Every code and reason has a decided status; hints are honest; ids are harmless."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.refusals import Refused
from supervisor.http.translate import backoff_ms, correlation_of, envelope, raw_refusal, refusal_headers, status_of
from supervisor.wire.codes import Code, Reason

DEFAULT_STATUS = {
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
SPECIAL_STATUS = {
    (Code.INVALID_PARAMS, Reason.AUTH): 401,
    (Code.INVALID_PARAMS, Reason.SCOPE): 403,
    (Code.INVALID_PARAMS, Reason.NOT_FOUND): 404,
    (Code.INVALID_PARAMS, Reason.METHOD): 405,
    (Code.INVALID_PARAMS, Reason.TIMEOUT): 408,
    (Code.INVALID_PARAMS, Reason.EXPIRED): 410,
    (Code.INVALID_PARAMS, Reason.BODY_TOO_LARGE): 413,
    (Code.INVALID_PARAMS, Reason.URL_TOO_LONG): 414,
    (Code.INVALID_PARAMS, Reason.MEDIA_TYPE): 415,
    (Code.INVALID_PARAMS, Reason.HEADERS_TOO_LARGE): 431,
    (Code.ADMISSION_REJECT, Reason.BUSY): 409,
    (Code.ADMISSION_REJECT, Reason.DISK): 503,
    (Code.ADMISSION_REJECT, Reason.SHUTDOWN): 503,
}


@pytest.mark.parametrize("code", Code)
@pytest.mark.parametrize("reason", [None, *Reason])
def test_every_code_and_reason_has_its_status(code: Code, reason: Reason | None) -> None:
    refused = Refused(code=code, message="No.", reason=reason)

    expected = DEFAULT_STATUS[code] if reason is None else SPECIAL_STATUS.get((code, reason), DEFAULT_STATUS[code])

    assert status_of(refused) == expected


@pytest.mark.orch("ORCH-2007")
@given(st.sampled_from(Code), st.none() | st.sampled_from(Reason), st.none() | st.integers(0, 10**9))
def test_every_busy_answer_says_when_to_come_again(code: Code, reason: Reason | None, wait_ms: int | None) -> None:
    refused = Refused(code=code, message="No.", reason=reason, retry_after_ms=wait_ms)

    headers = refusal_headers(refused)
    error = envelope(refused, "id")

    status = status_of(refused)
    assert ("Retry-After" in headers) == (status in {429, 503} or wait_ms is not None)
    assert ("Retry-After" in headers) == ("X-Backoff-Ms" in headers) == isinstance(error.retry_after_ms, int)
    if "Retry-After" in headers:
        hint = backoff_ms(refused, status)
        assert hint == error.retry_after_ms == int(headers["X-Backoff-Ms"])
        assert int(headers["Retry-After"]) == max(1, math.ceil(int(headers["X-Backoff-Ms"]) / 1000))
        assert wait_ms is None or hint == max(1, wait_ms)
    assert (error.policy == error.policy_label == "reject") == (status == 429)


@pytest.mark.orch("ORCH-3025")
def test_retriable_is_the_contracts_list() -> None:
    retriable = {code for code in Code if envelope(Refused(code=code, message="No."), "id").retriable}

    assert retriable == set(Code) - {Code.INVALID_PARAMS, Code.INTERNAL}
    assert not envelope(Refused(code=Code.WORKER_RESET, message="No.", is_final=True), "id").retriable


def test_401_says_how_to_authenticate() -> None:
    headers = refusal_headers(Refused(code=Code.INVALID_PARAMS, message="No.", reason=Reason.AUTH))

    assert headers["WWW-Authenticate"] == "Bearer"


@given(st.text())
def test_a_correlation_id_is_always_harmless(claimed: str) -> None:
    chosen = correlation_of(claimed)

    is_harmless = (
        1 <= len(claimed) <= 64
        and claimed.isascii()
        and claimed.replace("-", "").isalnum() | (claimed.strip("-") == "")
    )
    assert chosen == claimed if is_harmless else len(chosen) == 36


def test_a_refusal_without_a_request_is_a_whole_response() -> None:
    raw = raw_refusal(Refused(code=Code.ADMISSION_REJECT, message="No.", retry_after_ms=1500))

    head, body = raw.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert b"\r\nRetry-After: 2\r\n" in head
    assert b"\r\nContent-Length: %d\r\n" % len(body) in head
    assert json.loads(body)["code"] == "ADMISSION_REJECT"
