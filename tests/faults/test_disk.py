"""Disks that fail under a running daemon: newcomers are refused before they are acked, what runs goes on, and back."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import Daemon, Reply
from tests.support.fake_engine_script import Script
from tests.support.pools import ROOT, a_fake_pool, a_scripted_pool
from tests.support.small_disks import BreakableDisk, a_tmpfs, build_preload, fill_up, use_up_inodes
from tests.support.streams import Event, Stream
from tests.support.waiting import wait_until

SLOW = "[[slow_ms@10]]"
TOKENS = 300


def on_disk(folder: Path, tmp_path: Path) -> dict[str, Any]:
    """Settings for a daemon whose journal alone is on the small disk."""
    return {"state_dir": str(folder), "log_dir": str(tmp_path / "state" / "logs")}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[BreakableDisk]:
    made = BreakableDisk(tmp_path / "disk")
    yield made
    made.close()


def wait_refused(daemon: Daemon) -> Reply:
    """Submit until the disk has been met: a record may still fit."""

    def submit() -> Reply | None:
        reply = daemon.submit(prompt="newcomer", max_tokens=4)
        return reply if reply.status == 503 else None

    return wait_until(submit, within_s=20, what="a refusal")


def check_trouble_and_return(daemon: Daemon, break_disk: Callable[[], object], mend_disk: Callable[[], object]) -> None:
    """The whole story, the same for every disk."""
    running = daemon.accept(prompt=SLOW, max_tokens=TOKENS)
    with daemon.open_stream(running) as events:
        seen: list[Event] = [next(events) for _ in range(5)]
        break_disk()
        refused = wait_refused(daemon)
        status = daemon.status()
        is_ready = daemon.ask("GET", "/readyz").status
        stream = Stream([*seen, *events]).check()
    mend_disk()
    wait_until(lambda: daemon.status()["journal_writable"], within_s=30, what="a journal that can be written")

    assert (refused.json["code"], refused.json["reason"]) == ("POOL_UNAVAILABLE", "disk")
    assert refused.json["retriable"] is True
    assert int(refused.headers["Retry-After"]) >= 1
    assert status["journal_writable"] is False
    assert status["journal_cause"]
    assert is_ready == 503
    assert stream.end.name == "end"
    assert stream.end.data["tokens_out"] == TOKENS
    assert daemon.read_stream(daemon.accept(prompt="fine")).end.name == "end"
    assert daemon.status()["journal_cause"] is None
    daemon.kill()
    daemon.start()
    assert daemon.wait_terminal(running)["result"]["tokens_out"] == TOKENS
    assert daemon.status()["journal_writable"] is True


@pytest.mark.fault("F11")
def test_a_full_disk(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    with a_tmpfs(tmp_path / "disk", options="size=2m") as folder:
        daemon = make_daemon(a_fake_pool(), settings=on_disk(folder, tmp_path)).start_ready()

        check_trouble_and_return(daemon, lambda: fill_up(folder), (folder / "filler").unlink)

        assert daemon.stop() == 0


@pytest.mark.fault("F14")
def test_a_disk_that_turns_read_only(make_daemon: MakeDaemon, tmp_path: Path, disk: BreakableDisk) -> None:
    daemon = make_daemon(a_fake_pool(), settings=on_disk(disk.path, tmp_path)).start_ready()

    check_trouble_and_return(daemon, disk.break_down, disk.repair)

    assert daemon.stop() == 0


@pytest.mark.fault("F13")
def test_an_fsync_that_fails(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    library = build_preload(ROOT / "tests" / "support" / "fsync_fault.c", tmp_path / "fsync_fault.so")
    flag = tmp_path / "broken"
    env = {"LD_PRELOAD": str(library), "FSYNC_FAULT_FLAG": str(flag), "FSYNC_FAULTS_MAX": "1000000"}
    daemon = make_daemon(a_fake_pool(), env=env).start_ready()

    check_trouble_and_return(daemon, flag.touch, flag.unlink)


def test_an_end_that_never_reached_the_disk_is_proved_again_after_a_kill(
    make_daemon: MakeDaemon, tmp_path: Path, disk: BreakableDisk
) -> None:
    script = tmp_path / "script.json"
    pool = a_scripted_pool(script, Script())
    daemon = make_daemon(pool, settings=on_disk(disk.path, tmp_path)).start_ready()
    task_id = daemon.accept(prompt=SLOW, max_tokens=60)
    with daemon.open_stream(task_id) as events:
        seen = [next(events) for _ in range(5)]
        disk.break_down()
        shown = Stream([*seen, *events]).check()
    daemon.kill()
    disk.repair()
    script.write_text(Script(tokens=("other",)).to_json())
    daemon.start()

    with daemon.open_stream(task_id, after=3) as events:
        (error,) = [event for event in events if event.name != "metrics"]
    daemon.kill()

    assert shown.end.name == "end"
    assert (error.data["code"], error.data["reason"]) == ("WORKER_RESET", "determinism")


@pytest.mark.fault("F12")
def test_without_inodes_an_open_journal_goes_on_and_workers_come_back_with_them(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    with a_tmpfs(tmp_path / "disk", options="size=8m,nr_inodes=40") as folder:
        daemon = make_daemon(a_fake_pool(), settings=on_disk(folder, tmp_path)).start_ready()
        taken = use_up_inodes(folder)
        served = daemon.read_stream(daemon.accept(prompt="no new file is needed"))
        waiting = daemon.accept(prompt=SLOW, max_tokens=TOKENS)
        daemon.kill()
        daemon.start()
        assert daemon.status()["journal_writable"] is True
        for file in taken:
            file.unlink()
        stream = daemon.read_stream(waiting)

        assert served.end.name == "end"
        assert stream.end.name == "end"
        assert daemon.stop() == 0
