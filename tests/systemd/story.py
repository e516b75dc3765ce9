"""Runs inside a booted system, as root: installs the service, lives with it, kills it, takes it away.

Prints one line for each thing shown. Standard library only: it is copied into that system and run there alone.
"""

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self, TypeVar

ORCHCTL = "/opt/orchctl/bin/orchctl"
CONFIG = Path("/etc/orchctl/pools.yaml")
KEYS = Path("/etc/orchctl/keys.json")
SERVICE = "orchctl.service"
UNITS = (SERVICE, "orchctl.socket", "orchctl-control.socket")
PORT = 8090
POLL_S = 0.02
EXPOSURE_MAX = 1.5
WATCHDOG_WITHIN_S = 40.0
"""WatchdogSec= and TimeoutAbortSec= of the unit, and a start."""

WITHOUT_SOCKETS = "--without-sockets"
"""The story of an operator who keeps the two listeners down: the daemon opens its own."""

TAKEN = {"state folder": 75, "port": 76}
"""How a daemon ends that cannot have it."""

TRIES = 3

T = TypeVar("T")

MODEL = Path("/srv/tiny.gguf")
FLAGS = "--host 127.0.0.1 --port {port} -c {ctx_total} -np {slots} -t 1 --metrics -b 64 -ub 64 -a {pool_id}"
POOLS = """
listen: {{port: {port}}}
models: {{tiny: {{path: {model}, digest: "sha256:{digest}"}}}}
pools:
  - id: tiny
    engine: llamacpp
    model: tiny
    ctx: 512
    devices: [0]
    launch: {{command: {command}}}
"""
SIMULATED = """[Service]
ExecStart=
ExecStart={orchctl} serve --config {config} --simulate-gpus 1x8GiB
"""


class StoryError(Exception):
    """Something was not as it must be."""


def main() -> int:
    """Tell every chapter in order; the first that fails is the last, with what the journal says."""
    prepare()
    chapters = [installs, starts, serves, is_confined, survives_its_own_death, waits_its_turn, is_watched, reloads]
    if WITHOUT_SOCKETS not in sys.argv:
        chapters += [restarts_unnoticed, stops_clean, starts_on_demand, takes_credentials, leaves]
    else:
        chapters = [installs, does_without_sockets, *chapters[1:], stops_clean]
    for chapter in chapters:
        name = chapter.__name__.replace("_", " ")
        begun = time.monotonic()
        try:
            detail = chapter()
        except (StoryError, OSError, subprocess.SubprocessError, http.client.HTTPException) as error:
            print(f"FAILED  {name}: {error}", flush=True)
            print(ask("journalctl", "-b", "--no-pager", "-n", "60", "-u", "orchctl*"), flush=True)
            return 1
        print(f"ok      {name:<24} {time.monotonic() - begun:5.1f} s  {detail}", flush=True)
    return 0


# Chapters -----------------------------------------------------------------------------------------------------------


def prepare() -> None:
    """What an operator has before the install: a model, a config. The GPU is a simulated one."""
    CONFIG.parent.mkdir(mode=0o755, exist_ok=True)
    command = ["{python}", "/srv/engine.py", "-m", "{model_path}", *FLAGS.split()]
    digest = hashlib.sha256(MODEL.read_bytes()).hexdigest()
    CONFIG.write_text(POOLS.format(port=PORT, model=MODEL, digest=digest, command=json.dumps(command)))
    CONFIG.chmod(0o644)
    drop_in = Path(f"/etc/systemd/system/{SERVICE}.d/simulated.conf")
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text(SIMULATED.format(orchctl=ORCHCTL, config=CONFIG))


def installs() -> str:
    """Once, and a second time without a change."""
    config = CONFIG.read_text()
    run(ORCHCTL, "install", "--yes")
    second = run(ORCHCTL, "install", "--yes")
    expect("nothing to do" in second, f"the second install did something: {second}")
    expect(CONFIG.read_text() == config, "the install wrote to the config")
    expect(run("systemctl", "is-enabled", *UNITS).split() == ["enabled"] * 3, "not every unit is enabled")
    shown = run("systemd-analyze", "security", "--no-pager", SERVICE).strip().splitlines()[-1]
    exposure = float(shown.split(":")[1].split()[0])
    expect(exposure <= EXPOSURE_MAX, shown)
    return f"exposure {exposure}"


def does_without_sockets() -> str:
    """The two listeners are kept down by drop-ins."""
    for name in UNITS[1:]:
        drop_in = Path(f"/etc/systemd/system/{name}.d/off.conf")
        drop_in.parent.mkdir()
        drop_in.write_text("[Unit]\nConditionPathExists=/nowhere\n")
    run("systemctl", "daemon-reload")
    return "kept down"


def starts() -> str:
    """READY=1 comes when it serves; the pool follows."""
    run("systemctl", "start", *units())
    expect(run("systemctl", "is-active", SERVICE).strip() == "active", "it is not active")
    pool = until(ready_pool, 60, "the pool's Ready")
    return f"engine pid {pool['pid']}"


