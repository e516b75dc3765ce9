"""Clients that hold connections instead of using them, in a process of their own: `... PORT COUNT OVER_S KIND...`.

Opens COUNT connections, spread over the kinds and over OVER_S seconds, and opens each anew when the server closes it,
until standard input ends. Then it prints, as one line of JSON, how many each kind lost and how long the longest of each
lived, in seconds.
"""

import asyncio
import contextlib
import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.waiting import until

DRIP_S = 0.5
OPEN_AT_ONCE = 200
HELD_WITHIN_S = 120.0
REOPEN_S = 0.05
ROOT = Path(__file__).parent.parent.parent
HEAD = b"POST /v1/tasks HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
ASK = b"GET /openapi.json HTTP/1.1\r\nHost: t\r\n\r\n"
KINDS: dict[str, tuple[bytes, bytes]] = {
    # what is sent at once, and what is then dripped
    "silent": (b"", b""),
    "half_header": (b"GET /healthz HTTP/1.1\r\nHost: t\r\nX: ", b""),
    "slow_header": (b"GET /healthz HTTP/1.1\r\nHost: t\r\nX: ", b"a"),
    "slow_body": (HEAD + b"Content-Length: 1000000\r\n\r\n{", b" "),
    "no_reader": (ASK * 40, b""),
    "idle": (b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n", b""),
}


@dataclass
class Tally:
    """What became of the connections of one kind."""

    lost: int = 0
    longest_s: float = 0.0
    open_since: dict[int, float] = field(default_factory=dict)

    def note_lost(self, number: int) -> None:
        self.lost += 1
        self.longest_s = max(self.longest_s, time.monotonic() - self.open_since.pop(number))


async def hold(port: int, number: int, kind: str, tally: Tally, gate: asyncio.Semaphore, after_s: float) -> None:
    """One connection after the other, from so many seconds on."""
    await asyncio.sleep(after_s)
    first, drip = KINDS[kind]
    while True:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        try:
            async with gate:
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            tally.open_since[number] = time.monotonic()
            await hold_one(sock, first, drip, is_reading=kind != "no_reader")
        except OSError:
            pass
        finally:
            sock.close()
        if number in tally.open_since:
            tally.note_lost(number)
        await asyncio.sleep(REOPEN_S)


async def hold_one(sock: socket.socket, first: bytes, drip: bytes, *, is_reading: bool) -> None:
    """Until the server closes. Who reads nothing learns of it by sending."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, first)
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRIP_S if drip or not is_reading else None):
                if is_reading:
                    while await loop.sock_recv(sock, 65536):
                        pass
                    return
                await asyncio.sleep(60)
        await loop.sock_sendall(sock, drip if is_reading else b"\r\n")


async def run(port: int, count: int, over_s: float, kinds: list[str]) -> dict[str, Any]:
    """Hold them until standard input ends."""
    tallies = {kind: Tally() for kind in kinds}
    gate = asyncio.Semaphore(OPEN_AT_ONCE)
    pairs = [(number, kinds[number % len(kinds)]) for number in range(count)]
    tasks = [
        asyncio.create_task(hold(port, number, kind, tallies[kind], gate, over_s * number / count))
        for number, kind in pairs
    ]

    def are_all_held() -> bool:
        return sum(len(tally.open_since) + tally.lost for tally in tallies.values()) >= count

    await until(are_all_held, within_s=HELD_WITHIN_S, what="the holding of all connections")
    print("held", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    return {kind: {"lost": tally.lost, "longest_s": round(tally.longest_s, 2)} for kind, tally in tallies.items()}


@contextmanager
def attacking(port: int, count: int, *kinds: str, over_s: float = 0.0) -> Iterator[dict[str, Any]]:
    """Such clients in a process of their own; what became of them stands in the dictionary afterwards."""
    found: dict[str, Any] = {}
    command = [sys.executable, "-m", "tests.support.hostile_clients", str(port), str(count), str(over_s), *kinds]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield found
            process.stdin.close()
            found.update(json.loads(process.stdout.readline()))
        finally:
            process.kill()


def main() -> None:
    port, count, over_s, *kinds = sys.argv[1:]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(json.dumps(asyncio.run(run(int(port), int(count), float(over_s), kinds))), flush=True)


if __name__ == "__main__":
    main()
