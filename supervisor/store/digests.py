"""The digest of a model: of its one file, or of the list of its files (ORCH-3037).

The list is what `sha256sum` prints, in the order of names by their bytes, so anybody can compute it again.
"""

import hashlib
import os
from collections.abc import Callable, Iterable

PREFIX = "sha256:"
_CHUNK_BYTES = 4 * 1024 * 1024


def read_sha256(fd: int, note: Callable[[int], None] = lambda _: None) -> str:
    """The sha256 in hex of all bytes behind a descriptor, from its start. `note` is told the bytes of each step."""
    sha256 = hashlib.sha256()
    buffer = bytearray(_CHUNK_BYTES)
    view = memoryview(buffer)
    offset = 0
    while count := os.preadv(fd, [buffer], offset):
        sha256.update(view[:count])
        offset += count
        note(count)
    return sha256.hexdigest()


def read_git_id(fd: int, size: int) -> str:
    """The id that git gives to a blob of this content: what a hub says of files that are not in large file storage."""
    sha1 = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    buffer = bytearray(_CHUNK_BYTES)
    view = memoryview(buffer)
    offset = 0
    while count := os.preadv(fd, [buffer], offset):
        sha1.update(view[:count])
        offset += count
    return sha1.hexdigest()


def model_digest(files: Iterable[tuple[str, str]]) -> str:
    """`sha256:<hex>` of a model from its (name, sha256) pairs; of a single file it is the digest of that."""
    ordered = sorted(files, key=lambda file: os.fsencode(file[0]))
    if len(ordered) == 1:
        return PREFIX + ordered[0][1]
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in ordered)
    return PREFIX + hashlib.sha256(os.fsencode(lines)).hexdigest()
