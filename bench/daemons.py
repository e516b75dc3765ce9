"""The daemon under test: its generated config, its start and end, and what it says of its pools. Measures nothing."""

import contextlib
import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from bench.load import Mode
from bench.middles import EngineSpeed, Middle, Place
from bench.processes import argument_of, children, free_port, start, stop, tail_of, wait_listening

READY_S_MAX = 60
STEP_S = 0.02
QUEUE_BYTES_MAX = 4 << 30
WALL_MS = 86_400_000
POOL = "bench"
MODEL = "bench"


@dataclass(frozen=True, slots=True)
class Setting:
    """A daemon's config as far as the runs differ: its engine's speed, how many pools, how long the queue."""

    speed: EngineSpeed
    pools: int = 1
    queue_max: int = 4096
    grace_ms: int = 1_000

    def document(self, place: Place, folder: Path, port: int) -> dict[str, object]:
        """The config as plain data; everything not said here is the daemon's default, durability `full` included."""
        model = folder / "bench.gguf"
        model.write_bytes(b"GGUF")
        digest = f"sha256:{hashlib.sha256(model.read_bytes()).hexdigest()}"
        return {
            "listen": {"host": "127.0.0.1", "port": port, "socket": str(folder / "control.sock")},
            "state_dir": str(folder / "state"),
            "durability": "full",
            "models": {MODEL: {"path": str(model), "digest": digest}},
            "stream": {"disconnect_grace_ms": self.grace_ms},
            "shutdown": {"drain_ms": 0},
            "pools": [self._pool(place, index) for index in range(self.pools)],
        }

    def _pool(self, place: Place, index: int) -> dict[str, object]:
        return {
            "id": POOL if index == 0 else f"{POOL}-{index}",
            "engine": "llamacpp",
            "model": MODEL,
            "ctx": self.speed.ctx,
            "devices": [index],
            "slots": self.speed.slots,
            "determinism": "best_effort",
            "queue": {"capacity": self.queue_max, "full_policy": "reject", "bytes_max": QUEUE_BYTES_MAX},
            "timeouts": {"wall_ms": WALL_MS, "idle_ms": WALL_MS},
            "launch": {"command": self.speed.argv(place, "{port}")},
        }


@dataclass(frozen=True, slots=True)
class Daemon:
    """A started daemon. `listening_s` is the time from its start to its first answer."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path
    listening_s: float

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def engines(self) -> list[int]:
        """Its engine processes."""
        return children(self.pid)

    def health(self, pool_id: str = POOL) -> dict[str, object]:
        """`GET /v1/pools/:id/health`."""
        return _get(self.port, f"/v1/pools/{pool_id}/health")[1]

    def waiting(self) -> int:
        """Waiting tasks of the first pool, as the daemon counts them."""
        metrics = self.health()["metrics"]
        assert isinstance(metrics, dict)
        return int(metrics["waiting"])

    def wait_ready(self, pools: int = 1) -> None:
        """Until every pool is Ready. Raises RuntimeError with the pool's own cause."""
        deadline = time.monotonic() + READY_S_MAX
        for pool_id in [POOL, *(f"{POOL}-{index}" for index in range(1, pools))]:
            while not (health := self.health(pool_id)).get("ready"):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{pool_id} is not Ready: {health} {tail_of(self.folder / 'daemon.log')}")
                time.sleep(STEP_S)

    def middle(self) -> Middle:
        """The daemon as something to put load on."""
        engine_port = argument_of(self.engines()[0], "--port")
        assert engine_port is not None
        return Middle("orchctl", Mode.TASKS, self.port, self.pid, int(engine_port))

    def kill(self) -> None:
        """SIGKILL, engines included: a power cut as far as processes go."""
        engines = self.engines()
        self.process.kill()
        self.process.wait()
        for pid in engines:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _get(port: int, path: str) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        answer: dict[str, object] = json.loads(response.read() or b"{}")
        return response.status, answer
    finally:
        connection.close()


def start_daemon(place: Place, setting: Setting, folder: Path) -> Daemon:
    """Start it on `folder`, which may hold the state of an earlier one, and wait for its first answer."""
    port = free_port()
    config = folder / "bench.yaml"
    config.write_text(yaml.safe_dump(setting.document(place, folder, port), sort_keys=False))
    argv = [sys.executable, "-m", "supervisor", "--config", str(config), "--simulate-gpus", f"{setting.pools}x8GiB"]
    began = time.monotonic()
    log = folder / "daemon.log"
    process = start(argv, place.cpus.middle, log)
    try:
        wait_listening(port, process, log)
        _get(port, "/healthz")
    except BaseException:
        stop(process)
        raise
    return Daemon(process, port, folder, time.monotonic() - began)


@contextlib.contextmanager
def daemon(place: Place, setting: Setting, folder: Path | None = None) -> Iterator[Daemon]:
    """A daemon with every pool Ready; afterwards it and its engines are gone."""
    with tempfile.TemporaryDirectory(dir=place.folder, ignore_cleanup_errors=True) as fresh:
        one = start_daemon(place, setting, folder or Path(fresh))
        engines: list[int] = []
        try:
            one.wait_ready(setting.pools)
            engines = one.engines()
            yield one
        finally:
            stop(one.process)
            for pid in engines:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def orchctl(place: Place, speed: EngineSpeed) -> Iterator[Middle]:
    """The daemon in the same form as the other middle processes."""
    with daemon(place, Setting(speed)) as one:
        yield one.middle()
