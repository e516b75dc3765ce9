"""The control socket as a file, and who may use it."""

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.core.refusals import Refused
from supervisor.http.auth import Peer, identify_peer, peer_of
from supervisor.http.service import Caller
from supervisor.http.unix_socket import ListenError, claim
from supervisor.wire.codes import Reason
from tests.http.conftest import Serve
from tests.support.memory_service import MemoryService, submit_body
from tests.support.rawhttp import RawClient


def stale_socket(path: Path) -> None:
    """A socket file that nobody answers on, as after kill -9."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def test_a_socket_is_made_with_its_directory_and_modes(tmp_path: Path) -> None:
    path = tmp_path / "run" / "control.sock"

    control = claim(path)

    assert stat.S_ISSOCK(path.lstat().st_mode)
    assert stat.S_IMODE(path.lstat().st_mode) == 0o660
    assert stat.S_IMODE(path.parent.stat().st_mode) & ~0o750 == 0
    assert control.gid == path.lstat().st_gid
    control.sock.close()
    control.remove()
    assert list(path.parent.iterdir()) == []


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    stale_socket(path)

    control = claim(path)

    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
    control.sock.close()


def test_the_socket_of_a_living_daemon_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = claim(path)

    with pytest.raises(ListenError, match="another daemon answers"):
        claim(path)

    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
    first.sock.close()


def test_a_living_daemon_with_a_full_backlog_is_still_living(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))

        with pytest.raises(ListenError, match="another daemon answers"):
            claim(path)


@pytest.mark.parametrize("kind", ["file", "directory", "link to a socket", "link to nothing", "fifo"])
def test_whatever_else_lies_there_is_never_touched(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        if kind == "link to a socket":
            stale_socket(tmp_path / "target")
        path.symlink_to(tmp_path / "target")
    before = (path.lstat(), sorted(tmp_path.iterdir()))

    with pytest.raises(ListenError, match="in the way"):
        claim(path)

    assert (path.lstat(), sorted(tmp_path.iterdir())) == before


def test_a_path_that_the_kernel_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 108)

    with pytest.raises(ListenError, match="longer than 107 bytes"):
        claim(path)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ListenError, match="cannot listen"):
        claim(tmp_path / "file" / "run" / "s")


def test_a_successors_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = claim(path)
    first.sock.close()
    second = claim(path)

    first.remove()

    assert path.exists()
    second.sock.close()
    second.remove()
    second.remove()
    assert not path.exists()


async def test_close_leaves_no_socket_and_no_port_behind(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = await serve(socket_path=path)
    async with await RawClient.unix(path) as client:
        await client.ask("GET", "/healthz")

        await server.close()
        await server.close()

    assert not path.exists()
    with pytest.raises(ConnectionRefusedError):
        await RawClient.tcp(server.port)


async def test_no_socket_is_left_where_the_port_is_taken(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = await serve()
    second = type(first)(MemoryService(), port=first.port, socket_path=path)

    with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1 port {first.port}: Address already in use"):
        await second.start()

    assert not path.exists()


async def test_the_daemons_own_user_is_an_operator(serve: Serve, service: MemoryService, tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = await serve(socket_path=path)
    async with await RawClient.unix(path) as unix, await RawClient.tcp(server.port) as tcp:
        for client in (unix, tcp):
            await client.ask("POST", "/v1/tasks", submit_body())

    assert [held.caller.is_operator for held in service.held.values()] == [True, False]
    assert {held.caller.tenant for held in service.held.values()} == {"default"}


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that other users can enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


STRANGER_UID = os.geteuid() + 4321


def test_who_is_let_in() -> None:
    gid = 50
    letting = {
        "root": Peer(0, frozenset({0})),
        "oneself": Peer(os.geteuid(), frozenset({1})),
        "a member of the group": Peer(STRANGER_UID, frozenset({1, gid})),
    }

    let_in = {name: identify_peer(peer, gid) for name, peer in letting.items()}

    assert let_in == {
        name: Caller("default", is_operator=True, client_id=f"uid:{peer.uid}") for name, peer in letting.items()
    }
    for peer in (Peer(STRANGER_UID, frozenset({1, 49})), None):
        refused = identify_peer(peer, gid)
        assert isinstance(refused, Refused)
        assert refused.reason is Reason.SCOPE


def test_the_kernel_names_the_peer() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        peer = peer_of(ours)

    assert peer.uid == os.geteuid()
    assert peer.gids >= {os.getegid(), *os.getgroups()}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_a_stranger_gets_403_for_everything(serve: Serve, open_directory: Path) -> None:
    path = open_directory / "s"
    await serve(socket_path=path)
    # The file's mode would keep a stranger out already; the daemon does not rely on that.
    path.chmod(0o666)
    sock = socket.socket(socket.AF_UNIX)
    groups = os.getgroups()
    os.setgroups([])
    os.setresgid(-1, STRANGER_UID, -1)
    os.setresuid(-1, STRANGER_UID, -1)
    try:
        sock.connect(str(path))
    finally:
        os.setresuid(-1, 0, -1)
        os.setresgid(-1, 0, -1)
        os.setgroups(groups)

    client = await RawClient.over(sock)
    async with client:
        answers = [await client.ask("GET", one) for one in ("/healthz", "/v1/status", "/nope")]

    assert [(answer.status, answer.json["reason"]) for answer in answers] == [(403, "scope")] * 3
