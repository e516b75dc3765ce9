"""A real daemon in a process of its own, for tests from the outside: started, asked, killed, started again."""

import contextlib
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from supervisor.runtime.cgroups import Cgroups, open_cgroups
from tests.support.streams import Event, Stream, parse_events
from tests.support.waiting import wait_until

START_WITHIN_S = 20.0
READY_WITHIN_S = 40.0
REPLY_WITHIN_S = 30.0
TASK_LINES = ("task ended", "task failed")
ROOT = Path(__file__).parent.parent.parent


class Reply:
    """A complete answer."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


class Daemon:
    """One state directory and the daemon that runs on it, over any number of lives."""

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        *,
        simulate: str | None = "1x8GiB",
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.config_path = folder / "pools.yaml"
        defaults = {"listen": {"port": 0, "socket": str(folder / "c.sock")}, "state_dir": str(folder / "state")}
        self.config_path.write_text(yaml.safe_dump({**defaults, **config}))
        self.socket_path = folder / "c.sock"
        self.log_path = folder / "daemon.log"
        self._simulate = simulate
        self._env = {**os.environ, **(env or {})}
        self.port = 0
        self.headers: dict[str, str] = {}
        """Of every request over TCP: a key, where one is asked for."""
        self.process: subprocess.Popen[bytes] | None = None
        self.accepted: dict[str, dict[str, str]] = {}
        """Every task that was ever acked, with the headers of its request."""
        self.on_ready: Callable[[], None] = lambda: None
        self.silence: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
        """Around what makes the daemon itself the victim, so that nobody expects answers."""

    # Life -------------------------------------------------------------------------------------------------------

    def spawn(
        self, log: BinaryIO | None = None, *, by: tuple[str, ...] = (), pass_fds: tuple[int, ...] = ()
    ) -> "Daemon":
        """Start the process; do not wait for anything. Its log goes to `log_path`, or where the test says.

        `by` is a program that is given the daemon's command line, and `pass_fds`, in its place.
        """
        self._log_offset = self.log_path.stat().st_size if self.log_path.exists() else 0
        simulate = ["--simulate-gpus", self._simulate] if self._simulate else []
        with contextlib.nullcontext(log) if log is not None else self.log_path.open("ab") as sink:
            self.process = subprocess.Popen(
                [*by, sys.executable, "-m", "supervisor", "--config", str(self.config_path), *simulate],
                pass_fds=pass_fds,
                cwd=ROOT,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
        return self

    @property
    def pid(self) -> int:
        """Of the present life, or of the last one."""
        assert self.process is not None
        return self.process.pid

    def start(self) -> "Daemon":
        """Start and wait until it listens."""
        self.spawn()
        return self.wait_serving()

    def wait_serving(self) -> "Daemon":
        """Wait until the process listens."""
        served = wait_until(self._find_serving, within_s=START_WITHIN_S, what="the daemon's listening")
        self.port = int(served["listen"].rsplit(":", 1)[1])
        return self

    def _find_serving(self) -> dict[str, Any] | None:
        assert self.process is not None
        assert self.process.poll() is None, self.log_text()[-3000:]
        return next((line for line in self.log_lines() if line.get("event") == "daemon serves"), None)

    def start_ready(self) -> "Daemon":
        """Start and wait until every pool is Ready."""
        return self.start().wait_ready()

    def wait_ready(self, within_s: float = READY_WITHIN_S) -> "Daemon":
        """Wait until every pool takes tasks."""
        wait_until(self._all_ready, within_s=within_s, what="all pools Ready")
        self.on_ready()
        return self

    def _all_ready(self) -> bool:
        pools = self.status()["pools"]
        return all(pool["ready"] for pool in pools)

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, within_s: float = 30.0) -> int:
        """SIGTERM; gives the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)

    def close(self) -> None:
        """Whatever the test did: leave nothing behind."""
        try:
            self.end()
        except subprocess.TimeoutExpired:
            self.kill()
        for pid in self.engine_pids():
            with contextlib.suppress(ProcessLookupError):  # it ends by itself just now
                os.kill(pid, signal.SIGKILL)
        with self._groups() as groups:
            for group in groups.leftovers():
                group.kill()
                group.remove()

    def end(self) -> None:
        """End the process where it runs, and clean up nothing behind it; TimeoutExpired if it does not end."""
        if self.process is not None and self.process.poll() is None:
            self._stop_now()

    def groups_left(self) -> int:
        """Control groups of its engines that are still there."""
        with self._groups() as groups:
            return len(groups.leftovers())

    @contextlib.contextmanager
    def _groups(self) -> Iterator[Cgroups]:
        state_dir = str(yaml.safe_load(self.config_path.read_text())["state_dir"])
        groups = open_cgroups(hashlib.sha256(state_dir.encode()).hexdigest()[:16])
        try:
            yield groups
        finally:
            groups.close()

    def _stop_now(self) -> None:
        """The first SIGTERM waits for what runs, the second one does not."""
        assert self.process is not None
        for within_s in (1, 15):
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(within_s)
                return
        raise subprocess.TimeoutExpired(self.process.args, 16)

    def engine_pids(self) -> list[int]:
        """Processes that write to this daemon's engine logs: its engines, whoever started them."""
        state = str(self.folder / "state" / "logs")
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if str((entry / "fd" / "2").readlink()).startswith(state):
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    # Log --------------------------------------------------------------------------------------------------------

    def log_text(self) -> str:
        """What the present life wrote."""
        return self.log_path.read_bytes()[self._log_offset :].decode(errors="replace")

    def log_lines(self) -> list[dict[str, Any]]:
        """Its JSON lines."""
        return [
            json.loads(line) for line in self.log_text().splitlines() if line.startswith("{") and line.endswith("}")
        ]

    def wait_lines(
        self, *events: str, count: int = 1, within_s: float = 20.0, **fields: object
    ) -> list[dict[str, Any]]:
        """Its lines of these events with these fields, once there are so many: a line comes after its event."""

        def look() -> list[dict[str, Any]] | None:
            lines = (line for line in self.log_lines() if line["event"] in events)
            found = [line for line in lines if fields.items() <= line.items()]
            return found if len(found) >= count else None

        return wait_until(look, within_s=within_s, what=f"{count} lines of {', '.join(events)}")

    def wait_tasks_logged(self, count: int) -> list[dict[str, Any]]:
        """The lines of terminal tasks, once there are as many."""
        return self.wait_lines(*TASK_LINES, count=count)

    def tasks_logged(self) -> list[dict[str, Any]]:
        """Those that are there by now."""
        return [line for line in self.log_lines() if line["event"] in TASK_LINES]

    # HTTP -------------------------------------------------------------------------------------------------------

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = REPLY_WITHIN_S,
    ) -> Reply:
        """One request over TCP."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            return self._ask(connection, method, path, body, {**self.headers, **(headers or {})})
        finally:
            connection.close()

    @staticmethod
    def _ask(
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: object,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        payload = None if body is None else json.dumps(body).encode()
        given = {"Content-Type": "application/json"} if payload is not None else {}
        connection.request(method, path, payload, {**given, **(headers or {})})
        return Reply(connection.getresponse())

    def ask_control(self, method: str, path: str, body: object = None) -> Reply:
        """One request over the control socket."""
        connection = UnixConnection(str(self.socket_path))
        try:
            return self._ask(connection, method, path, body)
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        """The whole host."""
        found: dict[str, Any] = self.ask_control("GET", "/v1/status").json
        return found

    def pool(self, pool_id: str) -> dict[str, Any]:
        """One pool."""
        found: dict[str, Any] = self.ask("GET", f"/v1/pools/{pool_id}/health").json
        return found

    def submit(self, **fields: object) -> Reply:
        """POST a task; see `a_request`."""
        reply = self.ask("POST", "/v1/tasks", a_request(**fields))
        if reply.status == 202:
            self.accepted[str(reply.json["task_id"])] = dict(self.headers)
        return reply

    def accept(self, **fields: object) -> str:
        """Submit a task that must be accepted; gives its task id."""
        reply = self.submit(**fields)
        assert reply.status == 202, reply.body
        task_id: str = reply.json["task_id"]
        return task_id

    @contextlib.contextmanager
    def open_stream(self, task_id: str, after: int | None = None) -> Iterator[Iterator[Event]]:
        """The events of a task's stream, as they come."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REPLY_WITHIN_S)
        try:
            headers = self.headers | ({} if after is None else {"Last-Event-ID": str(after)})
            connection.request("GET", f"/v1/tasks/{task_id}/stream", headers=headers)
            response = connection.getresponse()
            assert response.status == 200, response.read()
            yield parse_events(response)
        finally:
            connection.close()

    def read_stream(self, task_id: str, after: int = 0) -> Stream:
        """The whole stream, checked."""
        with self.open_stream(task_id, after or None) as events:
            return Stream(list(events)).check(after=after)

    def wait_terminal(self, task_id: str, within_s: float = 60.0) -> dict[str, Any]:
        """The task once it is over."""

        def look() -> dict[str, Any] | None:
            view: dict[str, Any] = self.ask("GET", f"/v1/tasks/{task_id}").json
            return view if view["state"] in {"ended", "failed"} else None

        return wait_until(look, within_s=within_s, what=f"the end of {task_id}")

    def series(self, name: str) -> dict[str, float]:
        """The samples of one metric: labels as text -> value."""
        page = self.ask("GET", "/metrics").body.decode()
        rows = [line.rsplit(" ", 1) for line in page.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
        return {labels.removeprefix(name): float(value) for labels, value in rows}


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the control socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=REPLY_WITHIN_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def a_request(**fields: object) -> dict[str, object]:
    """A complete, valid task; give what matters. `inputs` stand in place of the prompt."""
    request: dict[str, object] = {
        "task_id": str(uuid.uuid4()),
        "session_id": str(uuid.uuid4()),
        "workload": "completion",
        "model_ref": "tiny",
        "engine": "llamacpp",
        "ctx": 512,
        "priority": "interactive",
        "max_tokens": 16,
        "deadline_ms": 60_000,
        "prompt": "hello",
    }
    if "inputs" in fields:
        del request["prompt"]
    return {**request, **fields}
