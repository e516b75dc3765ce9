"""The Python client of the API, for a verb that waits at a terminal: asked from ordinary code, one event at a time.

Loads asyncio and aiohttp, which take longer than most verbs do: only a verb that follows a task imports it. Between two
events the caller is in charge, so that Ctrl-C and a closed pipe reach it as in any other verb.
"""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from orchctl.client import CHECK_TASK, broken_off, nonsense, translated
from orchctl.exits import ExitCode, RefusedError, VerbError
from supervisor.client.backoff import NEVER, RetryPolicy
from supervisor.client.client import OrchClient
from supervisor.client.errors import ApiError, ClientError, NetworkError, ProtocolError, StreamGapError
from supervisor.client.frames import Frame
from supervisor.client.patience import OnRetry
from supervisor.wire.tasks import Accepted, SubmitTask

HAND_IN_WITHIN_S = 30.0
"""How long a busy daemon is asked again."""

HANDING_IN = RetryPolicy(tries_max=20, total_s=HAND_IN_WITHIN_S, waits_for_listener=False)
"""Where nothing listens, the caller is told so at once."""

FOLLOWING = RetryPolicy(tries_max=30, total_s=60.0)
"""A restart of the daemon, with the time that its pools take to load, loses nothing."""

NOT_FOUND = 404

T = TypeVar("T")


class Following:
    """One task of the daemon at `path`; a context manager. Raises VerbError and KeyboardInterrupt.

    With `is_asked_once` a busy daemon is not asked a second time to take the task.
    """

    def __init__(self, path: Path, on_retry: OnRetry, *, is_asked_once: bool = False) -> None:
        self._path = path
        address = f"unix:{path}"
        self._submitter = OrchClient(address, retry=NEVER if is_asked_once else HANDING_IN, on_retry=on_retry)
        self._reader = OrchClient(address, retry=FOLLOWING, on_retry=on_retry)
        self._frames: AsyncGenerator[Frame, None] | None = None
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._run(self._open())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._run(self._close())
        finally:
            self._runner.close()

    def hand_in(self, task: SubmitTask) -> Accepted:
        """Submit; again where the daemon is busy or the connection broke: the task id makes that safe."""
        try:
            with self._spoken():
                return self._run(self._submitter.submit(task))
        except ProtocolError:
            raise nonsense(self._path) from None

    def frames(self, task_id: str) -> Iterator[Frame]:
        """The task's events up to and with its terminal one, each once, over any number of connections."""
        frames = self._frames = self._reader.frames(task_id)
        try:
            with self._spoken():
                while (frame := self._run(_next(frames))) is not None:
                    yield frame
        except StreamGapError as error:
            advice = f"read the whole answer with `GET /v1/tasks/{task_id}`"
            raise VerbError(ExitCode.FAILED, f"the stream of the task has a gap: {error}", advice) from None
        except ProtocolError as error:
            advice = "compare `orchctl --version` with the daemon's"
            raise VerbError(ExitCode.FAILED, f"the stream of the task has {error}", advice) from None

    async def _open(self) -> None:
        await self._submitter.__aenter__()
        await self._reader.__aenter__()

    async def _close(self) -> None:
        # From the outermost generator in; the end of the event loop would close all of them at once, and stumble.
        if self._frames is not None:
            await self._frames.aclose()
        await self._submitter.__aexit__(None, None, None)
        await self._reader.__aexit__(None, None, None)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    @contextmanager
    def _spoken(self) -> Iterator[None]:
        """What the daemon and the network said, as sentences of the CLI."""
        try:
            yield
        except (ApiError, NetworkError) as error:
            raise verb_error(error, self._path) from None


async def _next(frames: AsyncGenerator[Frame, None]) -> Frame | None:
    return await anext(frames, None)


def verb_error(error: ClientError, path: Path) -> VerbError:
    """An error of the client as one of the CLI."""
    if isinstance(error, ApiError):
        return RefusedError(error.envelope, CHECK_TASK if error.status == NOT_FOUND else None)
    if not isinstance(error, NetworkError):
        return nonsense(path)
    try:
        with translated(path):
            if error.os_error is not None:
                raise error.os_error
    except VerbError as sentence:
        return sentence
    return broken_off(path)
