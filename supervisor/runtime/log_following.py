"""Shows an engine's log file to an operator: its last lines, and what is appended, over truncations by the rotation."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

TAIL_BYTES_MAX = 1_048_576
POLL_S = 0.3
PIECE_BYTES_MAX = 65_536


def tail_lines(path: Path, lines: int) -> tuple[bytes, int]:
    """The last `lines` lines and the offset behind them; nothing for a file that does not exist. Blocks."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b"", 0
    with os.fdopen(fd, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(size - TAIL_BYTES_MAX, 0))
        data = file.read(size)
        return b"".join(data.splitlines(keepends=True)[-lines:]) if lines else b"", size


async def follow(path: Path, offset: int) -> AsyncIterator[bytes]:
    """What is appended after `offset`, until the caller stops asking. A file that shrank is read from its start."""
    while True:
        piece, offset = await asyncio.to_thread(_read_from, path, offset)
        if piece:
            yield piece
        else:
            await asyncio.sleep(POLL_S)


def _read_from(path: Path, offset: int) -> tuple[bytes, int]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b"", 0
    with os.fdopen(fd, "rb") as file:
        if os.fstat(file.fileno()).st_size < offset:
            offset = 0
        file.seek(offset)
        piece = file.read(PIECE_BYTES_MAX)
        return piece, offset + len(piece)
