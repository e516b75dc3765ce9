"""A test run that is killed leaves no daemon and no engine behind."""

import subprocess
import sys
from pathlib import Path

import psutil

from tests.support.daemon import ROOT
from tests.support.waiting import wait_until

RUN = """
import sys
from pathlib import Path
from tests.support.daemon import Daemon
from tests.support.pools import a_fake_pool, a_model
from tests.support.sweeper import watch_over

folder = Path(sys.argv[1])
sweeper = watch_over(folder)
daemon = Daemon(folder, {"pools": [a_fake_pool()], "models": a_model(folder)}).start_ready()
if "crashed" in sys.argv:
    daemon.kill()
print(*daemon.engine_pids(), sweeper.pid, flush=True)
sys.stdin.read()
"""


def test_a_run_that_is_killed_leaves_no_daemon_and_no_engine(tmp_path: Path) -> None:
    left = pids_of_a_killed_run(tmp_path)
    wait_until(lambda: not any(map(psutil.pid_exists, left)), within_s=20, what="the end of all that it left")

    assert [each.pid for each in psutil.process_iter() if writes_to(each, tmp_path)] == []


def test_an_engine_without_a_daemon_is_not_left_either(tmp_path: Path) -> None:
    left = pids_of_a_killed_run(tmp_path, "crashed")
    wait_until(lambda: not any(map(psutil.pid_exists, left)), within_s=20, what="the end of all that it left")

    assert [each.pid for each in psutil.process_iter() if writes_to(each, tmp_path)] == []


def pids_of_a_killed_run(folder: Path, *how: str) -> list[int]:
    """Its engine and its sweeper."""
    command = [sys.executable, "-c", RUN, str(folder), *how]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        pids = [int(pid) for pid in run.stdout.readline().split()]
        run.kill()
    assert len(pids) == 2
    return pids


def writes_to(process: psutil.Process, folder: Path) -> bool:
    try:
        return str(Path(f"/proc/{process.pid}/fd/2").readlink()).startswith(f"{folder}/")
    except OSError:
        return False
