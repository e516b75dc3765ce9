"""What a daemon takes of the host at one moment: its memory, and each descriptor by what it stands for."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

TO_ENGINE = "connection to an engine"
"""Kept alive between two runs, so bounded by the slots and not constant."""
CONTROL = "unix socket"
MODEL_FILE = "model file"
SPARE = "spare descriptor"
"""The event loop keeps one, to refuse a connection when there is none left; it opens it on / or on /dev/null."""


@dataclass(frozen=True)
class Footprint:
    """One process at one moment. `rss` in bytes."""

    pid: int
    rss: int
    fds: Counter[str]

    @property
    def rss_mib(self) -> float:
        """Resident memory."""
        return self.rss / 2**20

    def grown(self, before: "Footprint", engine_connections_max: int) -> Counter[str]:
        """What is open now and was not before, by kind."""
        more = self.fds - before.fds
        if self.fds[TO_ENGINE] <= engine_connections_max:
            del more[TO_ENGINE]
        return more


def footprint(pid: int) -> Footprint:
    """Of a process that runs; psutil.NoSuchProcess else."""
    process = psutil.Process(pid)
    connections = process.net_connections("inet")
    ports = {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}
    sockets = {
        each.fd: "listening socket"
        if each.status == psutil.CONN_LISTEN
        else ("connection of a client" if each.laddr.port in ports else TO_ENGINE)
        for each in connections
    }
    kinds: Counter[str] = Counter()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue  # closed while we looked
        kinds[_kind(target, sockets.get(int(entry.name)))] += 1
    return Footprint(pid, process.memory_info().rss, kinds)


def steady(looks: list[Footprint]) -> Footprint:
    """The least of each kind: what comes and goes by itself is in none of the looks for long."""
    kinds = set[str]().union(*(look.fds for look in looks))
    least = Counter({kind: min(look.fds[kind] for look in looks) for kind in kinds})
    return Footprint(looks[0].pid, looks[-1].rss, +least)


def _kind(target: str, connection: str | None) -> str:
    if connection is not None:
        return connection
    if target.startswith("socket:"):
        return CONTROL
    if target.startswith("/"):
        if target.endswith(".gguf"):
            return MODEL_FILE
        return SPARE if target in {"/", "/dev/null"} else f"file {target.rpartition('/')[2]}"
    return target.split(":[", maxsplit=1)[0]
