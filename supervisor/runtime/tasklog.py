"""The log of one task's stream: encoded frames, appended once, read by any number of cursors.

Lasting frames (`started`, `token`, `end`, `error`) are kept and numbered from 1; `metrics` frames are transient. A
reader that keeps up is *live* and is pushed each batch as it arrives; one that falls behind pulls with `read` until it
has caught up, and counts as a reader all the while. A missing or slow reader never holds anybody else.

A log that an earlier daemon had *owes* the token frames which that one delivered: those of a re-run are held back until
all of them are there and have the recorded digest, and then appended in one piece. Where it closes before that, their
numbers stay empty, so that the terminal frame follows what any client has seen.

The log decides nothing about tasks: what is appended and when it closes is its owner's business.
"""

from typing import Protocol

from supervisor.runtime.progress import Delivered, Track, digest_of
from supervisor.wire.frames import SEQ_FIRST_TOKEN, SEQ_STARTED

READ_BYTES_MAX = 65_536
FRAME_END = b"\n\n"
_TOKEN_MARK = b"\nevent: token\n"
_NUMBER_MARK = b"id: "


class Reader(Protocol):
    """One caller's end of a stream. Both methods are called on the event loop and must not block or raise."""

    def push(self, data: bytes) -> bool:
        """Take whole frames. False: behind, detach me.

        The log's `seq` is already that of the last frame in `data`, so a reader that took them can note it as its
        cursor; for one that did not, `seq_before` is that of the last frame before them.
        """

    def finish(self) -> None:
        """The stream is complete; the terminal frame was the last one pushed."""


class OnReaders(Protocol):
    """Told when the first reader comes (count 1) and when the last one leaves (count 0), on the event loop."""

    def __call__(self, job_id: str, count: int, /) -> object:
        """`count` is the number of readers now."""


