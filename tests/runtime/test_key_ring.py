"""The keys in force: found by digest, over at their moment, and never fewer because their file is bad."""

from datetime import timedelta
from pathlib import Path

import pytest

from supervisor.config.keys import KeysError
from supervisor.runtime.caller import Caller
from supervisor.runtime.key_ring import KeyFault, KeyRejected, KeyRing
from supervisor.wire.codes import Scope
from tests.support.keys import a_key, now


class Clock:
    def __init__(self) -> None:
        self.now_s = now().timestamp()

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_without_a_file_no_key_is_asked_for(path: Path) -> None:
    ring = KeyRing(path, {})

    assert (ring.take_up(), ring.needs_key) == (0, False)


def test_a_key_opens_until_its_very_moment(path: Path) -> None:
    clock = Clock()
    issued = a_key(path, Scope.METRICS, tenant="blue", lifetime=timedelta(hours=1))
    ring = KeyRing(path, {}, clock)
    ring.take_up()
    assert issued.key.expires is not None

    clock.now_s = issued.key.expires.timestamp() - 0.001
    before = ring.find(issued.secret)
    clock.now_s += 0.001
    after = ring.find(issued.secret)

    assert before == Caller("blue", client_id=issued.key.id, scopes=frozenset({Scope.METRICS}))
    assert after == KeyRejected(KeyFault.EXPIRED, issued.key.sha256[:6], issued.key.id)


@pytest.mark.parametrize("spoil", ["gone", "empty", "open to all"])
def test_a_bad_file_takes_no_key_away_and_opens_nothing(path: Path, spoil: str) -> None:
    issued = a_key(path)
    ring = KeyRing(path, {})
    ring.take_up()
    if spoil == "gone":
        path.unlink()
    elif spoil == "empty":
        path.write_bytes(b"")
    else:
        path.chmod(0o644)

    with pytest.raises(KeysError):
        ring.take_up()

    assert ring.needs_key
    assert isinstance(ring.find(issued.secret), Caller)
    assert isinstance(ring.find("ok_" + "A" * 43), KeyRejected)


def test_a_disk_that_fails_is_a_sentence() -> None:
    """Reading this file gives EIO: nothing is mapped at its start."""
    ring = KeyRing(Path("/proc/self/mem"), {})

    with pytest.raises(KeysError, match=r"/proc/self/mem cannot be read: Input/output error"):
        ring.take_up()
