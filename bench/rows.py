"""A row of the table of goals: what it asks, what was measured, and the verdict. Measures nothing."""

from dataclasses import asdict, dataclass, field
from enum import StrEnum

Figures = dict[str, float]


class Verdict(StrEnum):
    """How a row came out; `skipped` says that it was not measured, and why is in its text."""

    GOAL = "goal"
    MUST = "must"
    MISSED = "MISSED"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `figures` are the numbers behind `measured`, for the JSON."""

    number: int
    what: str
    must: str
    goal: str
    measured: str
    verdict: Verdict
    figures: Figures = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Bound:
    """One figure with its two limits; `is_floor` where more is better."""

    value: float
    must: float
    goal: float
    is_floor: bool = False

    def meets(self, limit: float) -> bool:
        """Whether the figure is on the right side of a limit."""
        return self.value >= limit if self.is_floor else self.value <= limit


def judge(*bounds: Bound) -> Verdict:
    """The worst figure decides."""
    if all(bound.meets(bound.goal) for bound in bounds):
        return Verdict.GOAL
    return Verdict.MUST if all(bound.meets(bound.must) for bound in bounds) else Verdict.MISSED


def render(rows: list[Row]) -> str:
    """The table as text, one line for each row."""
    header = ("#", "what", "must", "goal", "measured", "verdict")
    cells = [header, *((str(r.number), r.what, r.must, r.goal, r.measured, str(r.verdict)) for r in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
