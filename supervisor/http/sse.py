"""One reader of a task's stream: replay after its `Last-Event-ID`, then frames as they are made (ORCH-2002).

A reader that keeps up is pushed to: the log's frames go into the client's transport in the callback that made them,
with no queue, event or task switch per token. When the transport's buffer is full the reader leaves the live ones and
pulls from the log, a piece per turn of the loop, until it has caught up; `Connection` aborts a client that does not
read at all. Nothing here changes a frame, and no reader ever holds the task or another reader.
"""

import asyncio
from enum import StrEnum

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from supervisor.core.refusals import Refused
from supervisor.http.bodies import invalid
from supervisor.http.call import Call
from supervisor.http.connection import Connection
from supervisor.http.limits import Limits
from supervisor.runtime.tasklog import TaskLog
from supervisor.wire.codes import Code, Reason
from supervisor.wire.frames import COMMENT

EVENT_ID_DIGITS_MAX = 19
HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}
SHUTTING_DOWN = Refused(
    code=Code.POOL_UNAVAILABLE, reason=Reason.SHUTDOWN, message="The daemon is stopping.", retry_after_ms=5000
)


class Ending(StrEnum):
    """Why a reader stopped; the first cause stays."""

    COMPLETE = "complete"
    LOST = "lost"
    SHUTDOWN = "shutdown"


class StreamReader:
    """A cursor on a `TaskLog` that writes to one client; `_cursor` is the number of the last frame the client has.

    `_cursor` stands still while the reader is live and is set again when it falls behind.
    """

    __slots__ = (
        "_connection",
        "_cursor",
        "_ending",
        "_has_sent",
        "_is_ahead",
        "_is_chunked",
        "_is_mid_frame",
        "_limits",
        "_log",
        "_timer",
        "_transport",
        "_woken",
    )

    def __init__(self, log: TaskLog, connection: Connection, limits: Limits, cursor: int, *, is_chunked: bool) -> None:
        if connection.transport is None:
            raise ConnectionResetError("the client left")
        self._log = log
        self._connection = connection
        self._transport = connection.transport
        self._limits = limits
        self._cursor = cursor
        self._is_chunked = is_chunked
        self._is_ahead = False
        self._is_mid_frame = False
        self._has_sent = False
        self._ending: Ending | None = None
        self._woken = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def push(self, data: bytes) -> bool:
        """Take frames that were just made (see `Reader`)."""
        if self._is_ahead:
            return self._skip()
        if len(data) > self._limits.push_bytes_max:
            # One copy for every reader that does not read: it lies in the log, and is fetched piece by piece.
            self._cursor = self._log.seq_before
            self._woken.set()
            return False
        self._write(data)
        if self._connection.writing_paused:
            self._cursor = self._log.seq
            self._woken.set()
            return False
        return True

    def finish(self) -> None:
        """The last frame was pushed."""
        self._end(Ending.COMPLETE)

    def lost(self) -> None:
        """The client is gone; `run` leaves the log in the next turn, as its task may have nobody left to run for."""
        self._end(Ending.LOST)

    def end(self) -> None:
        """The daemon stops: the response ends without a terminal frame, and the client may resume."""
        self._end(Ending.SHUTDOWN)

    async def run(self, writer: AbstractStreamWriter) -> Ending:
        """Serve until the stream is complete or somebody ends it. Raises ConnectionError where the client left."""
        self._tick()
        try:
            while self._ending is None:
                self._woken.clear()
                self._is_ahead = self._cursor > self._log.seq
                if self._log.attach(self, self._cursor):
                    await self._woken.wait()
                else:
                    data, self._cursor = self._log.read(self._cursor, self._limits.replay_bytes_max)
                    await self._send(data, writer)
                await writer.drain()
        finally:
            self._log.detach(self)
            if self._timer is not None:
                self._timer.cancel()
        if self._ending is Ending.COMPLETE and self._is_ahead:
            # Whoever resumes past the end has not seen how this run ended.
            await self._send(self._log.read(self._log.seq - 1)[0], writer)
        return self._ending

    async def _send(self, data: bytes, writer: AbstractStreamWriter) -> None:
        """Write a piece per turn, as a long replay must not hold up live streams, and none into a full buffer."""
        size = self._limits.replay_bytes_max
        for start in range(0, len(data), size):
            if start and self._ending in (Ending.LOST, Ending.SHUTDOWN):
                return
            self._is_mid_frame = start + size < len(data)
            self._write(data[start : start + size])
            await asyncio.sleep(0)
            await writer.drain()

    def _skip(self) -> bool:
        """The client has frames up to `_cursor` from an earlier run of the task: those are not sent again."""
        self._is_ahead = self._cursor > self._log.seq
        if self._cursor >= self._log.seq:
            return True
        self._woken.set()
        return False

    def _end(self, ending: Ending) -> None:
        self._ending = self._ending or ending
        self._woken.set()

    def _write(self, data: bytes) -> None:
        if not data:
            return  # a chunk of no bytes is the end of the body
        self._has_sent = True
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)

    def _tick(self) -> None:
        """Twice per `comment_s`, so that no silence is longer than that."""
        is_silent = self._timer is not None and not self._has_sent
        if is_silent and not self._is_mid_frame and not self._connection.writing_paused:
            self._write(COMMENT)
        self._has_sent = False
        self._timer = self._connection.loop.call_later(self._limits.comment_s / 2, self._tick)


def last_event_id(call: Call) -> int | Refused:
    """The number of the last frame that the client has; 0 without the header."""
    text = call.request.headers.get("Last-Event-ID")
    if text is None:
        return 0
    if text.isascii() and text.isdigit() and len(text) <= EVENT_ID_DIGITS_MAX:
        return int(text)
    return invalid("Last-Event-ID must be the number of a frame.", Reason.FIELD)


async def stream(call: Call) -> web.StreamResponse:
    """`GET /v1/tasks/{id}/stream`."""
    cursor = last_event_id(call)
    if isinstance(cursor, Refused):
        return call.refuse(cursor)
    log = call.service.stream(call.caller, call.ident)
    if isinstance(log, Refused):
        return call.refuse(log)
    if call.edge.is_closing:
        return call.refuse(SHUTTING_DOWN)
    response = web.StreamResponse(headers={**call.headers, **HEADERS})
    is_chunked = call.request.version >= HttpVersion11
    if not is_chunked:
        response.force_close()
    await response.prepare(call.request)
    reader = StreamReader(log, call.connection, call.edge.limits, cursor, is_chunked=is_chunked)
    with call.long_answer(reader, on_lost=reader.lost):
        ending = await reader.run(call.request.writer)
    if ending is Ending.LOST:
        raise ConnectionResetError("the client left")
    if ending is Ending.SHUTDOWN:
        response.force_close()
    await response.write_eof()
    return response
