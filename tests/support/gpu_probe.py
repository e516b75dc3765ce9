"""A process that reads the GPUs with the program's own reader, so that it can be started with another NVML.

One command a line on its input, one JSON object a line on its output: `look ID` answers with the inventory, `ping ID`
at once. Commands run beside each other, as they do in the daemon: an answer to `ping` while a `look` is under way shows
that the event loop is free.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import msgspec

from supervisor.runtime.gpus import Inventory
from supervisor.runtime.gpus_nvml import NvmlReader

_ROOT = Path(__file__).parents[2]


class GpuProbe:
    """The test's end. Use as an async context manager."""

    def __init__(self, env: Mapping[str, str], *, deadline_s: float = 10.0) -> None:
        self._env = dict(env)
        self._deadline_s = deadline_s
        self._answers: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._sent = 0
        self.answered: list[str] = []

    async def __aenter__(self) -> Self:
        """Start it."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.gpu_probe", str(self._deadline_s)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=_ROOT,
            env=self._env,
        )
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *exc: object) -> None:
        """End it, whatever hangs in it."""
        self._process.kill()
        await self._process.wait()
        await self._reader

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            answer = json.loads(line)
            self.answered.append(answer["verb"])
            self._answers[answer["id"]].set_result(answer)

    def _send(self, verb: str) -> asyncio.Future[dict[str, Any]]:
        assert self._process.stdin is not None
        self._sent += 1
        self._process.stdin.write(f"{verb} {self._sent}\n".encode())
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[str(self._sent)] = future
        return future

    async def ping(self) -> None:
        """Come back when the event loop of the process has answered."""
        await self._send("ping")

    def start_look(self) -> asyncio.Future[dict[str, Any]]:
        """Ask for an inventory and don't wait; `read` turns the answer into one."""
        return self._send("look")

    async def look(self) -> Inventory:
        """Ask for an inventory."""
        return read(await self.start_look())


def read(answer: Mapping[str, Any]) -> Inventory:
    """The inventory in an answer."""
    return msgspec.convert({name: answer[name] for name in answer if name not in {"id", "verb"}}, Inventory)


async def _serve(deadline_s: float) -> None:
    reader = NvmlReader(deadline_s=deadline_s)

    async def look() -> dict[str, Any]:
        return asdict(await reader.inventory())

    async def ping() -> dict[str, Any]:
        return {}

    verbs: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {"look": look, "ping": ping}

    async def answer(line: bytes) -> None:
        verb, number = line.decode().split()
        print(json.dumps({"id": number, "verb": verb, **await verbs[verb]()}), flush=True)

    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    async with asyncio.TaskGroup() as running:
        async for line in commands:
            running.create_task(answer(line))
    await reader.close()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1])))
    os._exit(0)
