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
    had_its_turn: bool = False
    """It went in this round already, and came back: what is left of the round passes it by."""


class NaiveRobin:
    """The ring in the order in which tenants came. `at` is whose turn it is, `has_grant` whether it got its grant."""

    def __init__(self, weights: dict[str, int]) -> None:
        self.weights = weights
        self.returned: list[Task] = []
        self.ring: list[Member] = []
        self.at = 0
        self.has_grant = False
        self.went: set[str] = set()  # in this round

    def member(self, tenant: str) -> Member | None:
        return next((each for each in self.ring if each.tenant == tenant), None)

    @property
    def tasks(self) -> list[Task]:
        return self.returned + [task for each in self.ring for task in each.tasks]

    def push(self, task: Task) -> None:
        member = self.member(task.tenant)
        if member is None:
            member = Member(task.tenant, QUANTUM_TOKENS * self.weights.get(task.tenant, 1))
            member.had_its_turn = task.tenant in self.went
            self.ring.append(member)
        member.tasks.append(task)

    def push_front(self, task: Task) -> None:
        self.returned.insert(0, task)

    def walk(self) -> Task | None:
        """Go round until somebody can pay for the first task; the turn is then there."""
        if self.returned:
            return self.returned[0]
        while self.ring:
            if self.at >= len(self.ring):
                self.at = 0
                self.went.clear()
            member = self.ring[self.at]
            if not self.has_grant:
                member.deficit += 0 if member.had_its_turn else member.grant
                self.has_grant = True
                member.had_its_turn = False
            if member.tasks[0].expected_tokens <= member.deficit:
                return member.tasks[0]
            self.at, self.has_grant = self.at + 1, False
        return None

    def look(self) -> Task | None:
        """What `walk` would give, with nothing changed."""
        kept = self.at, self.has_grant, [(each.deficit, each.had_its_turn) for each in self.ring], set(self.went)
        found = self.walk()
        self.at, self.has_grant, _, self.went = kept
        for member, (deficit, had_its_turn) in zip(self.ring, kept[2], strict=True):
            member.deficit, member.had_its_turn = deficit, had_its_turn
        return found

    def take(self) -> Task:
        task = self.walk()
        assert task is not None
        if self.returned:
            return self.returned.pop(0)
        member = self.ring[self.at]
        member.deficit -= task.expected_tokens
        self.went.add(member.tenant)
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
            self.went.clear()