def serves() -> str:
    """A task, submitted and streamed by the CLI."""
    answer = json.loads(run(ORCHCTL, "submit", "--model", "tiny", "--max-tokens", "32", "-o", "json", "hello"))
    expect(answer["state"] == "ended" and answer["tokens_out"] == 32, f"the task ended so: {answer}")
    return f"{answer['tokens_out']} tokens"


def is_confined() -> str:
    """The daemon and its engine run as their user, without a capability, and may not take one."""
    for pid in (main_pid(), engine_pid()):
        facts = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
        user = run("id", "-u", "orchctl").strip()
        expect(set(facts["Uid"].split()) == {user}, f"process {pid} runs as {facts['Uid']}")
        expect(int(facts["CapBnd"], 16) == 0, f"process {pid} could have capabilities {facts['CapBnd']}")
        expect(facts["NoNewPrivs"].strip() == "1" and facts["Seccomp"].strip() == "2", f"process {pid} is not bound")
    mode = Path("/run/orchctl/control.sock").stat().st_mode & 0o777
    expect(mode == 0o660, f"the control socket has mode {mode:o}")
    stranger = ask("setpriv", "--reuid=nobody", "--clear-groups", ORCHCTL, "status")
    expect("may not use the socket" in stranger, f"a stranger was told: {stranger}")
    return "no capability, no new privileges, a system call filter"


def survives_its_own_death() -> str:
    """kill -9: systemd starts it again, and the engine that ran on is taken up."""
    before, engine = main_pid(), engine_pid()
    os.kill(before, signal.SIGKILL)
    until(lambda: main_pid() not in {0, before}, 20, "a new daemon")
    until(ready_pool, 60, "Ready after a crash")
    serves()
    expect(engine_pid() == engine, f"the engine {engine} was not taken up, {engine_pid()} runs in its place")
    expect(count_in_journal("Main process exited, code=killed, status=9/KILL") == 1, "not one line for one crash")
    return f"engine {engine} was taken up"


def waits_its_turn() -> str:
    """Somebody else has what it needs when it starts again: it is tried again, and its engine runs on meanwhile."""
    before, engine = main_pid(), engine_pid()
    what, holder = ("port", hold_port) if WITHOUT_SOCKETS in sys.argv else ("state folder", hold_state)
    with holder(before):
        until(lambda: count_in_journal(f"Main process exited, code=exited, status={TAKEN[what]}") >= TRIES, 30, "tries")
        os.kill(engine, 0)
    until(ready_pool, 60, "Ready once it was given back")
    expect(engine_pid() == engine, f"the engine {engine} was not taken up, {engine_pid()} runs in its place")
    return f"the {what} was taken, {TRIES} tries"


def is_watched() -> str:
    """A daemon that hangs is ended by the watchdog and started again."""
    before = main_pid()
    os.kill(before, signal.SIGSTOP)
    until(lambda: main_pid() not in {0, before}, WATCHDOG_WITHIN_S, "the watchdog")
    until(ready_pool, 60, "Ready after a hang")
    expect(count_in_journal("Watchdog timeout") == 1, "not one line for one hang")
    return "ended and started again"


def reloads() -> str:
    """`systemctl reload` is a SIGHUP to the same process."""
    before = main_pid()
    run("systemctl", "reload", SERVICE)
    until(lambda: count_in_journal('"signal": ?"SIGHUP"') == 1, 10, "the line of a reload")
    expect(main_pid() == before, "the process was replaced")
    return "the same process"


def restarts_unnoticed() -> str:
    """Over `systemctl restart` no connection is refused, on either listener: they wait."""
    with Prober() as prober:
        until(lambda: min(prober.answered.values()) > 5, 10, "first answers")
        before = main_pid()
        run("systemctl", "restart", SERVICE)
        expect(main_pid() != before, "the process was not replaced")
        seen = dict(prober.answered)
        until(lambda: all(prober.answered[each] > seen[each] + 5 for each in seen), 20, "answers after the restart")
    expect(not prober.refused, f"refused: {prober.refused[:3]}")
    return f"{sum(prober.answered.values())} connections, the longest wait {prober.longest_s:.2f} s"


def stops_clean() -> str:
    """After a stop there is no process, no port, no socket and no control group."""
    until(ready_pool, 60, "Ready")
    run("systemctl", "stop", *units())
    expect(ask("pgrep", "-u", "orchctl") == "", "processes are left")
    expect(str(PORT) not in run("ss", "-Hltn"), "the port is open")
    expect(not Path("/run/orchctl/control.sock").exists(), "the control socket is left")
    groups = [str(path) for path in Path("/sys/fs/cgroup").rglob("orchctl.service*")]
    expect(groups == [], f"control groups are left: {groups}")
    expect("FAILURE" not in ask("systemctl", "status", SERVICE), "it did not end with 0")
    return "nothing is left"


def starts_on_demand() -> str:
    """With the listeners up, the first caller starts the daemon and is answered by it."""
    run("systemctl", "start", *UNITS[1:])
    expect(main_pid() == 0, "it runs already")
    status, _ = ask_http("/healthz")
    expect(status == 200 and main_pid() != 0, f"the first caller got {status}")
    return "the first caller was answered"


