"""Streams that an earlier daemon had begun: what it delivered is proved before anything follows."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.runtime.progress import Delivered, digest_of
from supervisor.runtime.tasklog import TaskLog
from supervisor.wire.frames import token_frame

STARTED = b"id: 1\nevent: started\ndata: {}\n\n"


def tokens(count: int, first: int = 0) -> list[bytes]:
    return [token_frame(f" {index}", index) for index in range(first, first + count)]


def delivered(count: int) -> Delivered:
    return Delivered(attempt=1, daemons=1, tokens=count, digest=digest_of(b"".join(tokens(count))))


def the_end(seq: int) -> bytes:
    return b"id: %d\nevent: error\ndata: {}\n\n" % seq


@dataclass
class Witness:
    """Keeps all that is pushed."""

    pushes: list[bytes] = field(default_factory=list)
    is_finished: bool = False

    def push(self, data: bytes) -> bool:
        self.pushes.append(data)
        return True

    def finish(self) -> None:
        self.is_finished = True


def a_resumed_log(count: int) -> tuple[TaskLog, Witness]:
    log, witness = TaskLog.owing("job", delivered(count)), Witness()
    log.append_started(STARTED)
    log.attach(witness, log.seq)
    return log, witness


def test_nothing_is_shown_until_all_that_was_delivered_is_there_and_then_all_at_once() -> None:
    log, witness = a_resumed_log(4)

    assert log.offer_tokens(0, tokens(2)) is None
    assert log.offer_tokens(2, tokens(1, 2)) is None
    assert witness.pushes == []
    assert log.offer_tokens(3, tokens(3, 3)) is None

    assert witness.pushes == [b"".join(tokens(6))]
    assert (log.tokens, log.seq) == (6, 7)
    log.append_tokens(tokens(1, 6))
    assert log.read(5)[0] == b"".join(tokens(3, 4))


@pytest.mark.parametrize("wrong", [0, 2, 3])
def test_a_difference_is_told_and_shows_nothing(wrong: int) -> None:
    log, witness = a_resumed_log(4)
    frames = tokens(4)
    frames[wrong] = token_frame("?", wrong)

    differs = log.offer_tokens(0, frames)

    assert differs == 3
    assert witness.pushes == []
    assert log.tokens == 4


def test_a_second_run_starts_the_proof_anew() -> None:
    log, witness = a_resumed_log(4)
    log.offer_tokens(0, tokens(3))

    assert log.offer_tokens(0, tokens(4)) is None
    assert witness.pushes == [b"".join(tokens(4))]


def test_what_was_emitted_counts_before_it_is_there_again() -> None:
    log, _ = a_resumed_log(9)

    assert log.tokens == 9


@pytest.mark.parametrize("is_started", [True, False])
@pytest.mark.parametrize("count", [0, 1, 30])
def test_an_end_before_that_comes_after_all_that_a_client_may_have(count: int, is_started: bool) -> None:
    log = TaskLog.owing("job", delivered(count))
    if is_started:
        log.append_started(STARTED)
    frame = the_end(log.terminal_seq)
    blob = log.dump() + frame
    log.close(frame)
    later = TaskLog.from_frames("job", blob)

    for closed in (log, later):
        assert closed.seq == count + 2
        assert closed.read(count + 1) == (frame, count + 2)
        assert closed.read(0)[0] == (STARTED if is_started else b"") + frame
        assert closed.dump() == blob


def test_a_cancelled_stream_takes_no_proof() -> None:
    log, witness = a_resumed_log(2)
    log.freeze()

    assert log.offer_tokens(0, tokens(5)) is None
    assert witness.pushes == []


@settings(max_examples=60, deadline=None)
@given(
    owed=st.integers(0, 12),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=8),
    cursor=st.integers(0, 13),
)
def test_a_reader_gets_exactly_the_rest(owed: int, sizes: list[int], cursor: int) -> None:
    cursor = min(cursor, owed + 1)
    log = TaskLog.owing("job", delivered(owed))
    log.append_started(STARTED)
    at = 0
    for size in sizes:
        frames = tokens(size, at)
        if at == log.tokens:
            log.append_tokens(frames)
        else:
            assert log.offer_tokens(at, frames) is None
        at += size

    whole = [STARTED, *tokens(at)]
    assert log.read(cursor)[0] == (b"".join(whole[cursor:]) if at >= owed else b"" if cursor else STARTED)


def test_numbers_that_stay_empty_are_passed_over_to_a_frame_larger_than_the_bound() -> None:
    log = TaskLog.owing("j", Delivered(attempt=1, daemons=1, tokens=5, digest=b"x" * 16))
    frame = b"id: 7\nevent: error\ndata: " + b"x" * 100 + b"\n\n"
    log.close(frame)

    assert log.read(0, 50) == (frame, 7)
