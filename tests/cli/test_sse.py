"""Events out of bytes."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchctl.sse import FRAME_BYTES_MAX, Event, EventParser, FrameTooLongError
from supervisor.wire.codes import FinishReason
from supervisor.wire.frames import COMMENT, End, end_frame, token_frame

NASTY = ["\n\ndata: {}", "\r\n", "event: end\n", "é漢🙂", "\x00", " "]


def stream_of(texts: list[str]) -> bytes:
    tokens = b"".join(token_frame(text, index) for index, text in enumerate(texts))
    end = End(tokens_out=len(texts), decode_ms=1, finish_reason=FinishReason.STOP, tokens_in=1, kv_warmth=False)
    return COMMENT + tokens + end_frame(end, len(texts) + 2)


def parse(pieces: list[bytes]) -> list[Event]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


@given(st.lists(st.text() | st.sampled_from(NASTY), max_size=8), st.lists(st.integers(0, 400), max_size=12))
def test_the_pieces_of_a_stream_make_no_difference(texts: list[str], cuts: list[int]) -> None:
    texts = [text.encode(errors="ignore").decode() for text in texts]
    stream = stream_of(texts)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[start:stop] for start, stop in pairwise(edges)]

    events = parse(pieces)

    assert events == parse([stream])
    assert [event.name for event in events] == ["token"] * len(texts) + ["end"]
    assert [event.id for event in events] == [str(number + 2) for number in range(len(texts) + 1)]


def test_a_stream_with_carriage_returns_reads_the_same() -> None:
    events = parse([b"id: 4\r\nevent: token\r\ndata: {}\r\n\r\n"])

    assert events == [Event("4", "token", b"{}")]


def test_comments_and_frames_without_data_are_no_events() -> None:
    assert parse([COMMENT, b"id: 9\n\n", b"event: token\n\n"]) == []


def test_a_frame_that_is_not_complete_is_no_event() -> None:
    assert parse([b"id: 1\ndata: {}\n"]) == []


def test_a_frame_without_end_is_refused_before_it_fills_the_memory() -> None:
    parser = EventParser()
    parser.feed(b"data: " + b"x" * (FRAME_BYTES_MAX // 2))

    with pytest.raises(FrameTooLongError):
        parser.feed(b"x" * (FRAME_BYTES_MAX // 2))
