"""A bad wire in front of an engine: a proxy on the engine's port, the engine itself on another one.

Run as `python bad_wire.py HOW PORT ENGINE-COMMAND…`, where the command says `@PORT@` for its port. HOW: `bytes` gives
single bytes on, `slow` waits before each piece, `cut` closes and `reset` resets the connection of every second stream
after 2,000 bytes. The engine's end is ours.
"""

import asyncio
import contextlib
import os
import signal
import socket
import struct
import sys

PIECE_BYTES = 65_536
SLOW_S = 0.005
BREAK_AFTER_BYTES = 2_000
"""More than the answer to any question but a stream."""


class Wire:
    """One proxy."""

    def __init__(self, how: str, target: int) -> None:
        self._how = how
        self._target = target
        self._streams = 0

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, both ways."""
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        there = asyncio.create_task(self._copy(reader, upstream_writer))
        back = asyncio.create_task(self._spoil(upstream_reader, writer))
        await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
        for task in (there, back):
            task.cancel()
        for end in (writer, upstream_writer):
            with contextlib.suppress(OSError):
                end.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(PIECE_BYTES):
                writer.write(data)
                await writer.drain()

    async def _spoil(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed, is_long = 0, False
        with contextlib.suppress(OSError):
            while data := await reader.read(PIECE_BYTES):
                await self._give(writer, data)
                passed += len(data)
                if is_long or passed <= BREAK_AFTER_BYTES:
                    continue
                is_long = True
                if self._how in {"cut", "reset"} and self._is_every_second():
                    if self._how == "reset":
                        linger = struct.pack("ii", 1, 0)
                        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    return

    def _is_every_second(self) -> bool:
        self._streams += 1
        return self._streams % 2 == 1

    async def _give(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if self._how == "bytes":
            for byte in data:
                writer.write(bytes((byte,)))
                await writer.drain()
            return
        if self._how == "slow":
            await asyncio.sleep(SLOW_S)
        writer.write(data)
        await writer.drain()


async def run(how: str, port: int, command: list[str]) -> int:
    """Serve until the engine ends or we are told to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        inner = free.getsockname()[1]
    engine = await asyncio.create_subprocess_exec(*[word.replace("@PORT@", str(inner)) for word in command])
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, engine.terminate)
    server = await asyncio.start_server(Wire(how, inner).connect, "127.0.0.1", port)
    async with server:
        return await engine.wait()


if __name__ == "__main__":
    os.set_blocking(0, True)
    sys.exit(abs(asyncio.run(run(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))))
