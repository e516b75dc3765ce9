import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from supervisor.runtime.orphans import OrphanEnd, end_orphan
from supervisor.runtime.worker_records import WorkerRecord, current_boot_id, process_facts

KEY = "a-random-key-that-only-this-worker-has"
OBEDIENT = "sleep 1000 & echo $!; wait"
STUBBORN = "trap '' TERM; sleep 1000 & echo $!; wait"
LEADER_LEAVES = "sleep 1000 >/dev/null & echo $!"


class Engine:
    """A shell that leads its own session and has one child, whose pid it prints when both are set up."""

    def __init__(self, script: str, env: dict[str, str]) -> None:
        environment = {"PATH": os.environ["PATH"], **env}
        command = ["sh", "-c", script]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, start_new_session=True, env=environment
        )
        facts = process_facts(self.process.pid)
        self.start_ticks = facts.start_ticks if facts else 0
        assert self.process.stdout is not None
        self.child = int(self.process.stdout.readline())

    @property
    def record(self) -> WorkerRecord:
        return WorkerRecord(
            pool_id="pool-a",
            incarnation=1,
            pid=self.process.pid,
            start_ticks=self.start_ticks,
            boot_id=current_boot_id(),
            port=40_001,
            api_key=KEY,
            mark="mark",
            engine="llamacpp",
            devices=("GPU-1",),
            model_digest="sha256:11",
            launch_digest="sha256:00",
        )

    @property
    def alive(self) -> list[str]:
        pids = {"leader": self.process.pid, "child": self.child}
        return [name for name, pid in pids.items() if process_facts(pid) is not None]

    def clean_up(self) -> None:
        for pid in (self.process.pid, self.child):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def an_engine(script: str, **env: str) -> Iterator[Engine]:
    engine = Engine(script, env)
    try:
        yield engine
    finally:
        engine.clean_up()


@pytest.mark.parametrize(
    ("script", "grace_s", "end"), [(OBEDIENT, 30.0, OrphanEnd.ENDED), (STUBBORN, 0.05, OrphanEnd.KILLED)]
)
async def test_an_orphan_is_ended_with_all_of_its_session(script: str, grace_s: float, end: OrphanEnd) -> None:
    with an_engine(script) as engine:
        found = await end_orphan(engine.record, grace_s)

        assert found is end
        assert engine.alive == []


async def test_ending_an_orphan_does_not_hold_the_loop() -> None:
    with an_engine(STUBBORN) as engine:
        ending = asyncio.create_task(end_orphan(engine.record, 0.3))
        turns = 0
        while not ending.done():
            await asyncio.sleep(0)
            turns += 1

        assert await ending is OrphanEnd.KILLED
        assert turns > 10


async def test_children_without_their_leader_are_known_by_the_key() -> None:
    with an_engine(LEADER_LEAVES, LLAMA_API_KEY=KEY) as engine:
        engine.process.wait()

        end = await end_orphan(engine.record, 30.0)

        assert end is OrphanEnd.ENDED
        assert engine.alive == []


async def test_children_without_leader_and_key_are_nobody_we_know() -> None:
    with an_engine(LEADER_LEAVES, LLAMA_API_KEY="somebody else's") as engine:
        engine.process.wait()

        end = await end_orphan(engine.record, 0.0)

        assert end is OrphanEnd.GONE
        assert engine.alive == ["child"]


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"boot_id": "another-boot"}])
async def test_a_stranger_with_the_recorded_pid_is_left_alone(change: dict[str, object]) -> None:
    with an_engine(OBEDIENT) as engine:
        record = msgspec.structs.replace(engine.record, **change)

        end = await end_orphan(record, 0.0)

        assert end is OrphanEnd.GONE
        assert engine.alive == ["leader", "child"]


async def test_an_orphan_that_has_gone_needs_no_ending(tmp_path: Path) -> None:
    with an_engine(OBEDIENT) as engine:
        record = engine.record

    assert await end_orphan(record, 0.0) is OrphanEnd.GONE
