"""Which socket is asked."""

from pathlib import Path

from orchctl.sockets import SYSTEM_SOCKET, find_socket

USER = 1000


def test_the_socket_that_was_named_is_taken() -> None:
    assert find_socket(Path("/there"), {"XDG_RUNTIME_DIR": "/run/user/1000"}, USER) == Path("/there")


def test_a_user_asks_their_own_daemon_where_there_is_one(tmp_path: Path) -> None:
    own = tmp_path / "orchctl" / "control.sock"
    own.parent.mkdir()
    own.touch()

    assert find_socket(None, {"XDG_RUNTIME_DIR": str(tmp_path)}, USER) == own


def test_root_asks_the_daemon_of_the_system(tmp_path: Path) -> None:
    assert find_socket(None, {"XDG_RUNTIME_DIR": str(tmp_path)}, 0) == SYSTEM_SOCKET
