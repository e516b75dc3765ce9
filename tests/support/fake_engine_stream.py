"""One completion of the fake engine: its tokens, at their pace, and every way in which that can go wrong."""

import asyncio
import contextlib
import os
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from tests.support.fake_engine_answers import chunk, dumps, error, event
from tests.support.fake_engine_decode import Slot, split_at_stop, tokenize, word
from tests.support.fake_engine_script import Script

LONG_LINE_BYTES = 10_000_000
OOM_TEXT = "CUDA error: out of memory\n  current device: 0, in function alloc\nggml-cuda.cu:103: CUDA error\n"


class BadRequestError(Exception):
    """The body of a request is not a completion."""


class StreamEndedError(Exception):
    """A fault has ended this stream; nothing more is to be sent on its connection."""


@dataclass
class Completion:
    """What was asked for."""

    prompt: str
    tokens: list[int]
    seed: int
    n_predict: int
    stop: Sequence[str]
    is_streamed: bool
    id_slot: int
    cache_prompt: bool
    ignore_eos: bool
    settings: dict[str, Any]
    said: list[str] = field(default_factory=list)


class Client:
    """The other end of a connection: written to, and watched so that its leaving is noticed."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, ping_s: float, is_heeded: bool
    ) -> None:
        """`is_heeded`: whether a pause ends when it leaves."""
        self._writer = writer
        self._ping_s = ping_s
        self._is_heeded = is_heeded
        self._gone = asyncio.ensure_future(reader.read(1))
        self.is_streaming = False

    @property
    def is_gone(self) -> bool:
        """Whether it has closed its end."""
        return self._gone.done()

    async def send(self, data: bytes) -> None:
        """Send; to one that has left, nothing."""
        if not self.is_gone:
            self._writer.write(data)
            with contextlib.suppress(ConnectionError):
                await self._writer.drain()

    async def pause(self, seconds: float) -> None:
        """Wait, pinging as the real server does, until the time is over or the client has left."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not self.is_gone and (left := end - loop.time()) > 0:
            await asyncio.wait({self._gone}, timeout=min(left, self._ping_s))
            if self.is_streaming and loop.time() < end:
                await self.send(chunk(b":\n\n"))
        if not self._is_heeded:
            await asyncio.sleep(max(0.0, end - loop.time()))

    def reset(self) -> None:
        """Close with RST."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def release(self) -> None:
        """Stop watching; the connection can take another request."""
        self._gone.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await self._gone


class Decoding:
    """One completion on its slot."""

    def __init__(self, ask: Completion, slot: Slot, script: Script, client: Client, *, ctx: int, alias: str) -> None:
        self._ask = ask
        self._slot = slot
        self._script = script
        self._client = client
        self._ctx = ctx
        self._alias = alias
        self._held = ""
        self._stop_type = "limit"
        self._stopping_word = ""
        self.is_canceled = False

    async def run(self) -> dict[str, Any]:
        """Say everything; the last event. StreamEndedError where a fault came first."""
        await self._client.pause(self._script.first_token_s)
        limit = self._limit()
        while True:
            await self._meet_fault()
            if self._slot.decoded >= limit or self._left_alone():
                break
            if self._slot.decoded == self._script.eos_after and not self._ask.ignore_eos:
                self._stop_type = "eos"
                break
            if self._slot.decoded:
                await self._client.pause(self._script.token_s)
            await self._say(self._next_word())
            if self._stopping_word:
                break
        await self._send_text(self._held if not self._stopping_word else "")
        return self._last()

    def _limit(self) -> int:
        room = self._ctx - len(self._ask.tokens)
        said = self._script.tokens
        wanted = self._ask.n_predict if self._ask.n_predict >= 0 else room
        if said is not None and len(said) < wanted:
            self._stop_type = "eos"
            wanted = len(said)
        return max(1, min(wanted, room))

    def _left_alone(self) -> bool:
        self.is_canceled = self._client.is_gone and not self._script.slot_sticks
        return self.is_canceled

    def _next_word(self) -> str:
        said = self._script.tokens
        if said is not None:
            return said[self._slot.decoded]
        return word(self._ask.prompt, self._ask.seed, self._slot.decoded)

    async def _say(self, text: str) -> None:
        self._slot.decoded += 1
        send, self._held, stop = split_at_stop(self._held + text, self._ask.stop)
        if stop is not None:
            self._stop_type, self._stopping_word = "word", stop
        await self._send_text(send)

    async def _send_text(self, text: str) -> None:
        if not text:
            return
        self._ask.said.append(text)
        if self._ask.is_streamed:
            await self._client.send(event(self._piece(text)))

    def _piece(self, text: str) -> dict[str, Any]:
        head = {"index": 0, "content": text, "tokens": tokenize(text)[1:], "stop": False, "id_slot": -1}
        return head | {"tokens_predicted": self._slot.decoded, "tokens_evaluated": len(self._ask.tokens)}

    def _last(self) -> dict[str, Any]:
        total, cached = len(self._ask.tokens), self._slot.cached
        content = "" if self._ask.is_streamed else "".join(self._ask.said)
        head = {"index": 0, "content": content, "tokens": [], "id_slot": self._slot.number, "stop": True}
        head |= {"model": self._alias, "tokens_predicted": self._slot.decoded, "tokens_evaluated": total}
        head |= {"generation_settings": self._ask.settings, "prompt": self._ask.prompt, "has_new_line": False}
        head |= {"truncated": total + self._slot.decoded >= self._ctx, "stop_type": self._stop_type}
        head |= {"stopping_word": self._stopping_word, "tokens_cached": total + self._slot.decoded - 1}
        ms = max(0.001, self._script.token_s * 1000)
        timings = {"cache_n": cached, "prompt_n": total - cached, "prompt_ms": self._script.first_token_s * 1000 + 0.5}
        timings |= {"predicted_n": self._slot.decoded, "predicted_ms": ms * self._slot.decoded}
        return head | {"timings": timings | {"predicted_per_second": 1000 / ms}}

    async def _meet_fault(self) -> None:
        fault = self._script.take_fault(self._slot.decoded)
        if fault is None:
            return
        if fault in _OF_THE_PROCESS:
            _end_process(fault)
        elif fault == "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif fault == "hang":
            while not self._client.is_gone:
                await self._client.pause(3600)
            raise StreamEndedError
        elif fault == "reset":
            self._client.reset()
            raise StreamEndedError
        else:
            await self._client.send(self._bytes_of(fault))
            raise StreamEndedError

    def _bytes_of(self, fault: str) -> bytes:
        """What is sent before the connection is closed."""
        last_chunk = b"0\r\n\r\n"
        if fault == "double_end":
            return event(self._last()) * 2 + last_chunk
        if fault == "long_line":
            return event(self._piece("x" * LONG_LINE_BYTES)) + last_chunk
        if fault == "bad_utf8":
            return chunk(b"data: " + dumps(self._piece("BAD")).replace(b"BAD", b"\xff\xc3\x28") + b"\n\n") + last_chunk
        return {
            "cut": b"",
            "early": last_chunk,
            "error": event(error(500, "the fake engine was told to fail")) + last_chunk,
            "garbage": chunk(b"data: \x00\xff}{ nothing like JSON\n\n") + last_chunk,
            "half_json": chunk(b'data: {"index":0,"conte\n\n') + last_chunk,
            "bad_chunk": b"zz\r\nnot a chunk\r\n",
        }[fault]


_OF_THE_PROCESS = frozenset({"die", "eat", "abort", "exit"})
_BITE_BYTES = 1 << 24


def _end_process(fault: str) -> NoReturn:
    if fault == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    eaten = bytearray()
    while fault == "eat":
        eaten += b"x" * _BITE_BYTES
    if fault == "abort":
        sys.stderr.write(OOM_TEXT)
        sys.stderr.flush()
        os.abort()
    os._exit(3)
