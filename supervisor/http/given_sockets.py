"""Listening sockets that were bound before this image of the daemon began: by the image before it, or by systemd.

Of the image before it a socket is taken where it still is what the configuration asks for, and let go where that has
changed. One of systemd's must fit: a unit that says otherwise than the configuration is a mistake to be named.
"""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from supervisor.http.unix_socket import ControlSocket, ListenError, SocketFile


@dataclass(slots=True)
class GivenSockets:
    """What there is; each is taken once. `control_file` is known of a control socket of the image before."""

    http: socket.socket | None = None
    control: socket.socket | None = None
    control_file: SocketFile | None = None
    is_from_manager: bool = False

    @property
    def is_handed_over(self) -> bool:
        """Whether the image before this one listens through them, so that clients who come now wait."""
        return self.http is not None and not self.is_from_manager

    def take_http(self, host: str, port: int) -> socket.socket | None:
        """The TCP socket, if it fits. Raises ListenError where systemd's does not."""
        sock, self.http = self.http, None
        if sock is None or is_http_at(sock, host, port):
            return sock
        sock.close()
        if self.is_from_manager:
            raise ListenError(f"the socket of the service manager is not for {host} port {port}, as `listen` says")
        return None

    def take_control(self, path: Path) -> ControlSocket | None:
        """The same for the control socket."""
        sock, self.control = self.control, None
        if sock is None:
            return None
        if is_control_at(sock, path):
            return ControlSocket(sock, path, self.control_file or SocketFile.at(path, is_manager_owned=True))
        sock.close()
        if self.is_from_manager:
            raise ListenError(f"the control socket of the service manager is not at {path}, as `listen` says")
        return None

    def close(self) -> None:
        """Let go of those that nobody took."""
        for sock in (self.http, self.control):
            if sock is not None:
                sock.close()


def is_http_at(sock: socket.socket, host: str, port: int) -> bool:
    """Whether the socket listens on `host` and `port`; port 0 is any."""
    if sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return False
    bound = sock.getsockname()
    try:
        wanted = {info[4][0] for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return False
    return bound[0] in wanted and port in {0, bound[1]}


def is_control_at(sock: socket.socket, path: Path) -> bool:
    """Whether the socket was bound to this path."""
    return sock.family == socket.AF_UNIX and sock.getsockname() == os.fspath(path)
