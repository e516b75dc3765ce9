"""Free ports on the loopback interface."""

import socket

from supervisor.runtime.processes_port import HOST, pick_port


def test_a_picked_port_can_be_bound() -> None:
    port = pick_port()

    with socket.socket() as engine:
        engine.bind((HOST, port))
        assert engine.getsockname() == ("127.0.0.1", port)


def test_a_port_that_is_in_use_or_given_out_is_not_picked() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        given_out: set[int] = {taken.getsockname()[1]}
        for _ in range(200):
            given_out.add(pick_port(avoid=given_out))

    assert len(given_out) == 201
