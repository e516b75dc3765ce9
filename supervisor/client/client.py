"""OrchQueue v1 for Python programs: one object, typed requests and replies, streams that survive what breaks them.

Every call raises `ApiError`, `NetworkError` or `ProtocolError` and nothing else of its own. What changes something is
tried again as the `RetryPolicy` allows, because each of these calls is idempotent: a task is known by its `task_id`.
What only looks is asked once.
"""

import ssl
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

import msgspec
from multidict import CIMultiDictProxy

from supervisor.client.backoff import RetryPolicy
from supervisor.client.completion import Completion, Embedding, Score, collect, outputs_of
from supervisor.client.errors import ApiError, ClientError, NetworkError, ProtocolError
from supervisor.client.frames import Frame, FrameCursor, StreamEvent
from supervisor.client.patience import OnRetry, Pace, Patience
from supervisor.client.sse import EventParser, FrameTooLongError
from supervisor.client.transport import Address, Reply, Transport
from supervisor.wire.pools import DrainRequest, PoolChange, PoolHealth, ReplicaSetPage
from supervisor.wire.sessions import SessionPage, SessionView
from supervisor.wire.tasks import Accepted, SubmitTask, TaskPage, TaskView

CONNECT_S = 5.0
ANSWER_S = 15.0
"""The longest wait for one answer."""
SILENCE_S = 45.0
"""The longest silence of a stream: the daemon says something every 15 s, also while a task waits."""

T = TypeVar("T")


def _ignore(error: ClientError, wait_s: float) -> None:
    """Nobody asked to be told."""


