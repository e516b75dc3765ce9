"""The judge of a canary: counts in, a verdict out; nothing is said too early, nothing that harms both condemns one."""

import pytest

from supervisor.core.judge import CELLS, Counts, Tally, Verdict, judge
from supervisor.core.revisions import JudgePlan

pytestmark = pytest.mark.orch("ORCH-3033")


def counts(tasks: int, failed: int = 0, late: int = 0) -> Counts:
    """Runs of one side, all of which gave a first token."""
    return Counts(tasks, failed, tasks, late)


@pytest.mark.parametrize(
    ("terms", "canary", "current", "verdict"),
    [
        ({}, counts(19, 19), counts(500), Verdict.KEEP),
        ({}, counts(20, 20), counts(500), Verdict.ROLL_BACK),
        ({}, counts(20, 20), counts(500, 500), Verdict.KEEP),
        ({}, counts(20, 1), counts(20), Verdict.KEEP),
        ({}, counts(1_000, 50), counts(1_000), Verdict.ROLL_BACK),
        ({"error_gap_max": 0.1}, counts(1_000, 50), counts(1_000), Verdict.KEEP),
        ({}, counts(20, 1), Counts(), Verdict.ROLL_BACK),
        ({}, counts(100, late=100), counts(100), Verdict.KEEP),
        ({"first_token_ms_max": 900}, counts(100, late=100), counts(100), Verdict.ROLL_BACK),
        ({"first_token_ms_max": 900}, counts(100, late=50), counts(100, late=48), Verdict.KEEP),
        ({"first_token_ms_max": 900, "late_gap_max": 0.6}, counts(100, late=50), counts(100), Verdict.KEEP),
        ({"promote_after_tasks": 50}, counts(49), counts(50), Verdict.KEEP),
        ({"promote_after_tasks": 50}, counts(50), counts(50), Verdict.PROMOTE),
        ({"promote_after_tasks": 50}, counts(50, 25), counts(50), Verdict.ROLL_BACK),
        ({"promote_after_tasks": 5}, counts(19), counts(50), Verdict.KEEP),
    ],
)
def test_what_the_counts_say(terms: dict[str, int], canary: Counts, current: Counts, verdict: Verdict) -> None:
    assert judge(JudgePlan(**terms), canary, current, None).verdict is verdict


@pytest.mark.parametrize(
    ("parity", "tasks", "verdict"),
    [
        (0.89, 0, Verdict.ROLL_BACK),
        (0.90, 0, Verdict.KEEP),
        (0.90, 20, Verdict.PROMOTE),
        (None, 20, Verdict.KEEP),
    ],
)
def test_what_parity_says(parity: float | None, tasks: int, verdict: Verdict) -> None:
    plan = JudgePlan(parity_min=0.9, promote_after_tasks=20)

    assert judge(plan, counts(tasks), counts(20), parity).verdict is verdict


def test_a_verdict_says_why() -> None:
    judgement = judge(JudgePlan(), counts(20, 10), counts(20), None)

    assert judgement.cause == "50.0% of its runs failed, of the current ones 0.0%"


def test_what_is_older_than_the_window_is_forgotten() -> None:
    tally = Tally(30_000)
    tally.note_end(0.0, is_failed=True)
    tally.note_end(29_999.0, is_failed=False)

    assert (tally.sum(29_999.0).tasks, tally.sum(30_000.0).tasks, tally.sum(31_000.0).tasks) == (2, 2, 1)


def test_a_tally_stays_small_for_any_number_of_runs() -> None:
    tally = Tally(30_000)
    for number in range(10_000):
        tally.note_end(number * 50.0, is_failed=False)
        tally.note_first_token(number * 50.0, is_late=number % 2 == 0)

    assert len(tally.cells) <= CELLS + 1
    total = tally.sum(500_000.0)
    assert 560 <= total.tasks <= 620
    assert total.late * 2 == total.first_tokens
