"""What can go wrong for a caller of OrchQueue, as types. Decides nothing about trying again but what is said here.

`ApiError` is the daemon's own answer. `NetworkError` is everything between here and it. `ProtocolError` is an answer
that no OrchQueue daemon gives: asking again would not help.
"""

from msgspec import UNSET

from supervisor.wire.codes import Code
from supervisor.wire.errors import ErrorEnvelope


class ClientError(Exception):
    """Any failure of a call."""


class ApiError(ClientError):
    """The daemon said no. `status` is the HTTP status, None where the error came as the last frame of a stream.

    `retry_after_ms` is the time after which the daemon wants to be asked again, in milliseconds, None where it named
    none. `retriable` says whether the same request can succeed later (ORCH-3025).
    """

    def __init__(self, envelope: ErrorEnvelope, status: int | None = None, retry_after_ms: int | None = None) -> None:
        super().__init__(envelope.message)
        self.envelope = envelope
        self.status = status
        self.retry_after_ms = retry_after_ms
        if retry_after_ms is None and isinstance(envelope.retry_after_ms, int):
            self.retry_after_ms = envelope.retry_after_ms

    @property
    def code(self) -> Code:
        """One of the nine codes."""
        return self.envelope.code

    @property
    def reason(self) -> str | None:
        """The finer cause, None where there is none."""
        return None if self.envelope.reason is UNSET else self.envelope.reason

    @property
    def retriable(self) -> bool:
        """Whether the same may be asked again as it stands."""
        return self.envelope.retriable

    @property
    def correlation_id(self) -> str:
        """What to look for in the log of the daemon."""
        return self.envelope.correlation_id

    def __str__(self) -> str:
        reason = f", {self.reason}" if self.reason else ""
        return f"{self.envelope.message} ({self.code}{reason}; correlation id {self.correlation_id})"


class TaskFailedError(ApiError):
    """The task itself ended in an error. A new attempt needs a new `task_id`."""


class NetworkError(ClientError):
    """No answer, or half of one. `os_error` is what the operating system said, where it said anything.

    Whatever was asked may have been done or not: a submit with the same `task_id` is safe to send again.
    """

    def __init__(self, message: str, os_error: OSError | None = None) -> None:
        super().__init__(message)
        self.os_error = os_error


class UnreachableError(NetworkError):
    """No connection was made, so nothing was asked."""


class ProtocolError(ClientError):
    """The answer is none that an OrchQueue daemon gives."""


class StreamGapError(ProtocolError):
    """A frame of the stream is missing: what was read is not the whole answer."""
