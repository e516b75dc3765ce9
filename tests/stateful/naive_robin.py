"""Deficit round robin as the textbook has it: a ring, a pointer, deficits, and every round walked through."""

from dataclasses import dataclass, field

from supervisor.core.fair import QUANTUM_TOKENS
from supervisor.core.tasks import Task


@dataclass
class Member:
    """One tenant of the ring."""

    tenant: str
    grant: int
    tasks: list[Task] = field(default_factory=list)
    deficit: int = 0


class NaiveRobin:
    """The ring in the order in which tenants came. `at` is whose turn it is, `has_grant` whether it got its grant."""

    def __init__(self, weights: dict[str, int]) -> None:
        self.weights = weights
        self.returned: list[Task] = []
        self.ring: list[Member] = []
        self.at = 0
        self.has_grant = False

    def member(self, tenant: str) -> Member | None:
        return next((each for each in self.ring if each.tenant == tenant), None)

    @property
    def tasks(self) -> list[Task]:
        return self.returned + [task for each in self.ring for task in each.tasks]

    def push(self, task: Task) -> None:
        member = self.member(task.tenant)
        if member is None:
            member = Member(task.tenant, QUANTUM_TOKENS * self.weights.get(task.tenant, 1))
            self.ring.append(member)
        member.tasks.append(task)

    def push_front(self, task: Task) -> None:
        self.returned.insert(0, task)

    def walk(self) -> Task | None:
        """Go round until somebody can pay for the first task; the turn is then there."""
        if self.returned:
            return self.returned[0]
        while self.ring:
            self.at %= len(self.ring)
            member = self.ring[self.at]
            if not self.has_grant:
                member.deficit += member.grant
                self.has_grant = True
            if member.tasks[0].expected_tokens <= member.deficit:
                return member.tasks[0]
            self.at, self.has_grant = self.at + 1, False
        return None

    def look(self) -> Task | None:
        """What `walk` would give, with nothing changed."""
        kept = self.at, self.has_grant, [each.deficit for each in self.ring]
        found = self.walk()
        self.at, self.has_grant = kept[0], kept[1]
        for member, deficit in zip(self.ring, kept[2], strict=True):
            member.deficit = deficit
        return found

    def take(self) -> Task:
        task = self.walk()
        assert task is not None
        if self.returned:
            return self.returned.pop(0)
        member = self.ring[self.at]
        member.deficit -= task.expected_tokens
        del member.tasks[0]
        self._drop_if_empty(member)
        return task

    def remove(self, task: Task) -> None:
        if task in self.returned:
            self.returned.remove(task)
            return
        member = self.member(task.tenant)
        assert member is not None
        was_first = member.tasks[0] is task
        member.tasks.remove(task)
        if member.tasks and was_first:
            is_in_turn = self.has_grant and self.ring[self.at] is member
            credit_max = member.tasks[0].expected_tokens + (member.grant if is_in_turn else 0)
            member.deficit = min(member.deficit, credit_max)
        self._drop_if_empty(member)

    def _drop_if_empty(self, member: Member) -> None:
        if member.tasks:
            return
        index = self.ring.index(member)
        self.ring.remove(member)
        if index < self.at:
            self.at -= 1
        elif index == self.at:
            self.has_grant = False
        if not self.ring:
            self.at, self.has_grant = 0, False
