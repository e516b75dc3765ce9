"""Why an engine process is gone, by the strength of what proves it (ORCH-3039). Pure; reads nothing.

1. The counter of its own cgroup moved: the kernel killed in it for want of memory. The host's (or the limit's) fault.
2. It was killed by SIGKILL, and a line of the kernel names its pid: the same.
3. Its last words, as its adapter reads them; only where the process ended by itself. After a kill they prove nothing,
   and nothing either once it was given a text that holds such words: an engine may log what it is given.
4. SIGKILL without any of these: somebody killed it, nobody knows why, and it was no want of memory.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass

from adapters.base import ExitExplanation, ExitKind

HOST_OOM = "the kernel killed the engine for want of host memory"
LIMIT_OOM = "the kernel killed the engine for want of host memory (counted by its own cgroup)"
BY_WORDS = frozenset({ExitKind.OOM_VRAM, ExitKind.HOST_ALLOC, ExitKind.CUDA_ERROR, ExitKind.NO_GPU})
"""Kinds that follow from words and have consequences beyond the worker: for a learned need, or for a GPU."""
OF_MEMORY = {ExitKind.OOM_VRAM: "vram", ExitKind.OOM_HOST: "host", ExitKind.HOST_ALLOC: "host_alloc"}
"""Which of the kinds are about memory, and what the metric calls them."""
OF_DEVICE = frozenset({ExitKind.OOM_VRAM, ExitKind.CUDA_ERROR, ExitKind.NO_GPU})
"""After which the devices are looked at again (ORCH-3038)."""

_ABORTED = -int(signal.SIGABRT)
_HINTS = (b"memory", b"cuda", b"alloc", b"gpu")
"""Each text that classifies an exit holds one of these: a cheap first look at what an engine is given."""

Explain = Callable[[int, str], ExitExplanation]
"""An adapter's reading of a return code and the tail of the output."""


@dataclass(frozen=True, slots=True)
class ExitEvidence:
    """What was found. `oom_kills` is the counter of the worker's cgroup, None where it has none that counts.

    `is_named_by_kernel`: the kernel says that it killed this process for want of memory. `is_tainted`: the engine was
    given a text that would itself pass for last words.
    """

    returncode: int
    tail: str
    oom_kills: int | None = None
    is_named_by_kernel: bool = False
    is_tainted: bool = False


def explain(explain_words: Explain, found: ExitEvidence) -> ExitExplanation:
    """The one sentence and the kind."""
    if found.oom_kills:  # 1
        return ExitExplanation(ExitKind.OOM_HOST, LIMIT_OOM)
    is_killed = found.returncode in {-signal.SIGKILL, 128 + signal.SIGKILL}
    if is_killed and found.is_named_by_kernel:  # 2
        return ExitExplanation(ExitKind.OOM_HOST, HOST_OOM)
    if is_killed:  # 4
        return explain_words(found.returncode, "")
    said = explain_words(found.returncode, found.tail)  # 3
    if found.is_tainted and said.kind in BY_WORDS:
        return explain_words(found.returncode, "")
    return said


def taints(explain_words: Explain, given: bytes) -> bool:
    """Whether a text for the engine holds words that would explain an exit, were they the engine's own."""
    lowered = given.lower()
    if not any(hint in lowered for hint in _HINTS):
        return False
    return explain_words(_ABORTED, given.decode(errors="replace")).kind in BY_WORDS
