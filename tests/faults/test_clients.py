"""Clients that reset, leave half-way and ask before they are answered: nothing leaks, and others are served."""

import json
import socket
import struct

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import Daemon, a_request
from tests.support.pools import a_fake_pool

SLOW = "[[slow_ms@10]]"


def connect(daemon: Daemon) -> socket.socket:
    return socket.create_connection(("127.0.0.1", daemon.port), timeout=30)


def reset(peer: socket.socket) -> None:
    """Close with a RST."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def request_of(task: dict[str, object]) -> bytes:
    body = json.dumps(task).encode()
    head = (
        f"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@pytest.mark.fault("F38")
def test_a_reader_that_resets_its_connection_is_cancelled_after_the_grace(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool(disconnect_grace_ms=200)).start_ready()
    task_id = daemon.accept(prompt=SLOW, max_tokens=400)
    peer = connect(daemon)
    peer.sendall(f"GET /v1/tasks/{task_id}/stream HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert b"200 OK" in peer.recv(4096)

    reset(peer)

    assert daemon.wait_terminal(task_id)["result"]["finish_reason"] == "canceled"


@pytest.mark.fault("F38")
def test_a_hundred_resets_in_the_middle_of_a_request_leave_nothing(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    whole = request_of(a_request())

    for number in range(100):
        peer = connect(daemon)
        peer.sendall(whole[: 1 + number * len(whole) // 101])
        reset(peer)

    assert daemon.read_stream(daemon.accept(prompt="fine")).end.name == "end"
    assert "Traceback" not in daemon.log_text()


@pytest.mark.fault("F38")
def test_a_submit_whose_sender_closed_its_half_is_one_task_whatever_he_heard(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    task = a_request()
    with connect(daemon) as peer:
        peer.sendall(request_of(task))
        peer.shutdown(socket.SHUT_WR)
        peer.makefile("rb").read()

    again = [daemon.ask("POST", "/v1/tasks", task) for _ in range(2)]

    assert [reply.status for reply in again] == [202, 202]
    assert again[0].json["job_id"] == again[1].json["job_id"]
    assert sum(daemon.series("tasks_enqueued_total").values()) == 1


@pytest.mark.fault("F38")
def test_pipelined_submits_are_each_one_task(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    tasks = [a_request(max_tokens=2) for _ in range(5)]
    with connect(daemon) as peer:
        peer.sendall(b"".join(request_of(task) for task in tasks))
        answers = b""
        while answers.count(b"202 Accepted") < len(tasks):
            piece = peer.recv(65_536)
            assert piece, answers
            answers += piece

    for task in tasks:
        daemon.wait_terminal(str(task["task_id"]))
