"""What happened in a simulated world: one line per event and effect, hashed; the last lines are kept for a failure."""

from collections import deque
from hashlib import blake2b

from supervisor.core.effects import Effect
from supervisor.core.events import Event
from supervisor.core.refusals import Refused
from supervisor.core.tasks import Outcome, Task

LINES_KEPT = 60


class Story:
    """Grows by lines. Equal digests mean equal stories."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)
        self.last: deque[str] = deque(maxlen=LINES_KEPT)
        self.length = 0

    def add(self, now_ms: float, arrow: str, what: Event | Effect | str) -> None:
        line = f"{now_ms:>12.3f} {arrow} {what if isinstance(what, str) else _words(what)}"
        self._hash.update(line.encode() + b"\n")
        self.last.append(line)
        self.length += 1

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


def _words(what: Event | Effect) -> str:
    values = (_value(getattr(what, name)) for name in what.__struct_fields__)
    return f"{type(what).__name__}({' '.join(values)})"


def _value(value: object) -> str:
    match value:
        case Task(job_id=job_id):
            return job_id
        case Refused(code=code, reason=reason):
            return f"{code}/{reason}"
        case Outcome(finish_reason=finish_reason, error=error, emitted=emitted):
            return f"{finish_reason if error is None else _value(error)}#{emitted}"
        case tuple():
            return "[" + ",".join(_value(each) for each in value) + "]"
        case _:
            return repr(value)
