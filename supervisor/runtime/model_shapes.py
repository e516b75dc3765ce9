"""Reads the shape of each pool's model at start: the head of the file only, once for each file.

A file that is missing or that no shape can be read from is no error here: its digest is verified before anything runs,
and until a shape is known nothing is counted in bytes of KV. What is read before that is not believed any further.
"""

import logging
import os
import stat
from pathlib import Path

from supervisor.runtime.gguf import GgufError, ModelShape, parse_shape

HEAD_BYTES = 1_048_576
HEAD_BYTES_MAX = 33_554_432
"""Where the first read is not enough: a tokenizer of a quarter of a million words before the keys that count."""

log = logging.getLogger(__name__)


class ModelShapes:
    """Knows the shapes of the files that it has read."""

    def __init__(self) -> None:
        self._known: dict[Path, ModelShape | None] = {}

    def shape_of(self, path: Path) -> ModelShape | None:
        """None where it cannot be told."""
        if path not in self._known:
            self._known[path] = _read_shape(path)
        return self._known[path]

    def kv_bytes_per_token(self, path: Path) -> int:
        """Bytes of KV cache for one token of context, 0 where nobody knows."""
        shape = self.shape_of(path)
        return 0 if shape is None else shape.kv_bytes_per_token()


def _read_shape(path: Path) -> ModelShape | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return _parse(fd) if stat.S_ISREG(os.fstat(fd).st_mode) else None
    except (GgufError, OSError) as error:
        log.warning("the shape of a model is not known", extra={"model": path.name, "cause": str(error)})
        return None
    finally:
        os.close(fd)


def _parse(fd: int) -> ModelShape:
    head = os.pread(fd, HEAD_BYTES, 0)
    try:
        return parse_shape(head)
    except GgufError:
        if len(head) < HEAD_BYTES:
            raise
        return parse_shape(os.pread(fd, HEAD_BYTES_MAX, 0))
