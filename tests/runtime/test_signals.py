"""Signals to the daemon: none is lost, whichever thread is there to take it, and over an exec neither."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
NUMBERS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]

READ = """
import asyncio, os, signal, sys, threading, uvloop
from supervisor.runtime.signals import SignalReader, hold_signals, signals_let_through

async def heard(count, act=lambda: None):
    found, enough = [], asyncio.Event()
    def note(number):
        found.append(number)
        if len(found) == count: enough.set()
    reader = SignalReader(asyncio.get_running_loop(), note)
    act()
    async with asyncio.timeout(20):
        await enough.wait()
    reader.close()
    return found

def run(work):
    return (uvloop.run if "uvloop" in sys.argv else asyncio.run)(work)

def a_thread(over):  # of somebody else: it does nothing and would take any signal
    thread = threading.Thread(target=over.wait)
    thread.start()
    return thread
"""


def told_by(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of its own runs this, for a main thread has one mask."""
    command = [sys.executable, "-c", READ + script, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_every_signal_is_read_in_the_loop_beside_idle_threads(loop: str) -> None:
    told = told_by(
        "hold_signals()\n"
        "over = threading.Event()\n"
        "thread = a_thread(over)\n"
        "def act():\n"
        "    for number in (1, 2, 15): os.kill(os.getpid(), number)\n"
        "found = run(heard(3, act))\n"
        "over.set()\n"
        "print(sorted(found))\n",
        loop,
    )

    assert (told.returncode, told.stdout) == (0, "[1, 2, 15]\n"), told.stderr


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_one_that_a_thread_takes_while_it_starts_a_child_is_passed_on(loop: str) -> None:
    told = told_by(
        "hold_signals()\n"
        "def start():\n"
        "    with signals_let_through():\n"
        "        signal.pthread_kill(threading.get_ident(), 15)\n"
        "def act():\n"
        "    thread = threading.Thread(target=start)\n"
        "    thread.start()\n"
        "    thread.join()\n"
        "print(run(heard(1, act)))\n",
        loop,
    )

    assert (told.returncode, told.stdout) == (0, "[15]\n"), told.stderr


@pytest.mark.parametrize("number", NUMBERS)
def test_one_that_comes_between_two_images_is_read_by_the_second(number: signal.Signals) -> None:
    told = told_by(
        "if 'second' in sys.argv:\n"
        "    print(run(heard(1)), flush=True)\n"
        "    os._exit(0)\n"
        "hold_signals()\n"
        "run(asyncio.sleep(0))\n"
        "a_thread(threading.Event())\n"
        "os.kill(os.getpid(), int(sys.argv[1]))\n"
        "os.execv(sys.executable, [*sys.orig_argv, 'second'])\n",
        str(int(number)),
    )

    assert (told.returncode, told.stdout) == (0, f"[{int(number)}]\n"), told.stderr


def test_a_child_holds_nothing_back(tmp_path: Path) -> None:
    status = tmp_path / "status"
    told = told_by(
        "import subprocess\n"
        "hold_signals()\n"
        "def start():\n"
        "    with signals_let_through():\n"
        "        subprocess.run(['cp', '/proc/self/status', sys.argv[1]], check=True)\n"
        "thread = threading.Thread(target=start)\n"
        "thread.start()\n"
        "thread.join()\n",
        os.fspath(status),
    )

    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    assert told.returncode == 0, told.stderr
    assert int(lines["SigBlk"], 16) == 0
    assert int(lines["SigIgn"], 16) & sum(1 << (number - 1) for number in NUMBERS) == 0