def takes_credentials() -> str:
    """Keys that only root may read are handed over by systemd."""
    key = run(ORCHCTL, "keys", "create", "--file", str(KEYS), "--scope", "data").strip()
    expect(KEYS.stat().st_uid == 0 and KEYS.stat().st_mode & 0o077 == 0, "others may read the keys")
    run(ORCHCTL, "install", "--credentials", "--yes")
    run("systemctl", "restart", SERVICE)
    without, _ = ask_http("/v1/tasks")
    with_key, _ = ask_http("/v1/tasks", {"X-Api-Key": key})
    expect((without, with_key) == (401, 200), f"without a key {without}, with it {with_key}")
    return "401 without a key, 200 with it"


def leaves() -> str:
    """Uninstall takes away what install brought, and nothing else."""
    run(ORCHCTL, "uninstall", "--yes")
    expect(ask("pgrep", "-u", "orchctl") == "", "processes are left")
    left = [name for name in UNITS if Path(f"/etc/systemd/system/{name}").exists()]
    expect(left == [], f"units are left: {left}")
    expect(CONFIG.exists() and KEYS.exists() and Path("/var/lib/orchctl").is_dir(), "it took more than it brought")
    expect("nothing to do" in run(ORCHCTL, "uninstall", "--yes"), "the second uninstall did something")
    return "config, keys and state stay"


def units() -> tuple[str, ...]:
    """What is started and stopped together."""
    return UNITS[:1] if WITHOUT_SOCKETS in sys.argv else UNITS


# Means --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def hold_port(daemon: int) -> Iterator[None]:
    """Kill the daemon, and listen in its place before it is there again."""
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        os.kill(daemon, signal.SIGKILL)
        until(lambda: _succeeds(lambda: squatter.bind(("127.0.0.1", PORT))), 10, "the port")
        squatter.listen()
        yield


@contextlib.contextmanager
def hold_state(daemon: int) -> Iterator[None]:
    """Kill the daemon, and lock its state folder before it is there again."""
    with Path("/var/lib/orchctl/daemon.lock").open("rb+") as lock:
        os.kill(daemon, signal.SIGKILL)
        until(lambda: _succeeds(lambda: fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)), 10, "the lock")
        yield


def _succeeds(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True


class Prober:
    """Connects to both listeners again and again, in threads of its own, and asks whether the daemon lives."""

    def __init__(self) -> None:
        self.answered = {"tcp": 0, "unix": 0}
        self.refused: list[str] = []
        self.longest_s = 0.0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._probe, args=(name,)) for name in self.answered]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _probe(self, name: str) -> None:
        while not self._over.is_set():
            begun = time.monotonic()
            try:
                status = self._ask(name)
            except (OSError, http.client.HTTPException) as error:
                self.refused.append(f"{name}: {type(error).__name__} {error}")
            else:
                if status != http.HTTPStatus.OK:
                    self.refused.append(f"{name}: {status}")
                self.answered[name] += 1
            self.longest_s = max(self.longest_s, time.monotonic() - begun)

    @staticmethod
    def _ask(name: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
        if name == "unix":
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(30)
            connection.sock.connect("/run/orchctl/control.sock")
        with contextlib.closing(connection):
            connection.request("GET", "/healthz", headers={"Connection": "close"})
            return connection.getresponse().status


def ask_http(path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """One request over TCP."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)) as connection:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read()


def ready_pool() -> dict[str, object] | None:
    """The pool, once it takes tasks."""
    asked = subprocess.run([ORCHCTL, "status", "tiny", "-o", "json"], capture_output=True, text=True, check=False)
    if asked.returncode:
        return None
    pool: dict[str, object] = json.loads(asked.stdout)
    return pool if pool["ready"] else None


def engine_pid() -> int:
    """The process of the engine."""
    return int(str(until(ready_pool, 10, "a Ready pool")["pid"]))


def main_pid() -> int:
    """The process of the daemon, 0 for none."""
    return int(run("systemctl", "show", SERVICE, "--property=MainPID", "--value"))


def count_in_journal(pattern: str) -> int:
    """Lines of this boot about our units."""
    found = ask("journalctl", "-b", "-q", "--no-pager", "-o", "cat", "-u", SERVICE, "--grep", pattern)
    return len(found.splitlines())


def until(look: Callable[[], T | None], within_s: float, what: str) -> T:
    """The first truthy value."""
    for value in _looks(look, within_s):
        if value:
            return value
    raise StoryError(f"{what} did not come within {within_s:g} s")


def _looks(look: Callable[[], T | None], within_s: float) -> Iterator[T | None]:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        yield look()
        time.sleep(POLL_S)


def expect(holds: bool, otherwise: str) -> None:
    """The claim holds, or the story ends."""
    if not holds:
        raise StoryError(otherwise)


def run(*command: str) -> str:
    """A command that must succeed; gives its output."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    expect(done.returncode == 0, f"`{' '.join(command)}` failed with {done.returncode}: {done.stderr.strip()[-800:]}")
    return done.stdout


def ask(*command: str) -> str:
    """Whatever a command says, however it ends."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main())
