"""The SSE splitter: the same events however the bytes arrive, and never more memory than its bound."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.sse import SseSplitter


def events(*reads: bytes, bound: int = 1024) -> list[bytes]:
    splitter = SseSplitter(bound)
    return [payload for read in reads for payload in splitter.feed(read)]


@pytest.mark.parametrize(
    ("stream", "payloads"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data\n\n", [b""]),
        (b"data:\n\n", [b""]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\n\ndata: b\n\r\n", [b"a", b"b"]),
        (b":\n\ndata: a\n\n: ping\n\n", [b"a"]),
        (b":\ndata: a\n\n", [b"a"]),
        (b"event: x\nid: 7\nretry: 1\ndata: a\n\n", [b"a"]),
        (b"dataset: no\n\n", []),
        (b"\n\n\ndata: a\n\n\n\n", [b"a"]),
        ("data: a\u2028b\x0bc\x85\n\n".encode(), ["a\u2028b\x0bc\x85".encode()]),
        (b"data: a\rb\n\n", [b"a\rb"]),
        (b"data: cut", []),
        (b"data: cut\n", []),
        (b"", []),
    ],
)
def test_events_of_a_stream(stream: bytes, payloads: list[bytes]) -> None:
    assert events(stream) == payloads


LINE = st.sampled_from([b"data: ", b"data:", b"data", b":", b"event: e", b"", b"\r", b"x" * 9, "é\u2028".encode()])
ENDING = st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\r\n\r\n", b""])
STREAM = st.lists(st.tuples(LINE, LINE, ENDING), max_size=12).map(
    lambda parts: b"".join(piece for part in parts for piece in part)
)


@given(STREAM, st.lists(st.integers(0, 400), max_size=8), st.sampled_from([4, 16, 1024]))
def test_cuts_between_reads_change_nothing(stream: bytes, cuts: list[int], bound: int) -> None:
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    reads = [stream[start:end] for start, end in pairwise(edges)]

    assert events(*reads, bound=bound) == events(stream, bound=bound)


@given(STREAM, st.sampled_from([4, 16, 1024]))
def test_single_bytes_change_nothing(stream: bytes, bound: int) -> None:
    assert events(*(stream[at : at + 1] for at in range(len(stream))), bound=bound) == events(stream, bound=bound)


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_an_endless_line_is_given_up(size: int) -> None:
    splitter = SseSplitter(event_bytes_max=4096)
    splitter.feed(b"data: kept\n\ndata: ")
    fed = 0
    while not splitter.is_overflown:
        assert splitter.feed(b"x" * size) == []
        fed += size

    assert fed <= 4096 + size
    assert splitter.feed(b"\n\ndata: late\n\n") == []


def test_events_before_an_overlong_one_are_given() -> None:
    splitter = SseSplitter(event_bytes_max=16)

    assert splitter.feed(b"data: a\n\ndata: " + b"x" * 20 + b"\n\ndata: b\n\n") == [b"a"]
    assert splitter.is_overflown


def test_blank_lines_do_not_count_against_the_bound() -> None:
    longest = b"data: abc"
    whole = b"data: x\n\n\n" + longest + b"\n\n"

    assert events(whole, bound=len(longest)) == [b"x", b"abc"]
    assert events(whole[:9], whole[9:-2], whole[-2:], bound=len(longest)) == [b"x", b"abc"]
    assert events(whole, bound=len(longest) - 1) == [b"x"]


def test_a_view_of_a_buffer_is_copied() -> None:
    splitter = SseSplitter()
    buffer = bytearray(b"data: a\n\ndata: b")
    first = splitter.feed(memoryview(buffer))
    buffer[:] = bytes(len(buffer))

    assert first + splitter.feed(b"\n\n") == [b"a", b"b"]
