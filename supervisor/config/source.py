"""Reads the text of a config file, and nothing that only looks like one: no folder, pipe, device or endless file."""

import os
import stat
from pathlib import Path

from supervisor.config.problems import WHOLE_FILE, ConfigError, Place, Problem

FILE_BYTES_MAX = 1024 * 1024

# O_NONBLOCK: opening a FIFO would else wait for a writer. O_NOCTTY: a terminal must not become the controlling one.
_OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def read_text(path: Path) -> str:
    """The text of a regular UTF-8 file of at most `FILE_BYTES_MAX` bytes. Raises ConfigError; never waits."""
    try:
        descriptor = os.open(path, _OPEN_FLAGS)
    except (OSError, ValueError) as error:
        raise _problem(path, f"cannot be opened: {_reason(error)}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _problem(path, "is not a regular file")
        raw = _read(descriptor)
    except OSError as error:
        raise _problem(path, f"cannot be read: {_reason(error)}") from error
    finally:
        os.close(descriptor)
    if len(raw) > FILE_BYTES_MAX:
        raise _problem(path, f"is larger than {FILE_BYTES_MAX} bytes: this is not a config")
    return _decode(path, raw)


def _read(descriptor: int) -> bytes:
    """One byte more than allowed at most, which is enough to know."""
    parts: list[bytes] = []
    missing = FILE_BYTES_MAX + 1
    while missing and (part := os.read(descriptor, missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _decode(path: Path, raw: bytes) -> str:
    """Strict UTF-8; the byte-order mark that some editors write is dropped."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].split(b"\n")
        place = Place(len(before), len(before[-1]) + 1)
        raise _problem(path, f"is not UTF-8: byte 0x{raw[error.start]:02x}", place) from error


def _reason(error: OSError | ValueError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _problem(path: Path, message: str, place: Place = WHOLE_FILE) -> ConfigError:
    return ConfigError([Problem(str(path), place.line, place.column, "", message)])
