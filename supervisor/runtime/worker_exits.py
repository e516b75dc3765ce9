"""Gathers what proves why a worker's process is gone, and says it as one event (ORCH-3039).

The weighing is `exit_proof`'s. Reads the tail of the engine's own output, the counter of its control group and the
kernel's messages, in a side thread. Each of them may be missing: the event comes all the same, and soon.
"""

import asyncio
import logging
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

from adapters.base import Adapter, ExitKind
from supervisor.core.events import EngineExited
from supervisor.runtime import engine_logs
from supervisor.runtime.exit_proof import ExitEvidence, explain
from supervisor.runtime.kernel_oom import is_killed_by_kernel
from supervisor.runtime.side_thread import NoThreadError, call_aside

EXIT_UNKNOWN = "the engine has ended; how is unknown, as the daemon that started it was gone"
PROOFS_WITHIN_S = 2.0
"""A dead worker must not look alive for longer, whatever its disk does."""
_US_PER_S = 1_000_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that has ended: who it was, the mark of its run in its log, and what is known already."""

    pool_id: str
    incarnation: int
    pid: int
    start_ticks: int
    run: str
    log_path: Path
    returncode: int | None
    oom_kills: int | None
    is_tainted: bool


async def read_exit_cause(ended: Ended, adapter: Adapter, within_s: float = PROOFS_WITHIN_S) -> EngineExited:
    """The event that the core is told, after `within_s` seconds at the latest."""
    key = (ended.pool_id, ended.incarnation)
    if ended.returncode is None and not ended.oom_kills:
        return EngineExited(*key, kind=ExitKind.CRASHED, cause=EXIT_UNKNOWN)
    evidence = await _gather_aside(ended, within_s)
    found = explain(adapter.explain_exit, evidence)
    return EngineExited(*key, kind=found.kind, cause=found.cause)


async def _gather_aside(ended: Ended, within_s: float) -> ExitEvidence:
    bare = ExitEvidence(
        returncode=-signal.SIGKILL if ended.returncode is None else ended.returncode,
        tail="",
        oom_kills=ended.oom_kills,
        is_tainted=ended.is_tainted,
    )
    try:
        gathering = call_aside(lambda: _gather(ended, bare), name="exit proof")
    except NoThreadError:
        return bare
    done, _ = await asyncio.wait([gathering], timeout=within_s)
    bug = gathering.exception() if done else None
    if done and bug is None:
        return gathering.result()
    facts = {"pool_id": ended.pool_id, "incarnation": ended.incarnation, "within_s": within_s}
    log.error("what proves an exit could not be gathered", extra=facts, exc_info=bug)
    return bare


def _gather(ended: Ended, bare: ExitEvidence) -> ExitEvidence:
    is_killed = ended.returncode == -signal.SIGKILL and not ended.oom_kills
    since_us = ended.start_ticks * _US_PER_S // os.sysconf("SC_CLK_TCK")
    return replace(
        bare,
        tail=_last_words(ended),
        is_named_by_kernel=is_killed and is_killed_by_kernel(ended.pid, since_us=since_us),
    )


def _last_words(ended: Ended) -> str:
    """None where the log cannot be read: the other proofs still count."""
    try:
        return engine_logs.tail(ended.log_path, run=ended.run)
    except OSError as error:
        facts = {"pool_id": ended.pool_id, "cause": error.strerror}
        log.error("the log of an engine that ended cannot be read", extra=facts)  # noqa: TRY400
        return ""
