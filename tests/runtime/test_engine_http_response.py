"""The response parser: what it takes, what it refuses, and that cutting the bytes changes nothing."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.runtime.engine_http import ResponseParser
from supervisor.runtime.engine_http.response import CHUNK_LINE_BYTES_MAX, HEAD_BYTES_MAX

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LLAMA = (
    b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nAccess-Control-Allow-Origin: \r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\nKeep-Alive: timeout=5, max=100\r\n\r\n"
    b'10\r\ndata: {"a": 1}\n\n\r\n11\r\ndata: {"b": 22}\n\n\r\n0\r\n\r\n'
)


@dataclass(frozen=True)
class Seen:
    """Everything a response parser says, however it was fed."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_complete: bool
    is_keep_alive: bool
    has_surplus: bool
    fault: str | None


def parse(*pieces: bytes, eof: bool = False) -> Seen:
    parser = ResponseParser()
    body = b"".join([parser.feed(memoryview(piece)) for piece in pieces])
    if eof:
        parser.eof()
    fault = None if parser.fault is None else str(parser.fault)
    return Seen(
        parser.status, dict(parser.headers), body, parser.is_complete, parser.is_keep_alive, parser.has_surplus, fault
    )


@pytest.mark.parametrize(
    ("raw", "body", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
        (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", b"", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b"", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
        (b"HTTP/1.1 503 S\r\nCONNECTION: Keep-Alive, Close\r\ncontent-length:2 \r\n\r\nno", b"no", False),
        (b"HTTP/1.1 200 \xc3\xa4\r\nX: \xff\r\nContent-Length: 1\r\n\r\n1", b"1", True),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", b"hello", True),
        (CHUNKED + b"05 \r\nhello\r\n000\r\n\r\n", b"hello", True),
        (CHUNKED + b'3;name="v"\r\nabc\r\nA\r\n0123456789\r\n0;last\r\n\r\n', b"abc0123456789", True),
        (CHUNKED + b"1\r\n\r\r\n1\r\n\n\r\n0\r\n\r\n", b"\r\n", True),
        (CHUNKED + b"1\r\na\r\n0\r\nX-Trailer: 1\r\nY: 2\r\n\r\n", b"a", True),
        (LLAMA, b'data: {"a": 1}\n\ndata: {"b": 22}\n\n', True),
    ],
)
def test_complete_response(raw: bytes, body: bytes, keep_alive: bool) -> None:
    seen = parse(raw)

    assert seen.fault is None
    assert seen.is_complete
    assert (seen.body, seen.is_keep_alive, seen.has_surplus) == (body, keep_alive, False)


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 099 Low\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 200 O\x00K\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nName : v\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: v\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: 1\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\nA: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: 1\nB: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: \x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000000000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * HEAD_BYTES_MAX + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: " + b" " * HEAD_BYTES_MAX,
        CHUNKED + b"\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"0x5\r\nhello\r\n",
        CHUNKED + b" 5\r\nhello\r\n",
        CHUNKED + b"5\nhello\n",
        CHUNKED + b"fffffffff\r\n",
        CHUNKED + b"5;" + b"e" * CHUNK_LINE_BYTES_MAX,
        CHUNKED + b"5\r\nhelloX\r\n",
        CHUNKED + b"5\r\nhello\rX",
        CHUNKED + b"0\r\nbad trailer\r\n\r\n",
        CHUNKED + b"0\r\nT: " + b"t" * HEAD_BYTES_MAX,
    ],
)
def test_fault_whatever_the_cut(raw: bytes) -> None:
    whole = parse(raw)

    assert whole.fault is not None
    assert not whole.is_complete
    assert parse(*[raw[at : at + 1] for at in range(len(raw))]) == whole


def test_header_block_may_fill_its_bound_exactly() -> None:
    frame = len(b"HTTP/1.1 204 N\r\nA: \r\n\r\n")

    fits = b"HTTP/1.1 204 N\r\nA: " + b"a" * (HEAD_BYTES_MAX - frame) + b"\r\n\r\n"

    assert parse(fits).is_complete
    assert parse(fits[:-1], fits[-1:]).is_complete
    assert parse(fits.replace(b"A: ", b"A: b")).fault is not None


def test_body_before_a_fault_is_handed_out() -> None:
    seen = parse(CHUNKED + b"5\r\nhello\r\nzz\r\n")

    assert (seen.body, seen.is_complete) == (b"hello", False)
    assert seen.fault is not None


@pytest.mark.parametrize("at", range(len(LLAMA) + 1))
def test_every_cut_of_a_real_answer(at: int) -> None:
    assert parse(LLAMA[:at], LLAMA[at:]) == parse(LLAMA)


@pytest.mark.parametrize("at", range(len(LLAMA)))
def test_a_cut_answer_is_never_complete(at: int) -> None:
    assert not parse(LLAMA[:at], eof=True).is_complete


def test_body_until_close_is_complete_at_eof_only() -> None:
    raw = b"HTTP/1.1 200 OK\r\n\r\nabc"

    assert not parse(raw).is_complete
    assert parse(raw, eof=True) == Seen(200, {}, b"abc", True, False, False, None)


def test_bytes_after_the_response_are_surplus_and_no_body() -> None:
    seen = parse(LLAMA + b"HTTP/1.1 200 OK\r\n")

    assert seen.is_complete
    assert seen.has_surplus
    assert seen.body == parse(LLAMA).body


token = st.text(alphabet="abcXYZ09-!#'", min_size=1, max_size=8)
value = st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)
framing = {"content-length", "transfer-encoding", "content-encoding", "connection"}


@st.composite
def responses(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A valid response in one of the three framings, and its body."""
    fields = draw(st.dictionaries(token.filter(lambda name: name.lower() not in framing), value, max_size=4))
    head = b"HTTP/1.1 200 OK\r\n" + b"".join(f"{name}: {text}\r\n".encode() for name, text in fields.items())
    pieces = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=6))
    body = b"".join(pieces)
    match draw(st.sampled_from(["chunked", "length", "close"])):
        case "chunked":
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
            return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n", body
        case "length":
            return head + b"Content-Length: %d\r\n\r\n" % len(body) + body, body
        case _:
            return head + b"\r\n" + body, body


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(raw) + 1) for place in places), len(raw)]
    return [raw[start:stop] for start, stop in pairwise(bounds)]


@given(responses(), st.lists(st.integers(0, 10_000), max_size=8))
def test_valid_responses_give_their_body_however_cut(response: tuple[bytes, bytes], places: list[int]) -> None:
    raw, body = response

    seen = parse(*cut(raw, places), eof=True)

    assert seen == parse(raw, eof=True)
    assert (seen.body, seen.is_complete, seen.fault) == (body, True, None)


@given(responses(), st.integers(0, 10_000), st.binary(min_size=1, max_size=4), st.lists(st.integers(0, 10_000)))
def test_damaged_responses_mean_the_same_however_cut(
    response: tuple[bytes, bytes], at: int, damage: bytes, places: list[int]
) -> None:
    raw = response[0]
    at %= len(raw)
    damaged = raw[:at] + damage + raw[at + len(damage) :]

    seen = parse(*cut(damaged, places), eof=True)

    assert seen == parse(damaged, eof=True)


@given(st.binary(max_size=200), st.lists(st.integers(0, 10_000)))
def test_noise_never_raises(noise: bytes, places: list[int]) -> None:
    assert parse(*cut(noise, places)) == parse(noise)