class TaskLog:
    """Append-only; frame number `seq` is the `seq`-th lasting frame. Create it at dispatch or at the first reader.

    Appending to a frozen or a closed log does nothing: no frame follows a cancel or the terminal frame.
    """

    __slots__ = (
        "_behind",
        "_frames",
        "_held",
        "_live",
        "_on_readers",
        "_owed",
        "_seen_max",
        "is_closed",
        "is_frozen",
        "job_id",
        "seq_before",
        "size_bytes",
        "tokens",
        "track",
    )

    def __init__(self, job_id: str, on_readers: OnReaders | None = None) -> None:
        self.job_id = job_id
        self.is_closed = False
        self.is_frozen = False
        self.seq_before = 0
        """While lasting frames are pushed: the `seq` before they came."""
        self.size_bytes = 0
        """Bytes of the frames kept."""
        self.tokens = 0
        """Token frames kept or owed: the N of `X-Tokens-Emitted`."""
        self.track: Track | None = None
        """What a crash of the daemon leaves of this stream; told of tokens before any reader is."""
        self._owed: Delivered | None = None
        self._seen_max = 0
        self._held: list[bytes] = []
        self._frames: list[bytes] = []
        # Tuples are replaced, never changed, so a reader may leave in the middle of a push to all of them.
        self._live: tuple[Reader, ...] = ()
        self._behind: tuple[Reader, ...] = ()
        self._on_readers = on_readers

    @classmethod
    def from_frames(cls, job_id: str, blob: bytes) -> "TaskLog":
        """A finished log out of `dump()`. A frame ends at its first empty line: JSON lets no other newline in."""
        log = cls(job_id)
        log._frames = [frame + FRAME_END for frame in blob.split(FRAME_END)[:-1]]
        log.size_bytes = len(blob)
        log.tokens = blob.count(_TOKEN_MARK)
        if log._frames:
            log._leave_empty(_number_of(log._frames[-1]) - len(log._frames), before=-1)
        log.is_closed = True
        return log

    @classmethod
    def owing(cls, job_id: str, delivered: Delivered, on_readers: OnReaders | None = None) -> "TaskLog":
        """The log of a task of which an earlier daemon delivered so much that nothing else may follow."""
        log = cls(job_id, on_readers)
        log._owed = delivered if delivered.tokens else None
        log._seen_max = SEQ_STARTED + delivered.tokens
        log.tokens = delivered.tokens
        return log

    def dump(self) -> bytes:
        """All lasting frames in one piece, as a client that read from the start would have seen them."""
        return b"".join(self._frames)

    @property
    def seq(self) -> int:
        """Number of the last lasting frame; 0 where there is none."""
        return len(self._frames)

    @property
    def terminal_seq(self) -> int:
        """The number of a terminal frame, if it came now: after all that any client may have seen."""
        return max(len(self._frames), self._seen_max) + 1

    @property
    def readers(self) -> int:
        """Readers that have not left, live or behind."""
        return len(self._live) + len(self._behind)

    @property
    def has_live_readers(self) -> bool:
        """Whether somebody would see a metrics frame."""
        return bool(self._live)

    def append_started(self, frame: bytes) -> None:
        """The `started` frame, once: a re-run finds it there and leaves it as it is."""
        if not self._frames and not self.is_frozen and not self.is_closed:
            self._append([frame], frame)

    def append_tokens(self, frames: list[bytes]) -> None:
        """The next token frames. Everything in one call leaves in one write per live reader."""
        if frames and not self.is_frozen and not self.is_closed:
            assert self._frames, "token frames are numbered after `started`"
            self.tokens += len(frames)
            data = frames[0] if len(frames) == 1 else b"".join(frames)
            if self.track is not None:
                self.track.advance(self.tokens, data)
            self._append(frames, data)

    def offer_tokens(self, index: int, frames: list[bytes]) -> int | None:
        """Token frames of a re-run, the first of which is token `index`: known ones are compared, new ones appended.

        Returns the index of the first token that differs from what was streamed before, else None; for frames that an
        earlier daemon streamed, the index of the token by which they differ. On a difference nothing is appended.
        """
        if self._owed is not None:
            return self._settle(self._owed, index, frames)
        known = self._frames[index + SEQ_FIRST_TOKEN - 1 : index + SEQ_FIRST_TOKEN - 1 + len(frames)]
        for offset, (before, now) in enumerate(zip(known, frames, strict=False)):
            if before != now:
                return index + offset
        self.append_tokens(frames[len(known) :])
        return None

    def _settle(self, owed: Delivered, index: int, frames: list[bytes]) -> int | None:
        if self.is_frozen or self.is_closed:
            return None
        if index == 0:
            self._held.clear()
        self._held += frames
        if len(self._held) < owed.tokens:
            return None
        held, self._held = self._held, []
        if digest_of(b"".join(held[: owed.tokens])) != owed.digest:
            return owed.tokens - 1
        self._owed = None
        self.tokens = 0
        self.append_tokens(held)
        return None

    def push_metrics(self, frame: bytes) -> None:
        """A transient frame, for live readers only: who is behind has better things to read."""
        if not self.is_frozen and not self.is_closed:
            self._push(frame)

    def freeze(self) -> None:
        """A cancel was answered: from now on only the terminal frame is taken (ORCH-3026)."""
        self.is_frozen = True

    def close(self, frame: bytes) -> None:
        """The terminal frame. Live readers get it and are told that the stream is complete. Once only."""
        if self.is_closed:
            return
        self._leave_empty(self.terminal_seq - 1 - len(self._frames))
        self._owed = None
        self._held = []
        self.track = None
        self._append([frame], frame)
        self.is_closed = True
        live, self._live = self._live, ()
        for reader in live:
            reader.finish()

    def read(self, after_seq: int, bytes_max: int = READ_BYTES_MAX) -> tuple[bytes, int]:
        """Whole frames after frame `after_seq`, up to `bytes_max` but at least one, and the number of the last of them.

        Empty numbers are passed over on the way. With nothing to read: `b""` and the `seq` that the reader is at.
        """
        frames = self._frames
        start = stop = min(max(after_seq, 0), len(frames))
        room = bytes_max
        while stop < len(frames) and (room >= len(frames[stop]) or room == bytes_max):
            room -= len(frames[stop])
            stop += 1
        return b"".join(frames[start:stop]), stop

    def attach(self, reader: Reader, after_seq: int) -> bool:
        """Count `reader` in, and make it live if it has every frame up to `seq`; False: `read` on and call again.

        Safe to call again at any time. On a closed log a reader that has everything is told `finish()` at once.
        """
        was = self.readers
        self._drop(reader)
        if after_seq >= len(self._frames) and self.is_closed:
            reader.finish()
            return True
        if after_seq >= len(self._frames):
            self._live += (reader,)
        else:
            self._behind += (reader,)
        if was == 0:
            self._tell_readers()
        return reader in self._live

    def detach(self, reader: Reader) -> None:
        """The reader leaves. Harmless for one that is not there."""
        was = self.readers
        self._drop(reader)
        if was and self.readers == 0:
            self._tell_readers()

    def _drop(self, reader: Reader) -> None:
        self._live = tuple(other for other in self._live if other is not reader)
        self._behind = tuple(other for other in self._behind if other is not reader)

    def _tell_readers(self) -> None:
        if self._on_readers is not None and not self.is_closed:
            self._on_readers(self.job_id, self.readers)

    def _leave_empty(self, count: int, before: int | None = None) -> None:
        """Numbers whose frames are lost: nothing is read there."""
        at = len(self._frames) if before is None else len(self._frames) + before
        self._frames[at:at] = [b""] * count

    def _append(self, frames: list[bytes], data: bytes) -> None:
        self.seq_before = len(self._frames)
        self._frames += frames
        self.size_bytes += len(data)
        if self._live:
            self._push(data)

    def _push(self, data: bytes) -> None:
        for reader in self._live:
            if not reader.push(data) and reader in self._live:
                self._live = tuple(other for other in self._live if other is not reader)
                self._behind += (reader,)


def _number_of(frame: bytes) -> int:
    return int(frame[len(_NUMBER_MARK) : frame.index(b"\n")])
