"""What a worker was seen to need stands in for the estimate, by numbered rules, and is kept."""

import msgspec
import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.memory_need import NeedSource, reserve_mib
from supervisor.core.needs import ENTRIES_MAX, STABLE_RUNS_MIN, LearnedNeed, NeedsBook, choose
from supervisor.core.restart import STABLE_MS
from tests.core.builders import Stage, only
from tests.core.test_headroom import a_stage, measure

PID = 77


def a_loaded_worker(need: int = 8_000) -> Stage:
    """A Ready worker that was promised `need` MiB."""
    stage = a_stage("p0")
    measure(stage, "p0", need=need, free=24_000)
    inc = stage.replica().incarnation
    stage.give(ev.EngineSpawned("p0", inc, PID, 9_000))
    stage.now += 4_000
    stage.give(ev.EngineHealthy("p0", inc))
    stage.give(ev.EngineInspected("p0", inc, "b1", 1, 4096))
    stage.give(ev.EngineTested("p0", inc))
    return stage


def hold(stage: Stage, mib: int, pid: int = PID) -> list[ef.Effect]:
    return stage.give(ev.MemoryHeld((("GPU-0", (ev.Holder(pid, mib), ev.Holder(1, 999))),)))


def learned_by(stage: Stage) -> LearnedNeed:
    found = stage.core.state.needs.find("r-p0")
    assert found is not None
    return found


def test_an_estimate_holds_while_nothing_was_observed() -> None:
    need = choose(8_000, None, 0)

    assert (need.mib, need.source) == (8_000, NeedSource.ESTIMATE)


@pytest.mark.parametrize(
    ("learned", "mib", "source"),
    [
        (LearnedNeed("r", "b1", peaks=(9_000,)), 9_000, NeedSource.LEARNED),
        (LearnedNeed("r", "b1", floors=(9_900,)), 9_900, NeedSource.LEARNED),
        (LearnedNeed("r", "b1", peaks=(6_000,), runs=STABLE_RUNS_MIN - 1), 8_000, NeedSource.ESTIMATE),
        (LearnedNeed("r", "b1", peaks=(6_000,), runs=STABLE_RUNS_MIN), 6_000, NeedSource.LEARNED),
        (LearnedNeed("r", "b1", peaks=(6_000,), floors=(7_000,), runs=9), 7_000, NeedSource.LEARNED),
    ],
    ids=["more observed", "out of memory before", "too few runs", "enough runs", "never below an OOM"],
)
def test_what_was_observed_holds_by_the_numbered_rules(learned: LearnedNeed, mib: int, source: NeedSource) -> None:
    need = choose(8_000, learned, 0)

    assert (need.mib, need.source) == (mib, source)


def test_the_peak_of_a_worker_is_kept_and_a_lower_figure_changes_nothing() -> None:
    stage = a_loaded_worker()

    hold(stage, 8_500)
    hold(stage, 7_000)

    assert learned_by(stage).peaks == (8_500,)


def test_memory_of_other_processes_teaches_nothing() -> None:
    stage = a_loaded_worker()

    hold(stage, 20_000, pid=4242)

    assert learned_by(stage).peaks == ()


def test_a_start_teaches_how_long_it_takes() -> None:
    assert learned_by(a_loaded_worker()).load_ms == 4_000


def test_a_stable_run_counts_once() -> None:
    stage = a_loaded_worker()
    hold(stage, 6_000)

    stage.pass_ms(STABLE_MS * 3)

    assert learned_by(stage).runs == 1


@pytest.mark.orch("ORCH-3039")
def test_an_oom_of_a_gpu_raises_the_need_to_a_tenth_more_than_was_used() -> None:
    stage = a_loaded_worker(need=8_000)
    hold(stage, 8_400)

    effects = stage.give(ev.EngineExited("p0", stage.replica().incarnation, "oom_vram", "out of memory"))

    assert learned_by(stage).floors == (9_240,)
    assert only(effects, ef.CommitNeeds)


@pytest.mark.orch("ORCH-3039")
def test_an_oom_while_loading_raises_the_need_above_what_was_promised() -> None:
    stage = a_stage("p0")
    measure(stage, "p0", need=8_000, free=24_000)
    stage.give(ev.EngineSpawned("p0", stage.replica().incarnation, PID, 9_000))

    stage.give(ev.EngineExited("p0", stage.replica().incarnation, "oom_vram", "out of memory"))

    assert learned_by(stage).floors == (8_800,)


@pytest.mark.orch("ORCH-3039")
@pytest.mark.parametrize("kind", ["oom_host", "host_alloc"])
def test_an_oom_of_the_host_raises_the_need_of_the_host_alone(kind: str) -> None:
    stage = a_stage("p0")
    measure(stage, "p0", need=8_000, free=24_000, host_need=3_000)
    stage.give(ev.EngineSpawned("p0", stage.replica().incarnation, PID, 9_000))

    stage.give(ev.EngineExited("p0", stage.replica().incarnation, kind, "it is gone"))

    assert (learned_by(stage).floors, learned_by(stage).host_floor) == ((), 3_300)


