"""An own, small, strict HTTP/1.1 client for engines on this host.

A sans-I/O parser (`response`), a connection that hands each piece of a body on in the same callback that read it
(`connection`), one request with its answer (`exchange`), and a keep-alive pool for one engine (`pool`). It knows
nothing of tokens, tasks or engines' protocols, follows no redirect, keeps no cookie, passes on no header of a caller.
"""

from supervisor.runtime.engine_http.answer import Answer
from supervisor.runtime.engine_http.errors import (
    EngineHttpError,
    EngineLostError,
    EngineTimeoutError,
    EngineUnreachableError,
    ProtocolFaultError,
)
from supervisor.runtime.engine_http.exchange import Exchange, StreamSink
from supervisor.runtime.engine_http.pool import EngineHttp
from supervisor.runtime.engine_http.response import ResponseParser

__all__ = [
    "Answer",
    "EngineHttp",
    "EngineHttpError",
    "EngineLostError",
    "EngineTimeoutError",
    "EngineUnreachableError",
    "Exchange",
    "ProtocolFaultError",
    "ResponseParser",
    "StreamSink",
]
