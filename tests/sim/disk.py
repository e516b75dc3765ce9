"""A simulated journal: group commit, failures, and what is left of it after a kill -9."""

from dataclasses import dataclass

from msgspec import structs

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.tasks import WAITING, Ended, Outcome, Task
from tests.sim.streams import Streams
from tests.sim.world import World

FLUSH_MS = (0.5, 12.0)
LOOK_AGAIN_MS = 1_000.0
FRAME_BYTES = 100

Item = ef.CommitAccept | ef.CommitAttempt | ef.CommitFinish | ef.Forget


@dataclass
class Record:
    """What the disk has of one task."""

    task: Task
    attempts: int = 0
    outcome: Outcome | None = None
    ended_ms: float = 0.0


class Disk:
    """Performs the Commit effects. `records` is what a next daemon would find, in the order of the accepts."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.records: dict[str, Record] = {}
        self.is_failing = False
        self._pending: list[Item] = []
        self._backlog: list[Item] = []
        self._unshown: dict[str, Outcome] = {}
        self._is_writable = True
        self._is_flush_due = False
        world.hands |= dict.fromkeys((ef.CommitAccept, ef.CommitAttempt, ef.Forget), self._take)
        world.hands[ef.CommitFinish] = self._take_finish

    def _take(self, item: Item) -> None:
        if isinstance(item, ef.CommitAccept):
            item = ef.CommitAccept(structs.replace(item.task))  # as it is now: the core goes on with its own
        self._pending.append(item)
        self._want_flush(self._world.dice.uniform(*FLUSH_MS))

    def _take_finish(self, effect: ef.CommitFinish) -> None:
        self._unshown[effect.task.job_id] = effect.outcome
        self._take(effect)
        if not self._is_writable:
            self._show([effect.task.job_id])

    def _want_flush(self, delay_ms: float) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self._world.after(delay_ms, self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        batch, self._pending = self._pending, []
        if self.is_failing:
            self._fail(batch)
            return
        written, self._backlog = self._backlog + batch, []
        for item in written:
            self._write(item)
        if not self._is_writable:
            self._is_writable = True
            self._world.post(ev.JournalChanged(is_writable=True, cause=None))
        if accepted := _accepts(batch):
            self._world.post(ev.AcceptsCommitted(accepted))
        self._show(_finishes(batch))
        self._world.ledger.unproven.difference_update(_finishes(written))

    def _fail(self, batch: list[Item]) -> None:
        """Nothing of it is on disk. Ends are shown nonetheless, and written once that is possible again."""
        self._is_writable = False
        self._backlog += [item for item in batch if not isinstance(item, ef.CommitAccept)]
        self._world.post(ev.JournalChanged(is_writable=False, cause="no space left"))
        if rejected := _accepts(batch):
            self._world.post(ev.AcceptsFailed(rejected))
        self._show(_finishes(batch))
        self._want_flush(LOOK_AGAIN_MS)

    def _write(self, item: Item) -> None:
        match item:
            case ef.CommitAccept(task=task):
                assert task.job_id not in self.records, f"{task.job_id} is on disk twice"
                self.records[task.job_id] = Record(task)
            case ef.CommitAttempt(job_id=job_id):
                self.records[job_id].attempts += 1
            case ef.CommitFinish(task=task, outcome=outcome):
                record = self.records[task.job_id]
                assert record.outcome is None, f"{task.job_id} ended twice on disk"
                record.outcome, record.ended_ms = outcome, self._world.now
            case ef.Forget(job_ids=job_ids):
                for job_id in job_ids:
                    del self.records[job_id]

    def _show(self, job_ids: list[str]) -> None:
        """Terminal frames reach the callers, once each."""
        shown = {job_id: self._unshown.pop(job_id) for job_id in job_ids if job_id in self._unshown}
        for job_id, outcome in shown.items():
            self._world.ledger.end(job_id, outcome)
            if self.records[job_id].outcome is None:
                self._world.ledger.unproven.add(job_id)
        if shown:
            sizes = tuple(FRAME_BYTES * (1 + outcome.emitted) for outcome in shown.values())
            self._world.post(ev.FinishesCommitted(tuple(shown), sizes))

    def crash(self) -> None:
        """The daemon is killed: of what was on its way, some is on disk, and nobody was told."""
        if not self.is_failing and self._is_writable:
            for item in self._pending[: self._world.dice.randint(0, len(self._pending))]:
                self._write(item)
        self._pending, self._backlog = [], []
        self._unshown.clear()
        self._is_writable, self._is_flush_due = True, False

    def recover(self, streams: Streams) -> ev.TasksRestored:
        """What the next daemon reads. Ends that nobody saw yet are seen now."""
        finished = sorted(
            (record for record in self.records.values() if record.outcome), key=lambda each: each.ended_ms
        )
        for record in finished:
            if record.outcome is not None and record.task.job_id not in self._world.ledger.ends:
                self._world.ledger.end(record.task.job_id, record.outcome)
            self._world.ledger.unproven.discard(record.task.job_id)
        unfinished = tuple(_again(record, streams) for record in self.records.values() if record.outcome is None)
        silent = tuple(job_id for job_id in streams.progress if not streams.emitted.get(job_id))
        return ev.TasksRestored(unfinished, tuple((_over(record), FRAME_BYTES) for record in finished), silent)


def _accepts(batch: list[Item]) -> tuple[str, ...]:
    return tuple(item.task.job_id for item in batch if isinstance(item, ef.CommitAccept))


def _finishes(batch: list[Item]) -> list[str]:
    return [item.task.job_id for item in batch if isinstance(item, ef.CommitFinish)]


def _again(record: Record, streams: Streams) -> Task:
    job_id = record.task.job_id
    known = streams.progress.get(job_id)
    return structs.replace(
        record.task,
        phase=WAITING,
        set_id="",
        attempt=max(record.attempts, known.attempt if known else 0),
        emitted=streams.emitted.get(job_id, 0) if known else 0,
        daemons_lost=known.daemons if known else 0,
    )


def _over(record: Record) -> Task:
    assert record.outcome is not None
    return structs.replace(record.task, phase=Ended(record.outcome, record.ended_ms), body=b"")