@pytest.mark.parametrize("kind", ["crashed", "killed", "cuda_error"])
def test_another_end_raises_nothing(kind: str) -> None:
    stage = a_loaded_worker()

    stage.give(ev.EngineExited("p0", stage.replica().incarnation, kind, "it is gone"))

    assert learned_by(stage).floors == ()


def test_the_next_start_goes_by_what_was_learned() -> None:
    stage = a_stage("p0")
    stage.core.state.needs.note_vram_oom("r-p0", "b1", (12_000,))

    effects = measure(stage, "p0", need=8_000, free=14_000)

    assert not only(effects, ef.SpawnEngine)
    assert "13200 and a reserve of 1320" in (stage.replica().cause or "")


def test_an_upgrade_of_the_engine_forgets_peaks_and_no_oom() -> None:
    book = NeedsBook()
    book.note_peak("r", "b1", (6_000,))
    book.note_vram_oom("r", "b1", (9_000,))

    book.note_peak("r", "b2", (5_000,))

    found = book.find("r")
    assert found == LearnedNeed("r", "b2", peaks=(5_000,), floors=(9_900,))


def test_what_is_restored_is_what_was_committed() -> None:
    book = NeedsBook()
    book.note_peak("r", "b1", (6_000, 7_000))
    book.note_load("r", "b1", 1_234.5)
    data = msgspec.json.encode(tuple(book.entries.values()))

    other = NeedsBook()
    other.restore(msgspec.json.decode(data, type=tuple[LearnedNeed, ...]))

    assert other.entries == book.entries


def test_the_book_is_bounded_and_forgets_what_was_touched_longest_ago() -> None:
    book = NeedsBook()
    for number in range(ENTRIES_MAX + 5):
        book.note_peak(f"r{number}", "b1", (1_000,))

    assert len(book.entries) == ENTRIES_MAX
    assert book.find("r0") is None
    assert book.find(f"r{ENTRIES_MAX}") is not None


def test_a_peak_that_rises_by_little_is_not_written_again() -> None:
    book = NeedsBook()

    assert book.note_peak("r", "b1", (1_000,))
    assert not book.note_peak("r", "b1", (1_010,))
    assert book.note_peak("r", "b1", (1_020,))


def run_out(stage: Stage, held: int) -> None:
    """A worker starts, is seen to hold so much, runs out of memory, and its process is gone."""
    measure(stage, "p0", need=8_000, free=24_000)
    inc = stage.replica().incarnation
    stage.give(ev.EngineSpawned("p0", inc, PID, 9_000))
    hold(stage, held)
    stage.give(ev.EngineExited("p0", inc, "oom_vram", "out of memory"))
    stage.give(ev.EngineStopped("p0", inc))
    stage.pass_ms(60_000)
    stage.give(ev.ModelVerified("p0", stage.replica().incarnation, "d"))


@pytest.mark.orch("ORCH-3039")
def test_every_further_oom_raises_from_what_was_used_and_not_from_what_the_one_before_left() -> None:
    stage = a_stage("p0")
    for _ in range(3):
        run_out(stage, held=8_400)

    assert learned_by(stage).floors == (9_240,)


@pytest.mark.orch("ORCH-3039")
def test_stable_runs_lower_what_an_oom_left_to_a_tenth_more_than_was_seen() -> None:
    book = NeedsBook()
    book.note_peak("r", "b1", (6_000,))
    for _ in range(STABLE_RUNS_MIN):
        book.note_stable("r", "b1")
    book.note_vram_oom("r", "b1", (9_000,))
    for _ in range(STABLE_RUNS_MIN - 1):
        book.note_stable("r", "b1")
    before = book.find("r")
    book.note_stable("r", "b1")
    after = book.find("r")

    assert before is not None
    assert after is not None
    assert (before.floors, after.floors) == ((9_900,), (6_600,))


@pytest.mark.parametrize("learned", [LearnedNeed("r", "b1", floors=(90_000,)), LearnedNeed("r", "b1", peaks=(78_000,))])
def test_what_was_learned_never_asks_for_more_than_the_empty_device_has(learned: LearnedNeed) -> None:
    need = choose(8_000, learned, 0, 81_920)

    assert need.mib + reserve_mib(need.mib) <= 81_920
    assert choose(90_000, learned, 0, 81_920).mib == 90_000


def test_a_worker_that_ran_on_nearly_all_of_a_device_starts_there_again() -> None:
    need = choose(90_000, LearnedNeed("r", "b1", peaks=(78_000,), runs=STABLE_RUNS_MIN), 0, 81_920)

    assert need.mib + reserve_mib(need.mib) <= 81_920
