"""How a request to an engine can fail. Each text is one sentence without a payload, a key or a path."""


class EngineHttpError(Exception):
    """Any of these."""


class EngineUnreachableError(EngineHttpError):
    """No connection could be had, so the engine never saw the request."""


class EngineLostError(EngineHttpError):
    """The connection ended before the answer did; the engine may have seen the request."""


class EngineTimeoutError(EngineHttpError):
    """The answer was not complete in time."""


class ProtocolFaultError(EngineHttpError):
    """What came is not the HTTP/1.1 of an engine, or is larger than allowed."""
