"""`make demo`: the daemon, a real llama.cpp server and a real model, shown at work in half a minute.

Starts the daemon with examples/demo.yaml, shows the pool on its way to Ready, streams one answer, prints the status and
the lines to go on with, and stops everything cleanly; `--keep` leaves it running. It asks only through the CLI.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "examples" / "demo.yaml"
SOCKET = ROOT / ".demo" / "control.sock"
DAEMON_LOG = ROOT / ".demo" / "daemon.log"
MODEL = "smollm2-135m"
POOL = "smollm2"
PROMPT = "Here is a short explanation of how a GPU works:"
READY_WITHIN_S = 120.0
STOP_WITHIN_S = 20.0
POLL_S = 0.1

console = Console(highlight=False, soft_wrap=True)


class DemoError(Exception):
    """The demo cannot go on; one sentence."""


def orchctl(*arguments: str) -> list[str]:
    """A command line of the CLI in this environment."""
    return [str(Path(sys.executable).parent / "orchctl"), "--socket", str(SOCKET), *arguments]


def ask_status() -> dict[str, object] | None:
    """The pool as the daemon shows it; None while nobody answers."""
    answer = subprocess.run(orchctl("status", POOL, "-o", "json"), capture_output=True, text=True, check=False)
    if answer.returncode:
        return None
    found: dict[str, object] = json.loads(answer.stdout)
    return found


def start_daemon() -> subprocess.Popen[bytes]:
    """`orchctl serve`, its log in a file. A daemon that a former `KEEP=1` left running is refused."""
    if ask_status() is not None:
        raise DemoError("a demo daemon runs already; stop it with `kill $(cat .demo/daemon.pid)`")
    DAEMON_LOG.parent.mkdir(exist_ok=True)
    with DAEMON_LOG.open("wb") as log:
        daemon = subprocess.Popen(
            orchctl("serve", "--config", str(CONFIG), "--simulate-gpus", "1x8GiB"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (ROOT / ".demo" / "daemon.pid").write_text(f"{daemon.pid}\n")
    return daemon


def show_progress(daemon: subprocess.Popen[bytes]) -> None:
    """Print each step towards Ready as it passes."""
    shown: set[str] = set()
    begun = time.monotonic()
    while time.monotonic() - begun < READY_WITHIN_S:
        if daemon.poll() is not None:
            last = DAEMON_LOG.read_text().strip().splitlines()[-1:] or ["no word"]
            raise DemoError(f"the daemon ended with code {daemon.returncode}: {last[0]}")
        pool = ask_status()
        for step in _passed(pool):
            if step["name"] not in shown:
                shown.add(step["name"])
                console.print(
                    f"  [green]✓[/] {step['name']:<18} [dim]{step['took_ms']:>6} ms  {step['detail'] or ''}[/]"
                )
        if pool and pool.get("ready"):
            console.print(f"  [green]●[/] {POOL} is ready [dim]after {time.monotonic() - begun:.1f} s[/]")
            return
        time.sleep(POLL_S)
    raise DemoError(f"the pool was not ready within {READY_WITHIN_S:.0f} s; see {DAEMON_LOG.relative_to(ROOT)}")


def _passed(pool: dict[str, object] | None) -> list[dict[str, str]]:
    steps = pool.get("steps", []) if pool else []
    assert isinstance(steps, list)
    return [step for step in steps if step["state"] == "passed"]


def run_visibly(*arguments: str) -> None:
    """Show a CLI command and run it in this terminal."""
    shown = " ".join(f'"{each}"' if " " in each else each for each in arguments)
    console.print(f"\n[bold]$ orchctl {shown}[/]")
    sys.stdout.flush()
    if subprocess.run(orchctl(*arguments), check=False).returncode:
        raise DemoError(f"`orchctl {arguments[0]}` failed")


def stop_daemon(daemon: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and wait until the daemon has put everything away."""
    daemon.send_signal(signal.SIGTERM)
    try:
        code = daemon.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        daemon.kill()
        raise DemoError(f"the daemon did not stop within {STOP_WITHIN_S:.0f} s and was killed") from None
    (ROOT / ".demo" / "daemon.pid").unlink(missing_ok=True)
    if code:
        raise DemoError(f"the daemon ended with code {code}; see {DAEMON_LOG.relative_to(ROOT)}")
    console.print("\nstopped: no process, port or socket is left  [dim](make demo KEEP=1 leaves it running)[/]")


def print_next_lines() -> None:
    """Lines that work as they stand while the daemon runs."""
    task = {
        "task_id": "11111111-1111-4111-8111-111111111111",
        "session_id": "22222222-2222-4222-8222-222222222222",
        "workload": "completion",
        "model_ref": MODEL,
        "engine": "llamacpp",
        "ctx": 2048,
        "priority": "interactive",
        "max_tokens": 32,
        "deadline_ms": 60000,
        "prompt": "Once upon a time",
    }
    url = "http://127.0.0.1:8090/v1/tasks"
    console.print("\n[bold]To go on[/], with [bold]make demo KEEP=1[/]:\n")
    lines = [
        f"export ORCHCTL_SOCKET={os.path.relpath(SOCKET)}",
        f'.venv/bin/orchctl submit --model {MODEL} "Once upon a time, in a data centre,"',
        ".venv/bin/orchctl status --watch",
        f".venv/bin/orchctl logs {POOL}",
        f"curl -s {url} -H 'Content-Type: application/json' -d '{json.dumps(task)}'",
        f"curl -sN {url}/{task['task_id']}/stream",
        "kill $(cat .demo/daemon.pid)",
    ]
    for line in lines:
        print(f"  {line}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; gives the exit code."""
    parser = argparse.ArgumentParser(description="Show orchctl at work on a real engine.")
    parser.add_argument("--keep", action="store_true", help="leave the daemon running")
    keep = parser.parse_args(argv).keep
    if shutil.which("orchctl", path=str(Path(sys.executable).parent)) is None:
        console.print("[red]orchctl is not installed here[/]; run `make demo`")
        return 1
    daemon = None
    try:
        console.print("[bold]$ orchctl serve --config examples/demo.yaml --simulate-gpus 1x8GiB[/]")
        daemon = start_daemon()
        show_progress(daemon)
        run_visibly("submit", "--model", MODEL, "--max-tokens", "64", PROMPT)
        run_visibly("status")
        print_next_lines()
        if keep:
            console.print(f"\nleft running as pid {daemon.pid}; stop it with `kill $(cat .demo/daemon.pid)`")
        else:
            stop_daemon(daemon)
    except (DemoError, KeyboardInterrupt) as error:
        console.print(f"\n[red]demo:[/] {str(error) or 'interrupted'}")
        if daemon is not None and daemon.poll() is None:
            daemon.terminate()
            daemon.wait(STOP_WITHIN_S)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
