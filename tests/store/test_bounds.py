"""What a pull from a URL may take of the disk and of the quota, which it learns only from the answer."""

import contextlib
import errno
import os
import resource
import shutil
from pathlib import Path

import httpx2
import pytest

from supervisor.store.faults import StoreError
from supervisor.store.fetching import RESERVE_LOOK_BYTES, Order, fetch
from supervisor.store.pulling import DISK_RESERVE_BYTES
from tests.store.conftest import MakeHub, Orchctl, a_gguf
from tests.support.hub import REPO
from tests.support.small_disks import a_tmpfs
from tests.support.waiting import wait_until

MIB = 2**20
WITHOUT_CAPABILITIES = ("setpriv", "--bounding-set", "-all", "--inh-caps", "-all")
"""Root as anybody else: a folder without rights is closed to it too."""


def test_a_model_above_the_quota_is_refused_before_its_bytes_come(orchctl: Orchctl, make_hub: MakeHub) -> None:
    hub = make_hub({"big.gguf": a_gguf(8 * MIB)}, lfs=False)
    orchctl.config["store"] = {"dir": str(orchctl.store), "max_bytes": 2 * MIB}

    ran = orchctl("pull", f"{hub.endpoint}/acme/tiny/resolve/main/big.gguf")

    assert ran.returncode == 1
    assert "do not fit into the quota of 2.0 MiB" in ran.stderr
    assert [path for path in orchctl.files if (orchctl.store / path).stat().st_size] == []


class Answer(httpx2.BaseTransport):
    """An answer of so many bytes, announced or not."""

    def __init__(self, size: int, *, is_announced: bool) -> None:
        self.size, self.is_announced = size, is_announced

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        headers = {"Content-Length": str(self.size)} if self.is_announced else {}
        return httpx2.Response(200, headers=headers, content=(bytes(MIB) for _ in range(self.size // MIB)))


def fetched(tmp_path: Path, size: int, *, is_announced: bool, free: list[int]) -> int:
    """Fetch it where so many bytes more are allowed; gives how many were kept."""
    fd = os.open(tmp_path / "m", os.O_RDWR | os.O_CREAT)

    def require(missing: int) -> None:
        if missing > free[0]:
            raise StoreError("the disk is full")

    try:
        order = Order("http://127.0.0.1/m", None, 10**12, require_room=require)
        with (
            httpx2.Client(transport=Answer(size, is_announced=is_announced)) as client,
            pytest.raises(StoreError, match="the disk is full"),
        ):
            fetch(client, order, fd, lambda done: free.__setitem__(0, free[0] - (MIB if done else 0)))
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


def test_the_announced_size_is_checked_before_the_first_byte(tmp_path: Path) -> None:
    assert fetched(tmp_path, 64 * MIB, is_announced=True, free=[63 * MIB]) == 0


def test_an_unannounced_size_is_checked_while_it_comes(tmp_path: Path) -> None:
    kept = fetched(tmp_path, 64 * MIB, is_announced=False, free=[16 * MIB])

    assert kept <= 16 * MIB + RESERVE_LOOK_BYTES


def test_a_disk_that_fills_up_leaves_nothing_of_the_download(orchctl: Orchctl, make_hub: MakeHub) -> None:
    hub = make_hub({"big.gguf": a_gguf(8 * MIB)}, lfs=False)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, limits[1]))
    try:
        process = orchctl.start("pull", f"{hub.endpoint}/acme/tiny/resolve/main/big.gguf")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 1
    assert os.strerror(errno.EFBIG) in err
    assert [path for path in orchctl.files if not path.endswith("/etag")] == []


def test_what_cannot_be_taken_in_has_a_next_step(orchctl: Orchctl) -> None:
    ran = orchctl("add", "/nonexistent", "--name", "x")

    assert ran.returncode == 1
    assert "; name a model file" in ran.stderr


def test_a_disk_that_others_fill_in_the_middle_keeps_its_reserve(orchctl: Orchctl, make_hub: MakeHub) -> None:
    hub = make_hub({"big.gguf": a_gguf(32 * MIB)})
    hub.trouble.stall_after = 8 * MIB
    with a_tmpfs(orchctl.store, options="size=112m"):
        process = orchctl.start("pull", f"repo:{REPO}")
        wait_until(hub.stalled.is_set, within_s=30, what="the middle of the download")
        (orchctl.store / "others").write_bytes(bytes(32 * MIB))
        hub.trouble.stall_after = None
        _, err = process.communicate(timeout=60)

        assert process.returncode == 1
        assert "are needed on the disk" in err
        assert shutil.disk_usage(orchctl.store).free >= DISK_RESERVE_BYTES
        assert not orchctl.catalogue.models


@pytest.mark.parametrize("kind", ["file", "read-only", "no right"])
@pytest.mark.parametrize("line", [("pull", f"repo:{REPO}"), ("add", "m.gguf", "--name", "m"), ("list",)])
def test_a_store_that_cannot_be_used_is_said_in_one_line(
    orchctl: Orchctl, make_hub: MakeHub, kind: str, line: tuple[str, ...]
) -> None:
    hub = make_hub()
    (orchctl.folder / "m.gguf").write_bytes(a_gguf())
    with contextlib.ExitStack() as stack:
        if kind == "file":
            orchctl.store.write_text("not a folder")
        elif kind == "read-only":
            stack.enter_context(a_tmpfs(orchctl.store, options="size=1m,ro"))
        else:
            orchctl.store.mkdir()
            orchctl.store.chmod(0)
            orchctl.by = WITHOUT_CAPABILITIES
        ran = orchctl(*line)

    is_fine = line == ("list",) and kind == "read-only"
    assert ran.returncode in ({0} if is_fine else {1, 77}), ran.stderr
    assert is_fine or ran.stderr.startswith("orchctl: ")
    assert ran.stderr.count("\n") == (not is_fine)
    assert hub.bytes_sent == 0
