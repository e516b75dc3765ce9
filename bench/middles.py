"""The processes that are measured, each with a fake engine behind it: nothing at all, nginx, and the daemon."""

import contextlib
import http.client
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.load import Load, LoadPlan, Mode, run_load
from bench.native import Tools
from bench.processes import POLL_S, Cpus, children, free_port, running, wait_listening

WORKER_S_MAX = 5
NGINX_PATHS = ("nginx", "/usr/sbin/nginx")
NGINX_CONFIG = """\
{user}worker_processes 1;
daemon off;
pid {dir}/nginx.pid;
error_log {dir}/nginx.log warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    tcp_nodelay on;
    keepalive_requests 1000000;
    upstream engine {{ server 127.0.0.1:{engine_port}; keepalive 1024; keepalive_requests 1000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://engine;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 600s;
        }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where and with what a run works: compiled tools, CPUs, and a folder on a real disk."""

    tools: Tools
    cpus: Cpus
    folder: Path

    def run(self, plan: LoadPlan) -> Load:
        """Run the load generator on its CPU."""
        return run_load(plan, self.tools.loadgen, self.cpus.load)


@dataclass(frozen=True, slots=True)
class EngineSpeed:
    """The fake engine: a token of each stream every `tick_ms`, or as fast as sockets take them (0)."""

    tick_ms: float = 20
    slots: int = 256
    ctx: int = 4096

    def argv(self, place: Place, port: str) -> list[str]:
        """Its command line; `port` may be a placeholder."""
        options = {
            "port": port,
            "slots": self.slots,
            "ctx": self.ctx,
            "tick-ms": self.tick_ms,
            "cpu": place.cpus.engine,
        }
        return [str(place.tools.engine), *(word for key, value in options.items() for word in (f"--{key}", str(value)))]


@dataclass(frozen=True, slots=True)
class Middle:
    """Something to put load on. `pid` is the process whose CPU time counts."""

    name: str
    mode: Mode
    port: int
    pid: int
    engine_port: int

    def engine_ticks_missed(self) -> int:
        """How many ticks the engine was too late for, ever; it must not grow in a paced run."""
        return int(get_json(self.engine_port, "/bench")["ticks_missed"])


def get_json(port: int, path: str) -> dict[str, int]:
    """A small JSON object from a server of this run. Raises OSError, ValueError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer: dict[str, int] = json.loads(connection.getresponse().read())
        return answer
    finally:
        connection.close()


@contextlib.contextmanager
def direct(place: Place, speed: EngineSpeed) -> Iterator[Middle]:
    """The bare engine, nothing in the middle."""
    port = free_port()
    log = place.folder / "engine.log"
    with running(speed.argv(place, str(port)), place.cpus.engine, log) as process:
        wait_listening(port, process, log)
        yield Middle("direct", Mode.DIRECT, port, process.pid, port)


def find_nginx() -> str | None:
    """The program, None where this host has none."""
    return next((path for path in map(shutil.which, NGINX_PATHS) if path), None)


@contextlib.contextmanager
def nginx(place: Place, speed: EngineSpeed) -> Iterator[Middle]:
    """The engine behind one nginx worker that does not buffer."""
    program, folder, port = find_nginx(), place.folder / "nginx", free_port()
    if program is None:
        raise FileNotFoundError("nginx")
    folder.mkdir(exist_ok=True)
    with direct(place, speed) as engine:
        config = folder / f"nginx-{port}.conf"
        user = "user root;\n" if Path("/").owner() == "root" and folder.owner() == "root" else ""
        config.write_text(NGINX_CONFIG.format(dir=folder, engine_port=engine.port, port=port, user=user))
        argv, log = [program, "-c", str(config), "-p", str(folder)], folder / "out.log"
        with running(argv, place.cpus.middle, log) as master:
            wait_listening(port, master, log)
            yield Middle("nginx", Mode.DIRECT, port, _worker_of(master), engine.port)


def _worker_of(master: subprocess.Popen[bytes]) -> int:
    """Its one worker; the port listens a moment before the worker is there."""
    deadline = time.monotonic() + WORKER_S_MAX
    while len(workers := children(master.pid)) != 1:
        if time.monotonic() > deadline:
            raise RuntimeError(f"nginx has {len(workers)} workers instead of one")
        time.sleep(POLL_S)
    return workers[0]
