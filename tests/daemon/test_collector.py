"""The garbage collector of the daemon: it runs, and does not look through what was there at the start."""

import subprocess
import sys

from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import ROOT
from tests.support.pools import a_fake_pool

PROGRAM = """
import supervisor.__main__
import gc
from supervisor import main

class Daemon:
    handover = None
    def __init__(self, *given): pass
    async def run(self):
        print(gc.isenabled(), gc.get_freeze_count() > 10_000)
        return 0

main.Daemon = Daemon
main.main()
"""


def test_it_is_at_work_once_the_daemon_runs_and_leaves_the_modules_alone(make_daemon: MakeDaemon) -> None:
    config = str(make_daemon(a_fake_pool()).config_path)
    command = [sys.executable, "-c", PROGRAM, "--config", config, "--simulate-gpus", "1x8GiB"]

    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)

    assert (ran.returncode, ran.stdout) == (0, "True True\n"), ran.stderr
