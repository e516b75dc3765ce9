"""A plan made ahead: what fits in start order, and what would wait."""

from supervisor.core.capacity import Candidate, Verdict, plan_starts
from supervisor.core.memory_need import DeviceNeed, NeedSource
from supervisor.core.needs import Need


def a_candidate(pool_id: str, *needs_mib: int, **given: object) -> Candidate:
    needs = tuple(Need(mib, NeedSource.ESTIMATE, "as estimated") for mib in needs_mib)
    devices = tuple(f"GPU-{at}" for at in range(len(needs_mib)))
    return Candidate(pool_id, devices, needs, **given)  # type: ignore[arg-type]


def test_each_pool_that_fits_leaves_less_for_the_next() -> None:
    pools = [a_candidate("a", 10_000), a_candidate("b", 10_000), a_candidate("c", 10_000), a_candidate("d", 2_000)]

    judged = plan_starts(pools, {"GPU-0": 24_000})

    assert [one.verdict for one in judged] == [Verdict.FITS, Verdict.FITS, Verdict.WAITS, Verdict.FITS]
    assert [one.shares[0].free_before_mib for one in judged] == [24_000, 14_000, 4_000, 4_000]


def test_a_pool_waits_where_one_of_its_devices_is_short_and_takes_nothing_of_the_other() -> None:
    judged = plan_starts([a_candidate("a", 1_000, 9_000), a_candidate("b", 7_000)], {"GPU-0": 8_000, "GPU-1": 8_000})

    assert [one.verdict for one in judged] == [Verdict.WAITS, Verdict.FITS]
    assert judged[0].cause == "GPU-1 has 8000 MiB left of 9900"


def test_what_runs_has_taken_its_memory_already() -> None:
    judged = plan_starts([a_candidate("a", 20_000, has_memory=True), a_candidate("b", 3_000)], {"GPU-0": 4_000})

    assert [one.verdict for one in judged] == [Verdict.RUNS, Verdict.FITS]


def test_a_refused_pool_and_one_of_unknown_size_take_nothing() -> None:
    pools = [a_candidate("a", 3_000, refused="never"), Candidate("b", (), ()), a_candidate("c", 3_000)]

    judged = plan_starts(pools, {"GPU-0": 4_000})

    assert [one.verdict for one in judged] == [Verdict.NEVER, Verdict.UNKNOWN, Verdict.FITS]


def test_an_engine_that_takes_a_share_of_the_whole_leaves_its_reserve_outside() -> None:
    parts = (DeviceNeed(10_000, 4_000, 0, 1_000, total_share=0.9),)

    judged = plan_starts([a_candidate("a", 21_600, parts=parts)], {"GPU-0": 22_000})

    assert judged[0].verdict is Verdict.FITS
