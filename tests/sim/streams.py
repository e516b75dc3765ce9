"""The runs of the simulated engines and the streams that callers read: tokens by time, never one after a cancel."""

from dataclasses import dataclass
from math import inf

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.tasks import Task
from supervisor.wire.codes import FinishReason
from tests.core.ledger import demand
from tests.sim.fates import End, draw_end
from tests.sim.world import World


@dataclass
class Run:
    """One request to an engine. Tokens come every `pace_ms` from `first_ms` on, until `count` of them came."""

    run_id: int
    task: Task
    pool_id: str
    incarnation: int
    first_ms: float
    pace_ms: float
    count: int

    def tokens_at(self, now_ms: float) -> int:
        if now_ms < self.first_ms:
            return 0
        return min(self.count, int((now_ms - self.first_ms) / self.pace_ms) + 1)


@dataclass
class Progress:
    """What outlives a killed daemon of a task that it ran. The tokens are in `Streams.emitted`."""

    attempt: int
    daemons: int
    is_this_life: bool = True


class Streams:
    """Live runs by id, and the length of every stream that a caller sees."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.runs: dict[int, Run] = {}
        self.emitted: dict[str, int] = {}
        self.progress: dict[str, Progress] = {}
        """What the living daemon's table says of the tasks that it ran."""
        self._lengths: dict[str, int] = {}
        self.is_stormy = True
        self.held_ms = 0.0
        """How long every first token is held back: to see many runs at once."""
        world.hands |= {ef.AbortRun: self.abort, ef.AnswerCancelled: self.check_cancel}

    def start(self, effect: ef.StartRun) -> tuple[Run, End, float]:
        """Begin a run; gives how it will end and after how many ms. A strict task is as long each time."""
        dice, task = self._world.dice, effect.task
        self._note_begun(task)
        whole = self._lengths.setdefault(task.job_id, dice.randint(1, task.max_tokens))
        end = draw_end(dice, is_stormy=self.is_stormy)
        is_whole = end in (End.FINISHED, End.ENDLESS)
        count = whole if is_whole else dice.randint(0, whole) if end not in (End.REFUSED, End.BUSY) else 0
        run = Run(
            effect.run_id,
            task,
            effect.pool_id,
            effect.incarnation,
            first_ms=self._world.now + self.held_ms + dice.uniform(5, 400),
            pace_ms=dice.uniform(1, 40) if end is not End.ENDLESS else 2_000.0,
            count=count,
        )
        self.runs[run.run_id] = run
        last_ms = run.first_ms + max(count - 1, 0) * run.pace_ms - self._world.now
        return run, end, inf if end is End.ENDLESS else last_ms

    def _note_begun(self, task: Task) -> None:
        known = self.progress.get(task.job_id)
        if known is None:
            self.progress[task.job_id] = Progress(task.attempt, 1)
        else:
            known.attempt = task.attempt
            known.daemons += not known.is_this_life
            known.is_this_life = True

    def publish(self, run: Run) -> int:
        """All tokens that came by now are in the stream, those of an earlier attempt skipped; gives its length."""
        job_id = run.task.job_id
        self.emitted[job_id] = max(self.emitted.get(job_id, 0), run.tokens_at(self._world.now))
        return self.emitted[job_id]

    def pop(self, run_id: int) -> Run | None:
        """A run is over: its tokens are in the stream, and no other will be."""
        run = self.runs.pop(run_id, None)
        if run is not None:
            self.publish(run)
        return run

    def abort(self, effect: ef.AbortRun) -> None:
        run = self.pop(effect.run_id)
        if run is None:
            self._world.post(ev.RunAborted(effect.run_id, None, 0, 0, 0.0))
            return
        emitted = self.emitted[run.task.job_id]
        self._world.post(ev.RunAborted(effect.run_id, None, emitted, emitted, 1.0))

    def finish(self, run_id: int) -> ev.RunFinished | None:
        run = self.pop(run_id)
        if run is None:
            return None
        emitted = self.emitted[run.task.job_id]
        return ev.RunFinished(run_id, FinishReason.STOP, 5, emitted, emitted, 1.0)

    def check_cancel(self, effect: ef.AnswerCancelled) -> None:
        """ORCH-3026: what a cancel says is what the stream has, and no run is left that could add to it."""
        job_id = effect.ticket.partition("/")[2]
        live = [run for run in self.runs.values() if run.task.job_id == job_id]
        demand(that=not live, sentence=f"{job_id} is cancelled and still runs")
        ledger = self._world.ledger
        end = ledger.ends.get(job_id) if job_id not in ledger.unproven else None
        seen = self.emitted.get(job_id, 0) if end is None else end.emitted
        demand(that=effect.emitted == seen, sentence=f"{job_id} emitted {seen}, the cancel says {effect.emitted}")

    def crash(self, *, is_power_lost: bool) -> None:
        """The daemon is gone. How much of each stream was delivered is known to the next one, unless the power went."""
        for run in self.runs.values():
            self.publish(run)
        self.runs.clear()
        for each in self.progress.values():
            each.is_this_life = False
        if is_power_lost:
            self.progress.clear()
            over = self._world.ledger.ends.keys() - self._world.ledger.unproven
            self.emitted = {job_id: count for job_id, count in self.emitted.items() if job_id in over}
