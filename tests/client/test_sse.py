"""Events out of bytes."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.client.sse import FRAME_BYTES_MAX, Event, EventParser, FrameTooLongError
from supervisor.wire.frames import COMMENT, token_frame
from tests.client.stories import ending

NASTY = ["\n\ndata: {}", "\r\n", "event: end\n", "é漢🙂", "\x00", " "]
LINES = [
    b"data: {}",
    b"data",
    b"data:  two",
    b"data:",
    b"id: 7",
    b"id: a\0b",
    b"id",
    b"event: token",
    b"event",
    b"x: y",
]
LINES += [b": a comment", b":", b"", b"\xff\xfe", b"event: \xff"]


def stream_of(texts: list[str]) -> bytes:
    tokens = b"".join(token_frame(text, index) for index, text in enumerate(texts))
    return COMMENT + tokens + ending(len(texts))


def parse(pieces: list[bytes]) -> list[Event]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """The same bytes in pieces, empty ones among them."""
    edges = sorted([0, len(data), *(place % (len(data) + 1) for place in cuts)])
    return [data[start:stop] for start, stop in pairwise(edges)]


def by_the_standard(lines: list[bytes]) -> list[Event]:
    """The events of whole lines, after the words of WHATWG HTML 9.2.6 and unlike our parser: line by line."""
    events: list[Event] = []
    event_id: str | None = None
    name, data = "", b""
    for line in lines:
        if line == b"":
            if data:
                events.append(Event(event_id, name or "message", data.removesuffix(b"\n")))
            event_id, name, data = None, "", b""
        elif b":" in line:
            field, value = line.split(b":", 1)
            event_id, name, data = process(field, value[1:] if value[:1] == b" " else value, event_id, name, data)
        else:
            event_id, name, data = process(line, b"", event_id, name, data)
    return events


def process(field: bytes, value: bytes, event_id: str | None, name: str, data: bytes) -> tuple[str | None, str, bytes]:
    if field == b"event":
        return event_id, value.decode(errors="replace"), data
    if field == b"data":
        return event_id, name, data + value + b"\n"
    if field == b"id" and b"\0" not in value:
        return value.decode(errors="replace"), name, data
    return event_id, name, data


@given(st.lists(st.text() | st.sampled_from(NASTY), max_size=8), st.lists(st.integers(0, 4_000), max_size=12))
def test_the_pieces_of_a_stream_make_no_difference(texts: list[str], cuts: list[int]) -> None:
    texts = [text.encode(errors="ignore").decode() for text in texts]
    stream = stream_of(texts)

    events = parse(cut(stream, cuts))

    assert events == parse([stream])
    assert [event.name for event in events] == ["token"] * len(texts) + ["end"]
    assert [event.id for event in events] == [str(number + 2) for number in range(len(texts) + 1)]


@given(
    st.lists(st.sampled_from(LINES) | st.binary(max_size=8).filter(lambda raw: not {10, 13} & {*raw}), max_size=20),
    st.lists(st.sampled_from([b"\n", b"\r\n", b"\r"]), min_size=20, max_size=20),
    st.lists(st.integers(0, 4_000), max_size=12),
    st.booleans(),
)
def test_any_lines_mean_what_the_standard_says(
    lines: list[bytes], ends: list[bytes], cuts: list[int], has_mark: bool
) -> None:
    # A line that ends in CR before an empty one that ends in LF would be one CRLF.
    style = ends[0]
    data = (b"\xef\xbb\xbf" if has_mark else b"") + b"".join(line + style for line in lines)

    events = parse(cut(data, cuts))

    assert events == by_the_standard(lines)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_no_bytes_are_too_strange(data: bytes, cuts: list[int]) -> None:
    assert parse(cut(data, cuts)) == parse([data])


def test_an_end_of_line_may_be_torn() -> None:
    events = parse([b"id: 4\r", b"\nevent: token\r", b"\ndata: {}\r", b"\n\r", b"\ndata: 2\r\r"])

    assert events == [Event("4", "token", b"{}"), Event(None, "message", b"2")]


def test_an_event_whose_last_line_ends_in_cr_is_there_at_once() -> None:
    assert parse([b"data: {}\r\r"]) == [Event(None, "message", b"{}")]


def test_comments_and_frames_without_data_are_no_events() -> None:
    assert parse([COMMENT, b"id: 9\n\n", b"event: token\n\n"]) == []


def test_a_frame_that_is_not_complete_is_no_event() -> None:
    assert parse([b"id: 1\ndata: {}\n"]) == []


@pytest.mark.parametrize("piece", [b"x", b"data: x\n"], ids=["a line", "a frame"])
def test_a_frame_without_end_is_refused_before_it_fills_the_memory(piece: bytes) -> None:
    parser = EventParser()
    parser.feed(b"data: " + piece * (FRAME_BYTES_MAX // 2 // len(piece)))

    with pytest.raises(FrameTooLongError):
        parser.feed(piece * (FRAME_BYTES_MAX // 2 // len(piece) * 3 // 2))
