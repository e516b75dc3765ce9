"""All connections to one engine process: streams for the relay, answers for probes. Lives on one event loop.

A connection is made when no idle one is at hand; nothing waits for one, so nothing queues in front of an engine here.
Idle ones are few and short-lived: llama-server gives each a thread and closes it after 5 s.
"""

import asyncio
import contextlib
import logging

from adapters.base import EngineRequest
from supervisor.runtime.engine_http.answer import BODY_BYTES_MAX, Answer, Collector
from supervisor.runtime.engine_http.connection import READ_BYTES_MAX, Connection
from supervisor.runtime.engine_http.encode import encode_request
from supervisor.runtime.engine_http.errors import EngineTimeoutError, EngineUnreachableError
from supervisor.runtime.engine_http.exchange import Exchange, StreamSink

CONNECTIONS_MAX = 1024
IDLE_MAX = 8
IDLE_S = 4.0
CONNECT_S = 5.0

_log = logging.getLogger(__name__)


class EngineHttp:
    """The HTTP client of one engine. `api_key` is the worker's own; `socket_path` replaces host and port."""

    def __init__(
        self,
        host: str,
        port: int,
        api_key: str | None,
        *,
        socket_path: str | None = None,
        connections_max: int = CONNECTIONS_MAX,
        idle_s: float = IDLE_S,
    ) -> None:
        self._host = host
        self._port = port
        self._api_key = api_key
        self._socket_path = socket_path
        self._connections_max = connections_max
        self._idle_s = idle_s
        self._buffer = memoryview(bytearray(READ_BYTES_MAX))
        self._connections: set[Connection] = set()
        self._connecting = 0
        self._idle: list[Connection] = []
        self._idle_timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def with_key(self, api_key: str | None) -> "EngineHttp":
        """Another client of the same address, to ask it as somebody else would."""
        return EngineHttp(self._host, self._port, api_key, socket_path=self._socket_path)

    @property
    def connections(self) -> int:
        """Open ones and those being made."""
        return len(self._connections) + self._connecting

    @property
    def idle_connections(self) -> int:
        """Open ones without a request."""
        return len(self._idle)

    def stream(self, request: EngineRequest, sink: StreamSink) -> Exchange:
        """Send at once, or as soon as a connection is made. Failures reach `sink.on_lost`, never before this returns.

        Raises ValueError for a request that an adapter built wrongly.
        """
        host = "localhost" if self._socket_path is not None else f"{self._host}:{self._port}"
        exchange = Exchange(encode_request(request, host, self._api_key), sink, self._connect)
        connection = self._take_idle()
        if connection is not None:
            connection.send(exchange)
        else:
            self._connect(exchange)
        return exchange

    async def request(self, request: EngineRequest, timeout_s: float, body_bytes_max: int = BODY_BYTES_MAX) -> Answer:
        """The complete answer. Raises one of the EngineHttpErrors; a timeout closes the connection."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        exchange = self.stream(request, Collector(answer, body_bytes_max))
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise EngineTimeoutError(f"the engine did not answer within {timeout_s:g} s") from None
        finally:
            exchange.abort()

    def close(self) -> None:
        """Close every connection at once: an engine that is asked to stop waits for its clients. Final."""
        self._is_closed = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        for connection in tuple(self._connections):
            connection.close()
        self._idle.clear()

    def connection_freed(self, connection: Connection) -> None:
        """From a connection: keep it for the next request."""
        if self._is_closed or len(self._idle) >= IDLE_MAX:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since_s = loop.time()
        self._idle.append(connection)
        if self._idle_timer is None:
            self._idle_timer = loop.call_later(self._idle_s, self._drop_idle)

    def connection_gone(self, connection: Connection) -> None:
        """From a connection: it is closed."""
        self._connections.discard(connection)
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    def _take_idle(self) -> Connection | None:
        """The one used last, so that the others may grow old."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable:
                return connection
        return None

    def _drop_idle(self) -> None:
        """One timer for all: close what is idle for too long, look again when the next one is due."""
        loop = asyncio.get_running_loop()
        self._idle_timer = None
        due_s = loop.time() - self._idle_s
        while self._idle and self._idle[0].idle_since_s <= due_s:
            self._idle.pop(0).abort()
        if self._idle:
            self._idle_timer = loop.call_at(self._idle[0].idle_since_s + self._idle_s, self._drop_idle)

    def _connect(self, exchange: Exchange) -> None:
        """Also the way of a second try, which never gets an idle connection."""
        task = asyncio.get_running_loop().create_task(self._connect_and_send(exchange))
        exchange.carried_by(task.cancel)

    def _has_room(self) -> bool:
        return not self._is_closed and self.connections < self._connections_max

    async def _connect_and_send(self, exchange: Exchange) -> None:
        if not self._has_room():
            exchange.lost(EngineUnreachableError("no connection to the engine is free"))
            return
        self._connecting += 1
        try:
            async with asyncio.timeout(CONNECT_S):
                connection = await self._open()
        except OSError:
            exchange.lost(EngineUnreachableError("the engine takes no connection"))
            return
        except Exception:  # noqa: BLE001  (a task root: logged, and the exchange learns of it)
            _log.exception("connecting to an engine failed")
            exchange.lost(EngineUnreachableError("the engine takes no connection"))
            return
        finally:
            self._connecting -= 1
        self._connections.add(connection)
        connection.send(exchange)
        if self._is_closed:
            connection.close()

    async def _open(self) -> Connection:
        loop = asyncio.get_running_loop()

        def protocol() -> Connection:
            return Connection(self, self._buffer)

        if self._socket_path is not None:
            return (await loop.create_unix_connection(protocol, self._socket_path))[1]
        return (await loop.create_connection(protocol, self._host, self._port))[1]
