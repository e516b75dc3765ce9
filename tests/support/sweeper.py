"""Outlives a test run that was cut short, and ends what it left: daemons, engines, and whatever those have forked.

    python sweeper.py FOLDER        # FOLDER: where the run keeps its temporary files; standard input: a pipe of the run

It waits until the other end of the pipe is closed, which the kernel does however the run ends. Then it kills every
daemon that was started with a config in that folder, and whoever writes there what it prints. Standard library only.
"""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

LOOKS_MAX = 5
"""A daemon that is killed may have been starting an engine."""


def watch_over(folder: Path) -> subprocess.Popen[bytes]:
    """Start it, for the life of this process. A signal to the run's group does not reach it."""
    command = [sys.executable, "-S", "-E", __file__, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def belongs(pid: str, folder: str) -> bool:
    """Whether it is a process of the run; False where it is gone. Who merely reads or stands there is not."""
    process = Path("/proc") / pid
    with contextlib.suppress(OSError):
        if f"supervisor\0--config\0{folder}/".encode() in (process / "cmdline").read_bytes():
            return True
    for name in ("fd/1", "fd/2"):
        with contextlib.suppress(OSError):
            if str((process / name).readlink()).startswith(f"{folder}/"):
                return True
    return False


def sweep(folder: str) -> int:
    """Kill all that belong to the folder; how many there were."""
    pids = (entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit())
    found = [pid for pid in pids if int(pid) != os.getpid() and belongs(pid, folder)]
    for pid in found:
        with contextlib.suppress(OSError):
            os.kill(int(pid), signal.SIGKILL)
    return len(found)


def main() -> None:
    """Wait for the end of the run; then look until nothing is found."""
    folder = sys.argv[1]
    while os.read(0, 1024):
        pass
    ended = 0
    for _ in range(LOOKS_MAX):
        if not (found := sweep(folder)):
            break
        ended += found
    if ended:
        sys.stderr.write(f"a test run left {ended} processes behind in {folder}: killed\n")


if __name__ == "__main__":
    main()
