"""Reads the heads of model files: each once for each state of its file, whoever asks and whatever its name.

A file is known by device, inode, size and the time of its last change, so one that was put in the place of another is
read anew. A file that is missing or says nothing is no error here: its digest is verified before anything runs, and
until a shape is known nothing is counted in bytes of KV. What is read before that is not believed any further.
"""

import logging
import os
import stat
import threading
from dataclasses import dataclass
from pathlib import Path

from supervisor.runtime.beside import Identity, identity_of
from supervisor.runtime.gguf import GgufError, ModelShape, parse_shape
from supervisor.runtime.gguf_tensors import ModelFacts, parse_facts

HEAD_BYTES = 1_048_576
HEAD_BYTES_MAX = 33_554_432
"""Where the first read is not enough: a tokenizer of a quarter of a million words."""

HEADS_MAX = 1_024
"""Heads that are remembered, the oldest goes first: files are replaced for as long as a daemon runs."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Head:
    """What one file says; None where it does not. A file whose tensors cannot be told may still have a shape."""

    shape: ModelShape | None
    facts: ModelFacts | None


_NOTHING = _Head(None, None)


class ModelHeads:
    """Knows the heads that it has read. Blocks; may be asked from several threads."""

    def __init__(self) -> None:
        self._known: dict[Identity, _Head] = {}
        self._lock = threading.Lock()

    def shape_of(self, path: Path) -> ModelShape | None:
        """None where it cannot be told."""
        try:
            return self._head_of(path).shape
        except OSError:
            return None

    def kv_bytes_per_token(self, path: Path) -> int:
        """Bytes of KV cache for one token of context, 0 where nobody knows."""
        shape = self.shape_of(path)
        return 0 if shape is None else shape.kv_bytes_per_token()

    def facts_of(self, path: Path) -> ModelFacts | None:
        """Shape, values and tensors of this file; None where they cannot be told. Raises OSError."""
        return self._head_of(path).facts

    def _head_of(self, path: Path) -> _Head:
        """It is opened only where no look at it is remembered."""
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return _NOTHING
        known = self._known.get(identity_of(status))
        return self._read(path) if known is None else known

    def _read(self, path: Path) -> _Head:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return _NOTHING
            head = _parse(fd, status.st_size, path.name)
        finally:
            os.close(fd)
        with self._lock:  # never around the reading: a disk that hangs holds up its own models alone
            self._known[identity_of(status)] = head
            while len(self._known) > HEADS_MAX:
                del self._known[next(iter(self._known))]
        return head


def _parse(fd: int, size: int, name: str) -> _Head:
    """The head is read in two bites: most fit the first one."""
    head, cause = b"", ""
    for bytes_max in (HEAD_BYTES, HEAD_BYTES_MAX):
        head = os.pread(fd, bytes_max, 0)
        try:
            facts = parse_facts(head, size)
        except GgufError as error:
            cause = str(error)
        else:
            return _Head(facts.shape if facts.shape.architecture else None, facts)
        if len(head) < bytes_max:
            break
    try:
        shape = parse_shape(head)
    except GgufError:
        shape = None
    what = "the shape of a model is not known" if shape is None else "the tensors of a model are not known"
    log.warning(what, extra={"model": name, "cause": cause})
    return _Head(shape, None)
