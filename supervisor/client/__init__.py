"""The Python client of OrchQueue v1: `OrchClient`, its typed events and its errors.

It knows the public words of `supervisor.wire` and nothing else of the daemon.
"""

from supervisor.client.backoff import NEVER, RetryPolicy
from supervisor.client.client import OrchClient
from supervisor.client.completion import Completion, Embedding, Score
from supervisor.client.errors import (
    ApiError,
    ClientError,
    NetworkError,
    ProtocolError,
    StreamGapError,
    TaskFailedError,
    UnreachableError,
)
from supervisor.client.frames import Frame, StreamEvent, Token
from supervisor.client.requests import new_completion, new_embedding, new_rerank

__all__ = [
    "NEVER",
    "ApiError",
    "ClientError",
    "Completion",
    "Embedding",
    "Frame",
    "NetworkError",
    "OrchClient",
    "ProtocolError",
    "RetryPolicy",
    "Score",
    "StreamEvent",
    "StreamGapError",
    "TaskFailedError",
    "Token",
    "UnreachableError",
    "new_completion",
    "new_embedding",
    "new_rerank",
]
