"""A listener whose connections count from accept on, not from the end of their TLS handshake.

The listeners of asyncio show a connection to its protocol after the handshake only, so nobody could bound those that
never shake hands. Decides nothing: `Connections` says who has to go.
"""

import asyncio
import contextlib
import logging
import socket
import ssl

from supervisor.http.connection import Connection
from supervisor.http.connections import Connections
from supervisor.http.limits import Limits

ACCEPTS_PER_TURN_MAX = 64
"""Connections that are taken in one turn of the loop, so that a flood delays nobody else for long."""
ACCEPT_RETRY_S = 1.0
"""How long no connection is taken after the kernel had no descriptor or memory for one."""

_log = logging.getLogger(__name__)


class TlsListener:
    """`start()`, `close()`, `wait_closed()`, as of an `asyncio.Server`. `sock` is bound and does not block."""

    def __init__(self, sock: socket.socket, connections: Connections, context: ssl.SSLContext, limits: Limits) -> None:
        self._sock = sock
        self._connections = connections
        self._context = context
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._handshakes: dict[asyncio.Task[None], socket.socket] = {}
        self._is_closed = False

    def start(self, backlog: int) -> None:
        """Listen. Raises OSError."""
        self._sock.listen(backlog)
        self._loop.add_reader(self._sock, self._accept)

    def close(self) -> None:
        """Stop listening and end handshakes. Connections go on."""
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.remove_reader(self._sock)
        self._sock.close()
        for sock in self._handshakes.values():
            _hang_up(sock)

    async def wait_closed(self) -> None:
        """Until the last handshake has ended."""
        while self._handshakes:
            await asyncio.wait(self._handshakes)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN_MAX):
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            sock.settimeout(0)
            self._begin(sock)

    def _pause(self, error: OSError) -> None:
        """The kernel would say for ever that there is somebody to accept."""
        _log.error("connections cannot be accepted", extra={"cause": error.strerror})
        self._loop.remove_reader(self._sock)
        self._loop.call_later(ACCEPT_RETRY_S, self._resume)

    def _resume(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._sock, self._accept)

    def _begin(self, sock: socket.socket) -> None:
        connection = self._connections()
        task = self._loop.create_task(self._shake_hands(connection, sock))
        self._handshakes[task] = sock
        task.add_done_callback(self._handshakes.pop)
        self._connections.begin(connection, lambda: _hang_up(sock))

    async def _shake_hands(self, connection: Connection, sock: socket.socket) -> None:
        """A client that does not shake hands is as slow as one that sends no header block."""
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=self._context,
                ssl_handshake_timeout=self._limits.header_s,
                ssl_shutdown_timeout=self._limits.write_stall_s,
            )
        except OSError as error:  # which those of TLS are too; whoever connects can cause one
            _log.debug("a TLS handshake failed", extra={"cause": str(error)})
        finally:
            self._connections.settle(connection)


def _hang_up(sock: socket.socket) -> None:
    """The handshake then fails by itself. The descriptor is its transport's to close."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
