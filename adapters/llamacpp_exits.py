"""Explains why a llama.cpp process is gone, from its exit status and the tail of its output.

Order of proof: 1 a clean end; 2 a signal that says it all; 3 text about device memory; 4 text about host memory; 5
other CUDA errors and a missing GPU; 6 what was wrong with the launch; 7 the bare status. A kill without any text is
only called a kill: whether the kernel did it for want of memory is for the caller to prove (cgroup counter, kernel
log). Messages of level debug, trace and info are not evidence, because prompts may stand in them. Texts are those of
builds 11434 to 11549.
"""

import re
import signal
from collections.abc import Mapping

from adapters.base import ExitExplanation, ExitKind

DETAIL_CHARS_MAX = 160

_SHELL_SIGNAL_BASE = 128
_CHATTER = re.compile(
    r'^(?:[\d.]+ [DT] .*(?:\n(?![\d.]+ [A-Z] |\{"type":).*)*|[\d.]+ I .*|'
    r'\{"type":"log".*"level":"(?:debug|trace|info)").*$',
    re.MULTILINE,
)
"""A message of level debug or trace may have several lines, of which only the first has a head."""


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE | re.MULTILINE)


_TEXTS: tuple[tuple[re.Pattern[str], ExitKind, str], ...] = (
    # 3
    (
        _pattern(
            r"(?:cuda|hip)Malloc failed: out of memory|CUDA error: out of memory|CUDA_ERROR_OUT_OF_MEMORY"
            r"|CUBLAS_STATUS_ALLOC_FAILED|cudaErrorMemoryAllocation|allocating [\d.]+ MiB on device \d+"
            r"|(?:failed|unable) to allocate (?:CUDA|ROCm)\d+ buffer"
        ),
        ExitKind.OOM_VRAM,
        "the GPU has too little free memory for the model and its context",
    ),
    # 4
    (
        _pattern(
            r"(?:failed|unable) to allocate (?:CPU|CUDA_Host)\w* buffer|std::bad_alloc"
            r"|cannot allocate memory|insufficient memory \(attempted to allocate|^MemoryError"
        ),
        ExitKind.HOST_ALLOC,
        "the engine was given no more host memory",
    ),
    # 3, without a word about which memory: on a GPU host these buffers are the device's.
    (
        _pattern(r"failed to allocate (?:compute (?:pp |tg )?buffers|buffer for (?:kv|rs) cache)"),
        ExitKind.OOM_VRAM,
        "the GPU has too little free memory for the context",
    ),
    # 5
    (
        _pattern(r"failed to initialize CUDA|no CUDA-capable device"),
        ExitKind.NO_GPU,
        "the engine found no usable GPU",
    ),
    (_pattern(r"CUDA error: ?(?P<detail>[^\n\"\\]*)"), ExitKind.CUDA_ERROR, "a CUDA call failed"),
    # 6
    (
        _pattern(r"couldn't bind HTTP server socket(?:, hostname: \S+, port: (?P<detail>\d+))?|address already in use"),
        ExitKind.PORT_IN_USE,
        "another process holds the engine's port",
    ),
    (
        _pattern(
            r"invalid argument: (?P<detail>\S+)"
            r"|error while handling (?:argument|environment variable) (?P<quoted>\"[^\"]*\")"
            r"|expected value for argument|unknown value for"
        ),
        ExitKind.BAD_FLAG,
        "the engine does not know an argument it was given",
    ),
    (
        _pattern(r"failed to open GGUF file '(?P<detail>[^'\n]*)' \(No such file or directory\)"),
        ExitKind.MODEL_MISSING,
        "the model file does not exist",
    ),
    (
        _pattern(r"unknown model architecture: (?P<detail>'[^'\n]*')"),
        ExitKind.MODEL_BAD,
        "the engine does not know the model's architecture",
    ),
    (
        _pattern(r"tensor (?P<detail>'[^'\n]*') data is not within the file bounds"),
        ExitKind.MODEL_BAD,
        "the model file is cut short",
    ),
    (
        _pattern(
            r"invalid magic|failed to read (?:magic|key|tensor)|error loading model|exiting due to model loading error"
        ),
        ExitKind.MODEL_BAD,
        "the engine could not load the model file",
    ),
)

_SIGNALS: Mapping[int, tuple[ExitKind, str]] = {
    signal.SIGKILL: (ExitKind.KILLED, "the engine was killed (SIGKILL), not by itself"),
    signal.SIGILL: (ExitKind.ILLEGAL_INSTRUCTION, "the engine was built for another CPU (SIGILL)"),
}
_SAYS_NO_GPU = "no usable GPU found"
"""A build without CUDA says so in every run, so that it proves something only where nothing else does."""
_NOT_RUN = frozenset({126, 127})
"""What a shell or env(1) exits with for a command that it cannot run."""
_STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


def explain_exit(returncode: int, tail: str) -> ExitExplanation:
    """Kind and cause of an exit. `returncode` as subprocess gives it; a shell's 128 + n counts as signal n."""
    number = _signal_of(returncode)
    if returncode == 0 or number in _STOP_SIGNALS or "Received second interrupt" in tail:  # 1
        return ExitExplanation(ExitKind.STOPPED, "the engine ended in good order")
    if number == signal.SIGILL:  # 2
        return ExitExplanation(*_SIGNALS[number])
    if returncode in _NOT_RUN:
        return ExitExplanation(ExitKind.BINARY_MISSING, "the command of the engine does not exist or may not be run")
    if (found := _from_text(_CHATTER.sub("", tail))) is not None:  # 3 to 6
        return found
    if number is not None:  # 7
        if number in _SIGNALS:
            return ExitExplanation(*_SIGNALS[number])
        return ExitExplanation(ExitKind.CRASHED, f"the engine crashed ({_name(number)})")
    if _SAYS_NO_GPU in tail:
        return ExitExplanation(ExitKind.NO_GPU, "the engine found no usable GPU")
    return ExitExplanation(ExitKind.CRASHED, f"the engine exited with status {returncode} and no known reason")


def _signal_of(returncode: int) -> int | None:
    if returncode < 0:
        return -returncode
    number = returncode - _SHELL_SIGNAL_BASE
    return number if 0 < number < signal.NSIG else None


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _from_text(tail: str) -> ExitExplanation | None:
    for pattern, kind, cause in _TEXTS:
        if (match := pattern.search(tail)) is None:
            continue
        groups = match.groupdict()
        detail = (groups.get("detail") or groups.get("quoted") or "").strip()[:DETAIL_CHARS_MAX]
        return ExitExplanation(kind, f"{cause}: {detail}" if detail else cause)
    return None
