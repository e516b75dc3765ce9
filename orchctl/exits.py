"""How a verb ends: the exit codes, and the one sentence that goes with each that is not 0.

Decides which code an answer of the daemon becomes. Prints nothing and never ends the process.
"""

from enum import IntEnum

from orchctl.spans import spoken
from supervisor.wire.codes import Code, Reason
from supervisor.wire.errors import ErrorEnvelope


class ExitCode(IntEnum):
    """The exit codes of every verb. 69 to 78 are those of sysexits.h; above 128 stands 128 + signal, as in a shell."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 69
    TRY_LATER = 75
    NOT_PERMITTED = 77
    CONFIG = 78
    INTERRUPTED = 130
    PIPE_CLOSED = 141


class VerbError(Exception):
    """A verb cannot go on. `cause` is a clause without a full stop; `next_step` says what to try, as an imperative."""

    def __init__(self, code: ExitCode, cause: str, next_step: str | None = None) -> None:
        super().__init__(cause)
        self.code = code
        self.cause = cause
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.cause}; {self.next_step}" if self.next_step else self.cause


class PipeClosedError(Exception):
    """Whoever read standard output has left; there is nobody to tell anything."""


class UnreachableError(VerbError):
    """No daemon answered, or it went away in the middle of an answer. Asking again may help."""

    def __init__(self, cause: str, next_step: str) -> None:
        super().__init__(ExitCode.UNREACHABLE, cause, next_step)


class RefusedError(VerbError):
    """The daemon answered with an error envelope."""

    def __init__(self, envelope: ErrorEnvelope, next_step: str | None = None) -> None:
        super().__init__(exit_code_of(envelope), _clause(envelope.message), next_step or advice(envelope))
        self.envelope = envelope


def usage(cause: str, next_step: str | None = None) -> VerbError:
    """The command line asks for something that cannot be meant."""
    return VerbError(ExitCode.USAGE, cause, next_step)


def exit_code_of(envelope: ErrorEnvelope) -> ExitCode:
    """77 where the caller lacks the right, 78 for a bad config, 75 where the same request may work later, else 1."""
    if envelope.reason in (Reason.AUTH, Reason.SCOPE):
        return ExitCode.NOT_PERMITTED
    if envelope.reason in (Reason.CONFIG, Reason.RESTART):
        return ExitCode.CONFIG
    return ExitCode.TRY_LATER if envelope.retriable else ExitCode.FAILED


_OF_REASON = {
    Reason.CONFIG: "mend the file, then `orchctl reload`",
    Reason.RESTART: "restart the daemon for it, or take that change back and `orchctl reload`",
    Reason.AUTH: "run it as root or as the user of the daemon",
    Reason.SCOPE: "run it as root or as the user of the daemon",
    Reason.DEADLINE: "give it more time with `--deadline`, or try again when less is waiting",
    Reason.DEVICE: "see the GPUs with `orchctl status`",
}
_OF_POOL = {
    Reason.NOT_FOUND: "see what serves it with `orchctl rollout status {pool_id}`",
    Reason.DRAINING: "put it back into service with `orchctl resume {pool_id}`",
    Reason.MODEL: "see the models with `orchctl models list`",
}
"""Only where the refusal names a pool."""


def advice(envelope: ErrorEnvelope) -> str | None:
    """What to try after a refusal, None where its message is all there is to say.

    1. a right is missing: become somebody who has it; time ran out: give more; a config: mend it, or restart for it; no
    such GPU: look which there are; 2. of a pool: drained, resume it; nothing is under way, look what serves it; no such
    model, look which there are; 3. a pool is not serving: look why; 4. anything else that is retriable: the same again,
    after the daemon's own hint; 5. a bug of the daemon: its log has the correlation id.
    """
    reason = envelope.reason if isinstance(envelope.reason, str) else ""
    if reason in _OF_REASON:  # 1
        return _OF_REASON[Reason(reason)]
    if reason in _OF_POOL and isinstance(envelope.pool_id, str):  # 2
        return _OF_POOL[Reason(reason)].format(pool_id=envelope.pool_id)
    if envelope.code in (Code.POOL_UNREADY, Code.POOL_UNAVAILABLE, Code.REPLICA_EXHAUSTED):
        pool = f" {envelope.pool_id}" if isinstance(envelope.pool_id, str) else ""
        return f"see why with `orchctl status{pool}`"
    if envelope.retriable:
        wait_ms = envelope.retry_after_ms if isinstance(envelope.retry_after_ms, int) else 0
        return f"try the same again in {spoken(-(-wait_ms // 1000) * 1000)}" if wait_ms else "try the same again"
    if envelope.code is Code.INTERNAL:
        return f"look for {envelope.correlation_id} in the log of the daemon"
    return None


def _clause(sentence: str) -> str:
    """The sentence as the first half of another: without its full stop, and small unless it begins with a name."""
    clause = sentence.strip().rstrip(".")
    return clause[:1].lower() + clause[1:] if clause[1:2].islower() or clause[1:2] == " " else clause
