"""What the tests of engine processes arrange with: an order, a recorder of exits, and questions to /proc."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from supervisor.runtime.processes import EngineProcess, ProcessBounds, Processes
from supervisor.runtime.processes_env import SpawnOrder

GPU = "GPU-5111a7ed-0000-4000-8000-000000000000"
PATIENT = ProcessBounds(spawn_s=20, kill_s=20, sweep_s=20)
INSTANCE = f"test-{os.getpid()}"


def order_of(folder: Path, *argv: str, env: Mapping[str, str] | None = None) -> SpawnOrder:
    """An order with its log in `folder`."""
    return SpawnOrder("pool-a", argv, env or {}, (GPU,), folder, folder / "pool-a.log")


def python(code: str) -> tuple[str, ...]:
    """argv of a small program."""
    return (sys.executable, "-S", "-E", "-c", code)


class Exits:
    """Remembers who ended, and how."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int | None]] = []
        self._news = asyncio.Event()

    def __call__(self, pid: int, returncode: int | None) -> None:
        """The callback of a spawn."""
        self.seen.append((pid, returncode))
        self._news.set()

    async def first(self) -> tuple[int, int | None]:
        """The first exit, waited for."""
        async with asyncio.timeout(20):
            await self._news.wait()
        return self.seen[0]


@asynccontextmanager
async def processes(**environ: str) -> AsyncIterator[Processes]:
    """Engine processes that are all gone afterwards."""
    every = Processes(instance=INSTANCE, environ={**os.environ, **environ}, bounds=PATIENT)
    try:
        yield every
    finally:
        await every.close()


def environ_of(engine: EngineProcess) -> dict[str, str]:
    """The environment it was started with; empty while the kernel is still putting the program in its place."""
    entries = Path(f"/proc/{engine.pid}/environ").read_text().rstrip("\0").split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


def is_alive(pid: int) -> bool:
    """Whether it runs, a process that was only not waited for not counting."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def status_of(pid: int) -> dict[str, str]:
    """The lines of its /proc status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def descriptors_of(pid: int) -> dict[str, str]:
    """What its descriptors point to."""
    return {path.name: str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}


def oom_score_of(pid: int) -> int:
    """Its adjustment for the kernel's choice of a victim."""
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def is_there(pid: int) -> bool:
    """Whether the kernel knows it, if only as a zombie."""
    return Path(f"/proc/{pid}").exists()
