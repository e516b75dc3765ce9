"""Fixtures: a peer on a socket of its own, and the CLI pointed at it."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchctl.app import run
from tests.cli.peer import Peer, serving


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """A path for a socket: short, because 107 bytes is all that there is."""
    folder = Path(tempfile.mkdtemp(prefix="oc-"))
    yield folder / "s"
    shutil.rmtree(folder)


@pytest.fixture
def peer(socket_path: Path) -> Iterator[Peer]:
    with serving(socket_path) as peer:
        yield peer


class Ran:
    """How a verb ended: exit code, standard output, standard error."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err


Orchctl = Callable[..., Ran]


@pytest.fixture
def orchctl(socket_path: Path, capsys: pytest.CaptureFixture[str]) -> Orchctl:
    """Runs a verb in this process, on streams that are no terminal."""

    def call(*argv: str) -> Ran:
        code = run(["--socket", str(socket_path), *argv])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return call
