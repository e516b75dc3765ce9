"""Whether a canary is to go on, to take over or to be rolled back (ORCH-3033): counts in, a verdict out. Pure.

Both sides are counted over the same window, so that what harms both (a slow disk, a burst of work) condemns neither.

1. Parity, where it is asked for and known: fewer equal answers than agreed condemn at once.
2. Fewer tasks of the canary than agreed: nothing is said.
3. A larger share of failed runs than the current revision has, by more than the gap and what chance explains.
4. The same of first tokens past the objective.
5. Enough tasks with nothing against it, and parity known where it is asked for: it takes over, where that was agreed.

Runs that say nothing of their worker (a cancel, a caller's fault) are no tasks here. Decides about counts alone: what a
verdict leads to is `rollouts`' to say.
"""

from collections import deque
from enum import StrEnum
from math import sqrt

from msgspec import Struct, field

from supervisor.core.revisions import JudgePlan

CELLS = 30
"""Parts of the window: what is older than the window by one part is forgotten."""


DEVIATIONS = 2.0
"""Standard deviations by which one side must be worse: fewer would condemn by bad luck, more would wait for harm."""


class Counts(Struct):
    """Runs of one side: all that ended or gave a first token, and what was wrong with them."""

    tasks: int = 0
    failed: int = 0
    first_tokens: int = 0
    late: int = 0

    def add(self, other: "Counts") -> None:
        """Count those too."""
        self.tasks += other.tasks
        self.failed += other.failed
        self.first_tokens += other.first_tokens
        self.late += other.late

    @property
    def failed_share(self) -> float:
        """Of the tasks, 0 where there is none."""
        return self.failed / self.tasks if self.tasks else 0.0

    @property
    def late_share(self) -> float:
        """Of the first tokens, 0 where there is none."""
        return self.late / self.first_tokens if self.first_tokens else 0.0


class Tally(Struct):
    """What one side did in the last `window_ms`: O(1) to count, O(`CELLS`) to sum."""

    window_ms: int
    cells: deque[tuple[int, Counts]] = field(default_factory=deque)

    def note_end(self, now_ms: float, *, is_failed: bool) -> None:
        """A run ended, by its answer or by a fault of its worker."""
        cell = self._cell(now_ms)
        cell.tasks += 1
        cell.failed += is_failed

    def note_first_token(self, now_ms: float, *, is_late: bool) -> None:
        """A run gave its first token."""
        cell = self._cell(now_ms)
        cell.first_tokens += 1
        cell.late += is_late

    def sum(self, now_ms: float) -> Counts:
        """All of the window."""
        self._forget(self._number(now_ms))
        total = Counts()
        for _, counts in self.cells:
            total.add(counts)
        return total

    def _number(self, now_ms: float) -> int:
        return int(now_ms * CELLS // self.window_ms)

    def _cell(self, now_ms: float) -> Counts:
        number = self._number(now_ms)
        if not self.cells or self.cells[-1][0] != number:
            self.cells.append((number, Counts()))
            self._forget(number)
        return self.cells[-1][1]

    def _forget(self, number: int) -> None:
        while self.cells and self.cells[0][0] < number - CELLS:
            self.cells.popleft()


class Verdict(StrEnum):
    """What is to become of the canary."""

    KEEP = "keep"
    PROMOTE = "promote"
    ROLL_BACK = "roll back"


class Judgement(Struct, frozen=True):
    """A verdict, and one sentence why."""

    verdict: Verdict
    cause: str


def judge(plan: JudgePlan, canary: Counts, current: Counts, parity: float | None) -> Judgement:
    """The verdict on these counts; `parity` is the share of equal answers, None while nobody knows."""
    if plan.parity_min is not None and parity is not None and parity < plan.parity_min:  # 1
        return Judgement(
            Verdict.ROLL_BACK, f"{parity:.0%} of the golden prompts are answered alike, {plan.parity_min:.0%} must be"
        )
    if canary.tasks < plan.min_tasks:  # 2
        return Judgement(Verdict.KEEP, f"{canary.tasks} of {plan.min_tasks} tasks ended")
    chance = _chance(canary.failed, canary.tasks, current.failed, current.tasks)
    if canary.failed_share > current.failed_share + plan.error_gap_max + chance:  # 3
        return Judgement(
            Verdict.ROLL_BACK,
            f"{canary.failed_share:.1%} of its runs failed, of the current ones {current.failed_share:.1%}",
        )
    has_objective = plan.first_token_ms_max is not None
    chance = _chance(canary.late, canary.first_tokens, current.late, current.first_tokens)
    if has_objective and canary.late_share > current.late_share + plan.late_gap_max + chance:  # 4
        return Judgement(
            Verdict.ROLL_BACK,
            f"{canary.late_share:.1%} of its first tokens came after {plan.first_token_ms_max} ms, of the current ones "
            f"{current.late_share:.1%}",
        )
    is_proved = plan.parity_min is None or parity is not None
    if plan.promote_after_tasks is not None and canary.tasks >= plan.promote_after_tasks and is_proved:  # 5
        return Judgement(Verdict.PROMOTE, f"{canary.tasks} tasks ended with nothing against it")
    return Judgement(Verdict.KEEP, "nothing is against it")


def _chance(bad: int, of: int, bad_there: int, of_there: int) -> float:
    """By how much two equal sides differ in all but a few cases of a hundred: `DEVIATIONS` of their difference."""
    if not of or not of_there:
        return 0.0
    share = (bad + bad_there) / (of + of_there)
    return DEVIATIONS * sqrt(share * (1 - share) * (1 / of + 1 / of_there))
