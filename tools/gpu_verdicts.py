"""The verdicts of `make gpu-check`: what a check found, as a document for programs and a table for people. Pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a check ended. `SKIPPED`: this host cannot show it, and the detail says why."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One check. `name` is `<subject>` or `<subject> <uuid>`, `detail` one line of what was seen."""

    name: str
    outcome: Outcome
    detail: str


def passed(name: str, detail: str) -> Verdict:
    """It is as it should be."""
    return Verdict(name, Outcome.PASSED, detail)


def failed(name: str, detail: str) -> Verdict:
    """It is not."""
    return Verdict(name, Outcome.FAILED, detail)


def skipped(name: str, detail: str) -> Verdict:
    """It cannot be seen here."""
    return Verdict(name, Outcome.SKIPPED, detail)


def document(verdicts: Sequence[Verdict], facts: dict[str, object]) -> dict[str, object]:
    """The report: facts of the host, how many checks ended how, and each check."""
    counts = {str(outcome): sum(each.outcome is outcome for each in verdicts) for outcome in Outcome}
    return {**facts, "counts": counts, "checks": [asdict(each) for each in verdicts]}


def table(verdicts: Sequence[Verdict]) -> list[str]:
    """One line for each check, and one that sums up."""
    width = max((len(each.name) for each in verdicts), default=0)
    lines = [f"{each.outcome:<7}  {each.name:<{width}}  {each.detail}" for each in verdicts]
    counts = ", ".join(f"{sum(each.outcome is outcome for each in verdicts)} {outcome}" for outcome in Outcome)
    return [*lines, f"gpu-check: {counts}"]
