"""Answers of the real llama.cpp server (build 11434), recorded byte for byte, as data for tests."""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "data" / "llamacpp"


@dataclass(frozen=True)
class Answer:
    """One recorded answer: the status and the body without its chunk framing."""

    status: int
    body: bytes


def recorded(name: str) -> Answer:
    """The answer in a file, with or without its head."""
    raw = (FOLDER / name).read_bytes()
    if not raw.startswith(b"HTTP/"):
        return Answer(200, raw)
    head, _, body = raw.partition(b"\r\n\r\n")
    is_framed = name.endswith(".bin")
    return Answer(int(head.split(b" ", 2)[1]), b"".join(_chunks(body)) if is_framed else body)


def _chunks(framed: bytes) -> list[bytes]:
    chunks: list[bytes] = []
    while framed:
        size, _, rest = framed.partition(b"\r\n")
        length = int(size, 16)
        chunks.append(rest[:length])
        framed = rest[length + 2 :]
    return chunks
