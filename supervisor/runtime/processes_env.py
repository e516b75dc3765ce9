"""What an engine process is started with, and the environment it gets: an allow-list, decided here and pure.

Of the daemon's own environment an engine sees two names: PATH, and LD_LIBRARY_PATH, because CUDA libraries outside of
the system's folders are found through it and it comes from the same operator as the engine's command line. Everything
else is fixed here or stands in the launch plan, so no credential of the daemon can leak into an engine. HOME does not
exist: an engine that wants a cache (CUDA_CACHE_PATH, HF_HOME) is given one by its plan.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from supervisor.runtime.cgroups import NO_WISH, GroupWish

MARK_NAME = "ORCHCTL_WORKER"
"""Inherited by all that an engine starts, and so what it left behind is found by it."""

PATH_DEFAULT = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_INHERITED = ("PATH", "LD_LIBRARY_PATH")
_RUNTIMES_OWN = frozenset({"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", MARK_NAME})
_SPILLS = frozenset({"GGML_CUDA_ENABLE_UNIFIED_MEMORY"})


class SpawnTrouble(StrEnum):
    """Why a process was not started."""

    REFUSED = "refused"
    BINARY_MISSING = "binary_missing"
    NOT_EXECUTABLE = "not_executable"
    FOLDER_MISSING = "folder_missing"
    LIMIT = "limit"
    LOG = "log"
    DEADLINE = "deadline"
    OTHER = "other"


class SpawnError(Exception):
    """The engine was not started, and nothing of it is left. The text is one sentence without paths or argv."""

    def __init__(self, kind: SpawnTrouble, cause: str) -> None:
        super().__init__(cause)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class SpawnOrder:
    """One engine process: no shell, `devices` are GPU UUIDs in mask order, `env` the plan's additions.

    `name` stands in the log's mark; it is the pool's id. `group` is what it may take of the host.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    devices: tuple[str, ...]
    cwd: Path
    log_path: Path
    group: GroupWish = NO_WISH


def engine_environ(order: SpawnOrder, *, daemon: Mapping[str, str], mark: str) -> dict[str, str]:
    """The whole environment of the engine.

    Raises:
        SpawnError: no device (ORCH-1101), or a variable that is not the plan's to set: the device mask, the mark, or
            what lets a model spill into the host's memory (ORCH-3018).
    """
    if not order.devices:
        raise SpawnError(SpawnTrouble.REFUSED, "no engine is started without a GPU")
    for name in order.env:
        if name in _RUNTIMES_OWN:
            raise SpawnError(SpawnTrouble.REFUSED, f"{name} is set by orchctl and not by a pool")
        if name in _SPILLS:
            raise SpawnError(SpawnTrouble.REFUSED, f"{name} would let the model spill into the host's memory")
    inherited = {name: daemon[name] for name in _INHERITED if daemon.get(name)}
    fixed = {
        MARK_NAME: mark,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(order.devices),
        "LANG": "C.UTF-8",
        "HOME": "/nonexistent",
        "PATH": PATH_DEFAULT,
    }
    return {**fixed, **inherited, **order.env}