class OrchClient:
    """One daemon. Use it as an async context manager, in one event loop.

    `address` is `http://host:port`, `https://host:port` or `unix:/path/of/control.sock`; an `api_key` goes out as
    `Authorization: Bearer`; `tls` is a context of the `ssl` module for a private authority or a client certificate.
    `on_retry` is told of each error that is tried again and of the wait before it, in seconds.
    """

    def __init__(
        self,
        address: str,
        *,
        api_key: str | None = None,
        tls: ssl.SSLContext | None = None,
        retry: RetryPolicy | None = None,
        pace: Pace | None = None,
        on_retry: OnRetry = _ignore,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._address = Address.parse(address)
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key is not None else {}
        self._tls = tls
        self._retry = retry or RetryPolicy()
        self._pace = pace or Pace()
        self._on_retry = on_retry
        self._silence_s = silence_s
        self._opened: Transport | None = None

    async def __aenter__(self) -> Self:
        self._opened = Transport(self._address, self._headers, self._tls, CONNECT_S)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._transport.close()
        self._opened = None

    @property
    def _transport(self) -> Transport:
        if self._opened is None:
            raise RuntimeError("an OrchClient is used inside `async with`")
        return self._opened

    # Tasks ------------------------------------------------------------------------------------------------------

    async def submit(self, task: SubmitTask) -> Accepted:
        """Hand a task in; it is on disk when this comes back, and there is one task however often it was sent."""
        return await self._change("POST", "/v1/tasks", Accepted, msgspec.json.encode(task))

    async def stream(self, task_id: str, *, after: int = 0) -> AsyncGenerator[StreamEvent, None]:
        """The events of a task, each once and in order, up to and with `End` or `ErrorEnvelope`.

        Goes on where it was after a connection or a daemon that was lost. `after` is the number of the last frame that
        the caller has from before. Raises StreamGapError rather than leave a token out, ApiError with `reason`
        not_found or expired.
        """
        async with aclosing(self.frames(task_id, after=after)) as frames:
            async for frame in frames:
                yield frame.event

    async def frames(self, task_id: str, *, after: int = 0) -> AsyncGenerator[Frame, None]:
        """As `stream`, each event with its number, its name and the JSON that it came as."""
        cursor = FrameCursor(after)
        patience = self._patience()
        while True:
            lost: ApiError | NetworkError = NetworkError("the stream ended before the task did")
            try:
                async with aclosing(self._connection(task_id, cursor, patience)) as frames:
                    async for frame in frames:
                        yield frame
                        if frame.is_terminal:
                            return
            except (ApiError, NetworkError) as error:
                lost = error
            await patience.wait(lost)

    async def _connection(self, task_id: str, cursor: FrameCursor, patience: Patience) -> AsyncGenerator[Frame, None]:
        """The new frames of one connection, until it ends in whatever way."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(cursor.seq)} if cursor.seq else {})
        path = f"{_task(task_id)}/stream"
        parser = EventParser()
        async with self._transport.open("GET", path, headers=headers, silence_s=self._silence_s) as response:
            _require_event_stream(response.headers)
            opened_s = self._pace.now_s()
            async for piece in self._transport.pieces(response):
                if self._pace.now_s() - opened_s > self._retry.longest_s:
                    # Nothing but comments, for a task that waits, is a connection that works.
                    patience.restart()
                try:
                    events = parser.feed(piece)
                except FrameTooLongError:
                    raise ProtocolError("the stream has a frame without end") from None
                for event in events:
                    before = cursor.seq
                    frame = cursor.take(event)
                    if cursor.seq > before:  # a server that only repeats itself gets nowhere
                        patience.restart()
                    if frame is not None:
                        yield frame

    async def complete(self, task: SubmitTask) -> Completion:
        """Submit, read to the end, join the text. Raises TaskFailedError where the task ends in an error."""
        accepted = await self.submit(task)
        async with aclosing(self.stream(accepted.task_id)) as events:
            return await collect(accepted, events)

    async def embed(self, task: SubmitTask) -> list[Embedding]:
        """As `complete`, for an embedding task: one vector for each input, in their order."""
        return outputs_of((await self.complete(task)).end, Embedding)

    async def rerank(self, task: SubmitTask) -> list[Score]:
        """As `complete`, for a rerank task: one score for each document, in their order."""
        return outputs_of((await self.complete(task)).end, Score)

    async def cancel(self, task_id: str) -> int:
        """End a task; harmless on one that is over. Gives the number of tokens that its stream ever shows."""
        reply = await self._persist("POST", f"{_task(task_id)}/cancel", b"")
        text = reply.headers.get("X-Tokens-Emitted", "")
        if not (text.isascii() and text.isdigit()):
            raise ProtocolError("a cancel without X-Tokens-Emitted")
        return int(text)

    async def task(self, task_id: str) -> TaskView:
        """One task."""
        return await self._look(_task(task_id), TaskView)

    async def tasks(self, limit: int = 100) -> TaskPage:
        """The caller's own tasks, newest first; `limit` is 1 to 1000."""
        return await self._look(f"/v1/tasks?limit={int(limit)}", TaskPage)

    # Sessions ---------------------------------------------------------------------------------------------------

    async def session(self, session_id: str) -> SessionView:
        """One of the caller's sessions. Looking never makes one: an unknown id is an ApiError with status 404."""
        return await self._look(_session(session_id), SessionView)

    async def sessions(self, limit: int = 100) -> SessionPage:
        """The caller's sessions, last used first; `limit` is 1 to 1000."""
        return await self._look(f"/v1/sessions?limit={int(limit)}", SessionPage)

    async def forget_session(self, session_id: str) -> None:
        """End a session and evict its KV."""
        await self._persist("DELETE", _session(session_id), b"")

    # Pools ------------------------------------------------------------------------------------------------------

    async def health(self, pool_id: str) -> PoolHealth:
        """One pool and its figures."""
        return await self._look(f"{_pool(pool_id)}/health", PoolHealth)

    async def replicasets(self) -> ReplicaSetPage:
        """The replica sets and their load."""
        return await self._look("/v1/replicasets", ReplicaSetPage)

    async def drain(self, pool_id: str, deadline_ms: int) -> PoolChange:
        """Give nothing more to a pool; what still runs after `deadline_ms` milliseconds ends as WORKER_RESET."""
        body = msgspec.json.encode(DrainRequest(deadline_ms=deadline_ms))
        return await self._change("POST", f"{_pool(pool_id)}/drain", PoolChange, body)

    async def resume(self, pool_id: str) -> PoolChange:
        """Undo a drain."""
        return await self._change("POST", f"{_pool(pool_id)}/resume", PoolChange, b"")

    # Asking -----------------------------------------------------------------------------------------------------

    async def _look(self, path: str, shape: type[T]) -> T:
        return _decoded(await self._transport.ask("GET", path, None, ANSWER_S), shape)

    async def _change(self, method: str, path: str, shape: type[T], body: bytes) -> T:
        return _decoded(await self._persist(method, path, body), shape)

    async def _persist(self, method: str, path: str, body: bytes) -> Reply:
        """Ask until there is an answer that another try would not change, or patience is at its end."""
        patience = self._patience()
        while True:
            try:
                return await self._transport.ask(method, path, body or None, min(ANSWER_S, patience.left_s()))
            except ClientError as error:
                await patience.wait(error)

    def _patience(self) -> Patience:
        return Patience(self._retry, self._pace, self._on_retry)


def _decoded(reply: Reply, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(reply.body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"an answer that this version cannot read: {error}") from None


def _require_event_stream(headers: CIMultiDictProxy[str]) -> None:
    if headers.get("Content-Type", "").partition(";")[0].strip().lower() != "text/event-stream":
        raise ProtocolError("an answer that is no event stream")


def _task(task_id: str) -> str:
    return f"/v1/tasks/{quote(task_id, safe='')}"


def _session(session_id: str) -> str:
    return f"/v1/sessions/{quote(session_id, safe='')}"


def _pool(pool_id: str) -> str:
    return f"/v1/pools/{quote(pool_id, safe='')}"
