"""The simulated callers: they submit, repeat, cancel, read, leave, and come back after a crash of the daemon."""

from typing import Any

from msgspec import structs

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.tasks import Task
from tests.core.builders import make_task
from tests.sim.tenancy import client_of, tenant_of
from tests.sim.world import World

TRIES_MAX = 6
SESSIONS = (None, b"a", b"b", b"c", b"d")
"""By the caller's number and not by dice, so that a seed tells the story that it told before there were sessions."""
DELETES_EVERY = 9
DELETES_AFTER_MS = 4_000.0


class Crowd:
    """Every caller has one task, under one task id, and sends it until it is accepted or clearly refused."""

    def __init__(self, world: World, models: tuple[str, ...]) -> None:
        self._world, self._models = world, models
        self._wishes: dict[str, Task] = {}
        self._tries: dict[str, int] = {}
        self._open: dict[str, str] = {}
        self._patient: set[str] = set()
        self._deleting: set[str] = set()
        self._coming = 0
        self._tickets = 0
        world.hands |= {ef.AnswerAccepted: self._hear_yes, ef.AnswerRefused: self._hear_no}

    def plan(self, count: int, within_ms: float) -> None:
        """Draw callers who come at some time of the storm."""
        for number in range(count):
            task_id = f"t{number:03}"
            self._wishes[task_id] = self._draw(task_id)
            self._send_after(self._world.dice.uniform(0, within_ms), task_id)

    def _draw(self, task_id: str) -> Task:
        dice = self._world.dice
        values: dict[str, Any] = {
            "batch": dice.random() < 0.4,
            "strict": dice.random() < 0.6,
            "model_ref": dice.choice(self._models),
            "max_tokens": dice.randint(1, 200),
            "size_bytes": dice.randint(100, 3_000),
            "prompt_bytes": dice.choice((50, 200, 5_000)),
            "deadline_at_ms": dice.choice((4_000, 30_000, 300_000, 3_000_000)),  # as a delay, until it is sent
        }
        number = int(task_id[1:])
        session = None if values["strict"] else SESSIONS[number % len(SESSIONS)]
        if session is not None and number % DELETES_EVERY == 0:
            self._deleting.add(task_id)
        return make_task(task_id, session=session, tenant=tenant_of(number), client_id=client_of(number), **values)

    def send_extra(self, name: str, model: str) -> None:
        """One more caller with a key of its own, now, with all the time of the world: no cancel, no repeat."""
        self._patient.add(name)
        self._wishes[name] = make_task(name, client_id=name, strict=False, model_ref=model, deadline_at_ms=1e9)
        self._send(name)

    @property
    def is_gone(self) -> bool:
        """Whether nobody will send again, and all who sent were answered."""
        return not self._coming and not self._open

    def _send_after(self, delay_ms: float, task_id: str) -> None:
        self._coming += 1

        def come() -> None:
            self._coming -= 1
            self._send(task_id)

        self._world.fated(delay_ms, come)

    def _send(self, task_id: str) -> None:
        if not self._world.is_up:
            self._send_after(self._world.dice.uniform(100, 2_000), task_id)
            return
        self._tickets += 1
        now, wish = self._world.now, self._wishes[task_id]
        ticket = f"j{self._tickets}/{task_id}"
        self._open[ticket] = task_id
        self._world.post(
            ev.TaskSubmitted(
                structs.replace(wish, job_id=ticket, admitted_ms=now, deadline_at_ms=now + wish.deadline_at_ms)
            )
        )

    def _hear_yes(self, effect: ef.AnswerAccepted) -> None:
        task_id = self._open.pop(effect.ticket)
        dice = self._world.dice
        if task_id in self._patient:
            return
        if task_id in self._deleting:
            self._world.fated(DELETES_AFTER_MS, lambda: self._end_session(task_id))
        if dice.random() < 0.2:
            self._world.fated(dice.uniform(0, 20_000), lambda: self._cancel(task_id))
        if dice.random() < 0.15:
            self._send_after(dice.uniform(0, 30_000), task_id)
        if dice.random() < 0.3:
            self._world.fated(dice.uniform(0, 10_000), lambda: self._leave(task_id))

    def _hear_no(self, effect: ef.AnswerRefused) -> None:
        if effect.ticket not in self._open:
            return  # what an operator asked
        task_id = self._open.pop(effect.ticket)
        self._tries[task_id] = self._tries.get(task_id, 0) + 1
        if effect.refused.is_retriable and self._tries[task_id] < TRIES_MAX:
            self._send_after(effect.refused.retry_after_ms or 1_000, task_id)

    def _find(self, task_id: str) -> Task | None:
        """As the HTTP edge does it: in the same turn."""
        tenant = self._wishes[task_id].tenant
        return self._world.core.state.find_task(tenant, task_id) if self._world.is_up else None

    def _cancel(self, task_id: str) -> None:
        task = self._find(task_id)
        if task is not None:
            self._tickets += 1
            self._world.post(ev.CancelRequested(f"c{self._tickets}/{task.job_id}", task.job_id))

    def _end_session(self, task_id: str) -> None:
        wish = self._wishes[task_id]
        if self._world.is_up and wish.session is not None:
            self._world.post(ev.SessionEndRequested(wish.tenant, wish.session))

    def _leave(self, task_id: str) -> None:
        task = self._find(task_id)
        if task is None:
            return
        job_id = task.job_id
        self._world.post(ev.ReadersLeft(job_id))
        if self._world.dice.random() < 0.5:
            self._world.after(self._world.dice.uniform(10, 4_000), lambda: self._world.post(ev.ReadersCame(job_id)))

    def crash(self) -> None:
        """Who was not answered sends again: the same task id, so that nothing is done twice."""
        for task_id in self._open.values():
            self._send_after(self._world.dice.uniform(10, 3_000), task_id)
        self._open.clear()
