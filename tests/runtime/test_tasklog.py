"""The task log: numbering, replay from anywhere, readers that fall behind, re-runs, and the end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.runtime.tasklog import TaskLog
from supervisor.wire.codes import FinishReason
from supervisor.wire.frames import (
    End,
    Started,
    StreamMetrics,
    end_frame,
    metrics_frame,
    started_frame,
    token_frame,
)

STARTED = started_frame(
    Started(
        queue_position=0,
        predicted_start_ms=None,
        queue_time_ms=1,
        pool_id="p",
        replica_id="p/0",
        engine_version="b1",
        model_digest="sha256:0",
        kv_warmth=False,
    )
)
METRICS = metrics_frame(StreamMetrics(tokens_out=1, tokens_per_s=1.0, elapsed_ms=1), 2)


def the_end(seq: int) -> bytes:
    end = End(
        tokens_out=1, decode_ms=1, finish_reason=FinishReason.STOP, tokens_in=1, kv_warmth=False, kv_migrated=False
    )
    return end_frame(end, seq)


def tokens(*texts: str, first: int = 0) -> list[bytes]:
    return [token_frame(text, index) for index, text in enumerate(texts, first)]


class Pusher:
    """A reader that takes `room` pushes, then says that it is behind; `catch_up` makes it read on."""

    def __init__(self, log: TaskLog, room: int = 1_000_000) -> None:
        self.log = log
        self.room = room
        self.cursor = 0
        self.got: list[bytes] = []
        self.finished = 0

    def push(self, data: bytes) -> bool:
        self.got.append(data)
        self.cursor = self.log.seq
        self.room -= 1
        return self.room > 0

    def finish(self) -> None:
        self.finished += 1

    def catch_up(self, room: int, bytes_max: int = 65_536) -> None:
        self.room = room
        while not self.log.attach(self, self.cursor):
            data, self.cursor = self.log.read(self.cursor, bytes_max)
            self.got.append(data)

    @property
    def text(self) -> bytes:
        return b"".join(self.got)


def a_log(*texts: str) -> TaskLog:
    log = TaskLog("job")
    log.append_started(STARTED)
    log.append_tokens(tokens(*texts))
    return log


def test_counts() -> None:
    log = a_log("a", "b")

    assert (log.seq, log.tokens, log.is_closed) == (3, 2, False)
    assert log.size_bytes == len(STARTED) + sum(len(frame) for frame in tokens("a", "b"))


def test_all_tokens_of_one_read_leave_in_one_write() -> None:
    log = a_log()
    reader = Pusher(log)
    log.attach(reader, log.seq)

    log.append_tokens(tokens("a", "b", "c"))

    assert reader.got == [b"".join(tokens("a", "b", "c"))]


@pytest.mark.orch("ORCH-2002")
@pytest.mark.parametrize("after", range(6))
@pytest.mark.parametrize("bytes_max", [1, 100, 65_536])
def test_replay_from_any_frame(after: int, bytes_max: int) -> None:
    log = a_log("a", "b", "c")
    log.close(the_end(5))
    reader = Pusher(log)
    reader.cursor = after

    reader.catch_up(9, bytes_max)

    assert reader.text == b"".join([STARTED, *tokens("a", "b", "c"), the_end(5)][after:])
    assert reader.finished == 1


def test_read_from_outside_the_log_is_clamped() -> None:
    log = a_log("a")

    assert log.read(-1) == (log.dump(), 2)
    assert log.read(10**18) == (b"", 2)


def test_read_gives_one_frame_that_is_larger_than_the_bound() -> None:
    log = a_log("x" * 1000, "y")

    assert log.read(1, bytes_max=10) == (tokens("x" * 1000)[0], 2)


def test_late_reader_is_live_only_once_it_has_everything() -> None:
    log = a_log("a")
    reader = Pusher(log)

    first = log.attach(reader, 0)
    log.append_tokens(tokens("b", first=1))

    assert not first
    assert reader.got == []
    reader.catch_up(9)
    log.append_tokens(tokens("c", first=2))
    assert reader.text == log.dump()
    assert log.readers == 1


@pytest.mark.orch("ORCH-2002")
def test_reader_that_falls_behind_catches_up_without_loss_and_holds_nobody() -> None:
    log = a_log()
    slow, fast = Pusher(log, room=2), Pusher(log)
    for reader in (slow, fast):
        reader.catch_up(reader.room)

    for index in range(10):
        log.append_tokens(tokens(str(index), first=index))

    behind = slow.text
    slow.catch_up(99)
    log.close(the_end(12))
    assert fast.text == log.dump() == slow.text
    assert len(behind) < len(log.dump())
    assert (slow.finished, fast.finished) == (1, 1)


def test_reader_may_leave_while_it_is_pushed_to() -> None:
    log = a_log()

    class Leaver(Pusher):
        def push(self, data: bytes) -> bool:
            self.log.detach(self)
            return super().push(data)

    leaver, other = Leaver(log, room=1), Pusher(log)
    log.attach(leaver, log.seq)
    log.attach(other, log.seq)

    log.append_tokens(tokens("a"))
    log.append_tokens(tokens("b", first=1))

    assert (len(leaver.got), len(other.got), log.readers) == (1, 2, 1)


def test_metrics_reach_live_readers_only_and_are_not_kept() -> None:
    log = a_log("a")
    live, behind = Pusher(log), Pusher(log)
    log.attach(live, log.seq)
    log.attach(behind, 0)
    before = log.dump()

    log.push_metrics(METRICS)

    assert (live.got, behind.got) == ([METRICS], [])
    assert (log.dump(), log.seq) == (before, 2)


def test_coming_and_going_of_readers_is_told_at_the_edges_only() -> None:
    told: list[tuple[str, int]] = []
    log = TaskLog("job", lambda job_id, count: told.append((job_id, count)))
    log.append_started(STARTED)
    one, two = Pusher(log, room=1), Pusher(log)

    log.attach(one, 0)
    log.attach(one, 1)
    log.attach(two, 1)
    log.append_tokens(tokens("a"))  # `one` falls behind, which is not leaving
    log.detach(two)
    readers = log.readers
    log.detach(one)
    log.detach(one)
    log.attach(two, 2)

    assert readers == 1
    assert told == [("job", 1), ("job", 0), ("job", 1)]


def test_readers_of_a_finished_log_are_nobodys_business() -> None:
    told: list[int] = []
    log = TaskLog("job", lambda _job_id, count: told.append(count))
    log.close(the_end(1))
    reader = Pusher(log)

    log.attach(reader, 0)
    log.detach(reader)

    assert told == []


@pytest.mark.orch("ORCH-3026")
def test_frozen_log_takes_nothing_but_the_terminal_frame() -> None:
    log = a_log("a")
    reader = Pusher(log)
    log.attach(reader, log.seq)

    log.freeze()
    log.append_tokens(tokens("b", first=1))
    log.offer_tokens(1, tokens("b", first=1))
    log.push_metrics(METRICS)
    log.close(the_end(3))

    assert reader.got == [the_end(3)]
    assert (log.tokens, log.is_closed) == (1, True)


def test_nothing_follows_the_terminal_frame() -> None:
    log = a_log("a")
    log.close(the_end(3))
    whole = log.dump()

    log.append_started(STARTED)
    log.append_tokens(tokens("b", first=1))
    log.close(the_end(4))

    assert log.dump() == whole


@pytest.mark.orch("ORCH-3045")
@given(st.lists(st.text(max_size=3), max_size=12), st.integers(0, 12), st.lists(st.integers(1, 5), max_size=12))
def test_rerun_adds_only_what_is_new(texts: list[str], known: int, batches: list[int]) -> None:
    log = a_log(*texts[:known])
    reader = Pusher(log)
    reader.catch_up(99)

    log.append_started(STARTED.replace(b"p/0", b"p/1"))
    at = 0
    for size in [*batches, len(texts)]:
        assert log.offer_tokens(at, tokens(*texts[at : at + size], first=at)) is None
        at = min(at + size, len(texts))

    assert log.dump() == STARTED + b"".join(tokens(*texts)) == reader.text
    assert log.tokens == len(texts)


@pytest.mark.orch("ORCH-3045")
def test_rerun_that_differs_is_reported_and_appends_nothing() -> None:
    log = a_log("a", "b", "c")
    before = log.dump()

    differs = log.offer_tokens(1, tokens("b", "X", "d", first=1))

    assert differs == 2
    assert log.dump() == before


HOSTILE = ["\n\ndata: x\n\n", "\r\n\r\n", "\x00", "\u2028\u2029\x85", "id: 9\nevent: token\n", "\\n\\n", "😀", ""]


@pytest.mark.parametrize("text", HOSTILE)
def test_finished_log_comes_back_from_its_dump(text: str) -> None:
    log = a_log(text, "b")
    log.close(the_end(4))

    again = TaskLog.from_frames("job", log.dump())

    assert again.dump() == log.dump()
    assert (again.seq, again.tokens, again.size_bytes, again.is_closed) == (4, 2, log.size_bytes, True)
    assert [again.read(seq, 1) for seq in range(4)] == [log.read(seq, 1) for seq in range(4)]


@given(st.data())
def test_every_reader_sees_every_frame_once(data: st.DataObject) -> None:
    log = a_log()
    readers = [Pusher(log, room=data.draw(st.integers(1, 4))) for _ in range(3)]
    for index in range(data.draw(st.integers(0, 20))):
        log.append_tokens(tokens(str(index), first=index))
        reader = data.draw(st.sampled_from(readers))
        if data.draw(st.booleans()):
            reader.catch_up(data.draw(st.integers(1, 4)), data.draw(st.integers(1, 200)))
        elif data.draw(st.booleans()):
            log.detach(reader)

    log.close(the_end(log.seq + 1))

    for reader in readers:
        reader.catch_up(9)
        assert reader.text == log.dump()
        assert reader.finished in {1, 2}  # told by `close` where live, by `attach` where it came back
    assert log.readers == 0
