"""A web server that answers byte by byte what a test says, for what no honest HTTP library would send."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator

HEAD_BYTES_MAX = 64 * 1024

Answer = Callable[[str], Iterable[bytes]]
"""The head of a request in, the bytes of the answer out; they may be endless: who has enough goes away."""


class EnemyServer:
    """One thread for each connection, one request for each connection."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.heads: list[str] = []
        self.bytes_sent = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def shut(self) -> None:
        """From now on nobody listens."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._talk, args=(connection,)))
                self._threads[-1].start()

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            head = b""
            while b"\r\n\r\n" not in head and len(head) < HEAD_BYTES_MAX:
                part = connection.recv(4096)
                if not part:
                    return
                head += part
            self.heads.append(head.decode("latin-1"))
            for piece in self.answer(self.heads[-1]):
                connection.sendall(piece)
                self.bytes_sent += len(piece)

    @contextlib.contextmanager
    def serving(self) -> Iterator["EnemyServer"]:
        """Listen while inside."""
        accepting = threading.Thread(target=self._serve)
        accepting.start()
        try:
            yield self
        finally:
            self.shut()
            accepting.join(10)
            for thread in self._threads:
                thread.join(10)


def head(status: str, *fields: str) -> bytes:
    """Status line and fields; the connection ends after the body."""
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "Connection: close", "", ""]).encode("latin-1")


def chunk(data: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def path_of(request: str) -> str:
    """What was asked for."""
    return request.split(" ", 2)[1]


def range_start(request: str) -> int:
    """Where the asked part begins, 0 for all."""
    for line in request.split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == "range":
            return int(value.strip().removeprefix("bytes=").partition("-")[0])
    return 0
