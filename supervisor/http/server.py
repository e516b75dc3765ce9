"""The HTTP edge as a whole: listens on TCP and on the control socket, and stops without leaving either behind."""

import asyncio
import os
import socket
from dataclasses import dataclass
from pathlib import Path

import msgspec

from supervisor.http import openapi, translate
from supervisor.http.auth import Gate
from supervisor.http.call import Edge
from supervisor.http.connections import Connections
from supervisor.http.dispatch import Dispatcher
from supervisor.http.given_sockets import GivenSockets
from supervisor.http.limits import Limits
from supervisor.http.route import Route
from supervisor.http.routes import ROUTES, Router, routes_on_tcp
from supervisor.http.service import Service
from supervisor.http.tls import Tls
from supervisor.http.tls_listener import TlsListener
from supervisor.http.unix_socket import ControlSocket, ListenError, SocketFile, claim
from supervisor.runtime.audit import Audit

TCP_BACKLOG = 1024
NEWCOMER_GRACE_S = 0.25
"""A client sends its request in the moment after it connected."""
CLOSE_GRACE_S = 1.0
"""How long `close` waits for answers in progress."""
SIMULATED = "X-Orchctl-Simulated"


@dataclass(frozen=True, slots=True)
class Listener:
    """One socket that connections come in by."""

    sock: socket.socket
    server: asyncio.Server | TlsListener
    connections: Connections


class HttpServer:
    """`start()`, `port`, `close_streams()`, `close()`. Knows nothing of what the service does.

    `port` 0 takes any free port. `simulated` is the text of `--simulate-gpus`, which then stands in every response.
    Without `gate` no key is ever asked for; with `tls` the TCP port speaks nothing else.
    """

    def __init__(  # noqa: PLR0913  (each is one thing that the edge is told)
        self,
        service: Service,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        socket_path: Path | None = None,
        limits: Limits | None = None,
        simulated: str | None = None,
        gate: Gate | None = None,
        tls: Tls | None = None,
        given: GivenSockets | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.socket_path = socket_path
        self._service = service
        self._limits = limits or Limits()
        self._gate = gate or Gate(None, Audit(lambda _: None))
        self._tls = tls
        self._given = given or GivenSockets()
        self._headers = {"Server": translate.SERVER} | ({SIMULATED: simulated} if simulated else {})
        self._edges: list[Edge] = []
        self._listeners: list[Listener] = []
        self._control: ControlSocket | None = None
        self._tcp: socket.socket | None = None
        self._is_kept = False
        self._door = asyncio.Event()

    @property
    def connections(self) -> int:
        """Connections that are open now, on TCP and on the control socket."""
        return sum(each.connections.count for each in self._listeners)

    async def start(self, *, is_open: bool = True) -> None:
        """Listen. Raises `ListenError` with one sentence; nothing is left open then.

        Where it is not open, all requests but `/healthz` wait for `open_door`.
        """
        if is_open:
            self.open_door()
        try:
            if self.socket_path is not None:
                await self._listen_on(self._given.take_control(self.socket_path) or claim(self.socket_path))
            sock = self._given.take_http(self.host, self.port)
            sock = sock or _bind(self.host, self.port, self._limits.send_buffer_bytes)
            self._tcp, self.port = sock, sock.getsockname()[1]
            await self._listen(sock, routes_on_tcp(), self._limits.connections_max, None)
        except ListenError:
            await self.close()
            raise
        finally:
            self._given.close()

    def open_door(self) -> None:
        """Answer every request from now on, and those that wait."""
        self._door.set()

    async def _listen_on(self, control: ControlSocket) -> None:
        self._control = control
        await self._listen(control.sock, ROUTES, self._limits.socket_connections_max, control.gid)

    async def keep_control(self) -> bool:
        """Make the control socket anew where its file is gone; whether it was. Raises ListenError: something is there.

        Whoever is connected stays so; nothing that is not a socket of ours is followed or removed.
        """
        lost = self._control
        if lost is None or lost.is_in_place:
            return False
        await self._listen_on(claim(lost.path))
        for listener in [each for each in self._listeners if each.sock is lost.sock]:
            listener.server.close()
        lost.sock.close()
        return True

    def announce(self, *, is_leaving: bool) -> None:
        """Ask clients with each answer to connect anew for the next request, or no longer."""
        for edge in self._edges:
            edge.is_leaving = is_leaving

    def keep_listening(self) -> tuple[int, int, SocketFile]:
        """Descriptors of the TCP and of the control socket, and its file: they go on listening when this one closes.

        Who connects from then on waits until somebody accepts it.
        """
        assert self._tcp is not None, "not started"
        assert self._control is not None, "without a control socket"
        self._is_kept = True
        return os.dup(self._tcp.fileno()), os.dup(self._control.sock.fileno()), self._control.file

    def close_streams(self) -> None:
        """End every stream without a terminal frame and let no new one begin; their clients may resume later."""
        for edge in self._edges:
            edge.is_closing = True
            for answer in tuple(edge.long_answers):
                answer.end()

    async def close(self) -> None:
        """Stop listening, end streams, give answers in progress a moment, and remove the control socket. Idempotent."""
        if self._control is not None and not self._is_kept:
            self._control.remove()  # while we still answer on it, so that no successor's file can be there
        for listener in self._listeners:
            listener.server.close()
        await asyncio.gather(*(each.connections.hear_newcomers(NEWCOMER_GRACE_S) for each in self._listeners))
        for listener in self._listeners:
            listener.connections.pre_shutdown()
        if self._control is not None:
            self._control.sock.close()
            self._control = None
        self.close_streams()
        await asyncio.gather(*(each.connections.shutdown(CLOSE_GRACE_S) for each in self._listeners))
        await asyncio.gather(*(each.server.wait_closed() for each in self._listeners))
        self._listeners.clear()

    async def _listen(self, sock: socket.socket, routes: tuple[Route, ...], most: int, socket_gid: int | None) -> None:
        document = msgspec.json.encode(openapi.document(routes, self._limits))
        keyed = msgspec.json.encode(openapi.document(routes, self._limits, is_keyed=True))
        if socket_gid is not None:  # peer credentials stand in for a key
            keyed = document
        edge = Edge(self._service, self._limits, self._gate, self._headers, document, keyed, door=self._door)
        connections = Connections(Dispatcher(edge, Router(routes), socket_gid), self._limits, most)
        server = await self._serve(sock, connections, is_tcp=socket_gid is None)
        self._edges.append(edge)
        self._listeners.append(Listener(sock, server, connections))

    async def _serve(
        self, sock: socket.socket, connections: Connections, *, is_tcp: bool
    ) -> asyncio.Server | TlsListener:
        loop = asyncio.get_running_loop()
        if not is_tcp:
            return await loop.create_unix_server(connections, sock=sock)
        if self._tls is None:
            return await loop.create_server(connections, sock=sock, backlog=TCP_BACKLOG)
        listener = TlsListener(sock, connections, self._tls.context, self._limits)
        listener.start(TCP_BACKLOG)
        return listener


def _bind(host: str, port: int, send_buffer_bytes: int) -> socket.socket:
    """A TCP socket whose connections will have this send buffer: the kernel copies it from the listener."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ListenError(f"cannot listen on {host}: {error.strerror}") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
        sock.bind(address)
        sock.settimeout(0)
    except OSError as error:
        sock.close()
        raise ListenError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return sock
