"""Following a stream over connections that break."""

import pytest

from orchctl.client import Client
from orchctl.exits import RefusedError, UnreachableError
from orchctl.following import follow
from supervisor.wire.codes import Code
from tests.cli.builders import refusal
from tests.cli.conftest import Orchctl
from tests.cli.peer import Peer

TASK = "0b0e7d4e-6a63-4f8c-9a36-2f3f0f3f2b11"
ROUTE = f"/v1/tasks/{TASK}/stream"
DELAYS_S = (0.25, 0.5)


@pytest.fixture
def client(peer: Peer, orchctl: Orchctl) -> Client:
    """Asks a daemon that has a finished task of four tokens."""
    peer.answer = ["a", "b", "c", "d"]
    assert orchctl("submit", "--no-wait", "--task-id", TASK, "hi").code == 0
    return Client(peer.path)


def test_tries_start_over_whenever_something_arrived(peer: Peer, client: Client) -> None:
    slept: list[float] = []
    peer.breaks_after = [1, 2, 3, 4, 5]

    events = list(follow(client, TASK, delays_s=DELAYS_S, sleep=slept.append))

    assert [event.id for event in events] == ["1", "2", "3", "4", "5", "6"]
    assert slept == [0.25] * 5


def test_tries_are_bounded_where_nothing_arrives(peer: Peer, client: Client) -> None:
    slept: list[float] = []
    peer.breaks_after = [1, 1, 1]
    events = follow(client, TASK, delays_s=DELAYS_S, sleep=slept.append)
    assert next(events).name == "started"

    with pytest.raises(UnreachableError, match="broke the connection"):
        next(events)

    assert slept == [0.25, 0.5]


def test_a_final_refusal_is_not_asked_again(peer: Peer, client: Client) -> None:
    slept: list[float] = []
    peer.refusals[ROUTE] = (410, refusal(Code.INVALID_PARAMS, "The task is forgotten."))

    with pytest.raises(RefusedError, match="the task is forgotten"):
        list(follow(client, TASK, sleep=slept.append))

    assert slept == []
