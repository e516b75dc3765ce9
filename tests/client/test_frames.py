"""What is new, repeated or missing in a stream."""

import pytest

from supervisor.client.errors import ProtocolError, StreamGapError
from supervisor.client.frames import Frame, FrameCursor, Token
from supervisor.client.sse import EventParser
from supervisor.wire.errors import ErrorEnvelope
from supervisor.wire.frames import End, Started, StreamMetrics, token_frame
from tests.client.stories import TEXTS, ending, failure, frames, metrics


def take(*pieces: bytes, cursor: FrameCursor | None = None) -> list[Frame]:
    reader = cursor or FrameCursor()
    taken = [reader.take(raw) for raw in EventParser().feed(b"".join(pieces))]
    return [frame for frame in taken if frame is not None]


def test_events_are_typed() -> None:
    taken = take(*frames())

    assert [type(frame.event) for frame in taken] == [Started, *[Token] * len(TEXTS), End]
    assert [frame.event.t for frame in taken if isinstance(frame.event, Token)] == list(TEXTS)
    assert [frame.is_terminal for frame in taken] == [False] * (len(TEXTS) + 1) + [True]


def test_a_repeated_frame_is_left_out() -> None:
    whole = frames()

    assert take(*whole[:3], *whole[1:4], *whole[2:]) == take(*whole)


def test_metrics_share_a_number_and_are_no_repeat() -> None:
    whole = frames()

    taken = take(whole[0], metrics(1), whole[1], metrics(2), metrics(2), whole[2])

    assert [(frame.seq, frame.name) for frame in taken] == [
        (1, "started"),
        (1, "metrics"),
        (2, "token"),
        (2, "metrics"),
        (2, "metrics"),
        (3, "token"),
    ]
    assert isinstance(taken[1].event, StreamMetrics)


def test_metrics_of_a_past_that_the_reader_has_had_are_stale() -> None:
    assert take(metrics(3), cursor=FrameCursor(5)) == []


def test_metrics_ahead_of_the_reader_say_that_a_token_is_missing() -> None:
    with pytest.raises(StreamGapError, match="frame 3 is missing"):
        take(*frames()[:2], metrics(3))


@pytest.mark.parametrize("missing", range(len(TEXTS) + 1))
def test_a_missing_frame_is_a_gap_wherever_it_is(missing: int) -> None:
    whole = frames()

    with pytest.raises(StreamGapError):
        take(*whole[:missing], *whole[missing + 1 :])


def test_a_token_under_the_wrong_number_is_a_gap() -> None:
    with pytest.raises(StreamGapError, match="token 1 came where 0 was due"):
        take(frames()[0], token_frame("b", 1).replace(b"id: 3", b"id: 2"))


def test_an_end_under_a_number_of_the_past_is_how_it_ended() -> None:
    taken = take(failure(2), cursor=FrameCursor(9))

    assert [frame.name for frame in taken] == ["error"]
    assert isinstance(taken[0].event, ErrorEnvelope)


def test_an_error_after_numbers_that_a_lost_daemon_left_empty_is_taken() -> None:
    assert [frame.name for frame in take(failure(90), cursor=FrameCursor(4))] == ["error"]


def test_a_cancelled_end_after_numbers_that_a_lost_daemon_left_empty_is_taken() -> None:
    canceled = ending(0, seq=90).replace(b'"stop"', b'"canceled"')

    assert [frame.name for frame in take(canceled, cursor=FrameCursor(4))] == ["end"]


def test_any_other_end_after_empty_numbers_is_a_gap() -> None:
    with pytest.raises(StreamGapError, match="frame 90 came where 5 was due"):
        take(ending(0, seq=90), cursor=FrameCursor(4))


def test_a_task_that_never_ran_has_one_frame() -> None:
    assert [frame.seq for frame in take(ending(0, seq=1))] == [1]


def test_an_event_of_tomorrow_is_counted_and_left_out() -> None:
    whole = frames()
    unknown = b"id: 2\nevent: thought\ndata: {}\n\n"

    taken = take(whole[0], unknown, failure(3))

    assert [frame.name for frame in taken] == ["started", "error"]


def test_a_field_of_tomorrow_is_no_reason_to_fail() -> None:
    taken = take(frames()[0], b'id: 2\nevent: token\ndata: {"t":"a","i":0,"logprob":-1}\n\n')

    assert taken[1].event == Token("a", 0)


@pytest.mark.parametrize(
    "raw",
    [
        b"event: started\ndata: {}\n\n",
        b"id: \nevent: token\ndata: {}\n\n",
        b"id: -1\nevent: token\ndata: {}\n\n",
        b"id: " + b"1" * 30 + b"\nevent: token\ndata: {}\n\n",
        "id: ²\nevent: token\ndata: {}\n\n".encode(),
        b"id: 1\nevent: started\ndata: {}\n\n",
        b"id: 1\nevent: end\ndata: no json\n\n",
        b"id: 1\nevent: end\ndata: \xff\n\n",
        b'id: 1\nevent: error\ndata: {"code":"NEW","message":"","retriable":false,"correlation_id":""}\n\n',
    ],
)
def test_what_no_daemon_says_is_said_to_be_so(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        take(raw)
