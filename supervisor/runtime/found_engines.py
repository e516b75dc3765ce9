"""The engines that outlived their daemon: read, proved, and then either handed over to their worker or ended.

An engine that is not adopted is ended with its whole session, its record goes, and the log says why. No worker measures
memory or starts before that is over: nothing is started onto a GPU that is not given back yet.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from supervisor.core.events import EnginesFound
from supervisor.core.replicas import FoundEngine
from supervisor.runtime import orphans, processes_adopt, worker_records
from supervisor.runtime.adoption import find_flaw
from supervisor.runtime.blueprint import PoolBlueprint
from supervisor.runtime.processes import Processes
from supervisor.runtime.worker_records import WorkerRecord

log = logging.getLogger(__name__)

END_GRACE_S = 5.0
"""Between SIGTERM and SIGKILL, for an engine that nobody adopts."""
NOT_WANTED = "its pool cannot take it"
DAEMON_STOPS = "the daemon stops"


class FoundEngines:
    """`look` once, before the first start; `take` what is adopted, `end` what is not; `close` ends the rest."""

    def __init__(
        self, blueprints: Mapping[str, PoolBlueprint], processes: Processes, state_dir: Path, *, is_simulated: bool
    ) -> None:
        self._blueprints = blueprints
        self._processes = processes
        self._state_dir = state_dir
        self._is_simulated = is_simulated
        self._has_looked = False
        self._undecided: list[WorkerRecord] = []
        self._adoptable: dict[str, WorkerRecord] = {}
        self._endings: set[asyncio.Task[None]] = set()

    async def look(self) -> EnginesFound:
        """Prove every engine that is recorded; one per pool may be adopted. The ends of the others have begun.

        Raises:
            OSError: the records cannot be listed.
        """
        records = await self._read()
        flaws = await asyncio.gather(
            *(find_flaw(record, self._blueprints, is_simulated=self._is_simulated) for record in records)
        )
        for record, flaw in zip(records, flaws, strict=True):
            self._decide(record, flaw)
        await self._end_unrecorded(record.mark for record in self._adoptable.values())
        return EnginesFound(tuple(_view(record) for record in self._adoptable.values()))

    async def _read(self) -> tuple[WorkerRecord, ...]:
        found = await asyncio.to_thread(worker_records.read_all, self._state_dir)
        if found.unreadable:
            log.error("records of engines cannot be read", extra={"files": list(found.unreadable)})
            if stay := await asyncio.to_thread(worker_records.discard, self._state_dir, found.unreadable):
                log.error("records of engines cannot be removed", extra={"files": list(stay)})
        self._has_looked, self._undecided = True, list(found.records)
        return found.records

    def _decide(self, record: WorkerRecord, flaw: str | None) -> None:
        self._undecided.remove(record)
        if flaw is None and record.pool_id in self._adoptable:
            flaw = "another engine of its pool is adopted"
        if flaw is None:
            self._adoptable[record.pool_id] = record
        else:
            self._begin_end(record, flaw)

    async def _end_unrecorded(self, spared: Iterable[str]) -> None:
        """What carries our mark and stands in no record: a start that the crash came into the middle of."""
        await self.wait_ended()
        if stuck := await self._processes.end_leftovers(spared=tuple(spared)):
            log.error("engines of an earlier daemon would not end", extra={"pids": list(stuck)})
        processes_adopt.reap_strangers()

    def find(self, pool_id: str) -> WorkerRecord | None:
        """The engine that the worker of this pool may adopt."""
        return self._adoptable.get(pool_id)

    def take(self, pool_id: str) -> WorkerRecord | None:
        """The engine that the worker of this pool adopts; whoever takes it owns it."""
        return self._adoptable.pop(pool_id, None)

    def end(self, pool_id: str, cause: str = NOT_WANTED) -> None:
        """Nobody adopts the engine of this pool."""
        if (record := self._adoptable.pop(pool_id, None)) is not None:
            self._begin_end(record, cause)

    def _begin_end(self, record: WorkerRecord, cause: str) -> None:
        task = asyncio.create_task(self._end(record, cause), name=f"end found {record.pid}")
        self._endings.add(task)
        task.add_done_callback(self._note_ended)

    def _note_ended(self, task: asyncio.Task[None]) -> None:
        self._endings.discard(task)
        if not task.cancelled() and (bug := task.exception()):
            log.error("an engine of an earlier daemon was not ended", exc_info=bug)

    async def _end(self, record: WorkerRecord, cause: str) -> None:
        end = await orphans.end_orphan(record, END_GRACE_S)
        await asyncio.to_thread(self._processes.clear_group, record.mark)
        facts = {"pool_id": record.pool_id, "pid": record.pid, "end": end, "cause": cause}
        log.warning("an engine of an earlier daemon is not adopted", extra=facts)
        await asyncio.to_thread(worker_records.remove, self._state_dir, record.pool_id, record.incarnation)

    async def wait_ended(self) -> None:
        """Until no engine that was found is being ended."""
        while self._endings:
            await asyncio.wait(tuple(self._endings))

    async def close(self) -> None:
        """End whatever was neither adopted nor ended, also where the daemon stops before it has looked."""
        has_looked = self._has_looked
        if not has_looked:
            await self._read()
        for record in (*self._undecided, *self._adoptable.values()):
            self._begin_end(record, DAEMON_STOPS)
        self._undecided.clear()
        self._adoptable.clear()
        if not has_looked:
            await self._end_unrecorded(())
        await self.wait_ended()


def _view(record: WorkerRecord) -> FoundEngine:
    return FoundEngine(record.pool_id, record.pid, record.port, record.devices)
