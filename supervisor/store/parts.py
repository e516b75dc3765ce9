"""Which files make up a model: one file, every shard of a split GGUF, or a folder. Opens them, reads none."""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from supervisor.config.catalogue import FILES_MAX
from supervisor.store.beneath import open_beneath

DEPTH_MAX = 8
_SHARD = re.compile(r"(?P<stem>.+)-(?P<index>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf")
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


@dataclass(frozen=True, slots=True)
class Part:
    """An open file of a model. `name` is relative to the model's folder; `path` is where an engine finds it."""

    name: str
    path: Path
    fd: int


def shard_names(name: str) -> tuple[str, ...]:
    """The names of all shards that belong to the file of this name; its own alone where it is no shard."""
    match = _SHARD.fullmatch(name)
    if match is None:
        return (name,)
    count = int(match["count"])
    if not 1 <= int(match["index"]) <= count <= FILES_MAX:
        return (name,)
    return tuple(f"{match['stem']}-{index:05d}-of-{match['count']}.gguf" for index in range(1, count + 1))


@contextmanager
def open_model(path: Path, root: Path | None) -> Iterator[tuple[Part, ...]]:
    """Every file of the model at `path`, open for reading, in no order that means anything. Raises OSError.

    With `root` the model lies below it and no symbolic link is followed; without it the operator named the place.
    """
    with ExitStack() as stack:
        parts = []
        for name, each, fd in _opened(path, root):
            stack.callback(os.close, fd)
            parts.append(Part(name, each, fd))
            if len(parts) > FILES_MAX:
                raise OSError(errno.E2BIG, f"more than {FILES_MAX} files", str(path))
        if not parts:
            raise FileNotFoundError(errno.ENOENT, "has no file in it", str(path))
        yield tuple(parts)


def _opened(path: Path, root: Path | None) -> Iterator[tuple[str, Path, int]]:
    fd = _open(path, root)
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        try:
            yield from _folder(fd, path, root, "")
        finally:
            os.close(fd)
        return
    yield path.name, path, _regular(fd, path)
    for name in shard_names(path.name):
        if name != path.name:
            each = path.with_name(name)
            yield name, each, _regular(_open(each, root), each)


def _folder(fd: int, path: Path, root: Path | None, prefix: str) -> Iterator[tuple[str, Path, int]]:
    """Files below a folder. Names that begin with a dot are no part of a model."""
    if prefix.count("/") > DEPTH_MAX:
        raise OSError(errno.ELOOP, f"more than {DEPTH_MAX} folders deep", str(path))
    for name in sorted(os.listdir(fd)):
        if name.startswith("."):
            continue
        each, inner = path / name, _open(path / name, root)
        if stat.S_ISDIR(os.fstat(inner).st_mode):
            try:
                yield from _folder(inner, each, root, f"{prefix}{name}/")
            finally:
                os.close(inner)
        else:
            yield f"{prefix}{name}", each, _regular(inner, each)


def _open(path: Path, root: Path | None) -> int:
    return os.open(path, _FLAGS) if root is None else open_beneath(root, str(path.relative_to(root)))


def _regular(fd: int, path: Path) -> int:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return fd
