"""What one image of the daemon leaves to the next: taken only by the process that it was left for."""

import json
import os
import socket
from collections.abc import Iterator

import pytest

from supervisor.runtime.handover import VARIABLE, adopt_listener, take_over


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock


def sealed(pid: int, http: int, control: int) -> dict[str, str]:
    return {VARIABLE: json.dumps({"pid": pid, "http": http, "control": control, "control_file": ""}), "OTHER": "x"}


def test_listening_sockets_are_taken_and_inherited_no_further(listener: socket.socket) -> None:
    fds = [os.dup(listener.fileno()), os.dup(listener.fileno())]
    for fd in fds:
        os.set_inheritable(fd, True)
    environ = sealed(os.getpid(), *fds)
    received = take_over(environ)

    assert received is not None
    assert received.http is not None
    assert received.control is not None
    assert received.http.getsockname() == listener.getsockname()
    assert [os.get_inheritable(fd) for fd in fds] == [False, False]
    assert environ == {"OTHER": "x"}
    received.http.close()
    received.control.close()


def test_a_child_that_inherits_the_variable_takes_nothing(listener: socket.socket) -> None:
    environ = sealed(os.getpid() + 1, listener.fileno(), listener.fileno())

    assert take_over(environ) is None
    assert VARIABLE not in environ


@pytest.mark.parametrize("text", ["", "{}", "not json", '{"pid": 1}'])
def test_nonsense_is_nothing(text: str) -> None:
    assert take_over({VARIABLE: text}) is None


def test_only_a_listening_socket_is_one(listener: socket.socket) -> None:
    with socket.create_connection(listener.getsockname()) as connected:
        found = adopt_listener(connected.fileno())
        still_open = connected.getpeername()
    read_end, write_end = os.pipe()

    assert found is None
    assert still_open == listener.getsockname()
    assert adopt_listener(read_end) is None
    assert adopt_listener(10_000) is None
    os.close(read_end)
    os.close(write_end)
