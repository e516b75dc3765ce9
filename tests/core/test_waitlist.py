"""The order of the waiting: FIFO in a class, interactive first, a floor for batch, and who may be dropped."""

import pytest

from supervisor.core.tasks import Task
from supervisor.core.waitlist import BATCH_AGE_MS_MAX, BATCH_EVERY, Waitlist
from supervisor.wire.codes import Priority
from tests.core.builders import make_task

INTERACTIVE, BATCH = Priority.INTERACTIVE, Priority.BATCH


def filled(*names: str) -> Waitlist:
    """One waiting task per name; a name that begins with b is a batch task."""
    waitlist = Waitlist()
    for name in names:
        waitlist.push(make_task(name, batch=name.startswith("b")))
    return waitlist


def take(waitlist: Waitlist, now_ms: float = 0) -> str | None:
    head = waitlist.head(now_ms)
    if head is not None:
        waitlist.take(head, now_ms)
    return None if head is None else head.job_id


def drain(waitlist: Waitlist) -> list[str]:
    return list(iter(lambda: take(waitlist), None))


@pytest.mark.orch("ORCH-3004")
def test_first_in_first_out() -> None:
    assert drain(filled("i1", "i2", "i3")) == ["i1", "i2", "i3"]


def test_interactive_goes_before_batch() -> None:
    assert drain(filled("b1", "i1", "b2", "i2")) == ["i1", "i2", "b1", "b2"]


@pytest.mark.orch("ORCH-3051")
def test_batch_gets_one_of_every_nine_while_it_waits() -> None:
    waitlist = filled("b1", "b2", "b3", *(f"i{n}" for n in range(40)))

    order = drain(waitlist)

    assert [order.index(name) for name in ("b1", "b2", "b3")] == [
        BATCH_EVERY - 1,
        2 * BATCH_EVERY - 1,
        3 * BATCH_EVERY - 1,
    ]


def test_dispatches_count_for_the_floor_only_while_batch_waits() -> None:
    waitlist = filled(*(f"i{n}" for n in range(30)))
    before = [take(waitlist) for _ in range(20)]
    waitlist.push(make_task("b1", batch=True))

    after = drain(waitlist)

    assert len(before) == 20
    assert after.index("b1") == BATCH_EVERY - 1


@pytest.mark.orch("ORCH-3051")
def test_a_batch_task_that_waited_half_a_minute_goes_at_once() -> None:
    waitlist = filled("b1", "i1")

    assert take(waitlist, BATCH_AGE_MS_MAX) == "i1"
    waitlist.push(make_task("i2"))
    assert take(waitlist, BATCH_AGE_MS_MAX + 1) == "b1"


@pytest.mark.orch("ORCH-3051")
def test_a_backlog_of_old_batch_goes_before_interactive_once_and_not_as_a_whole() -> None:
    waitlist = filled(*(f"b{number}" for number in range(50)))
    for number in range(8):
        waitlist.push(make_task(f"i{number}"))

    order = [take(waitlist, 10 * BATCH_AGE_MS_MAX) for _ in range(10)]

    assert order == ["b0", *(f"i{number}" for number in range(8)), "b1"]


@pytest.mark.orch("ORCH-3051")
def test_slow_dispatches_give_old_batch_a_turn_each_half_minute() -> None:
    waitlist = filled("b1", "b2", "i1", "i2", "i3", "i4", "i5")
    step_ms = BATCH_AGE_MS_MAX * 0.6

    order = [take(waitlist, 2 * BATCH_AGE_MS_MAX + step_ms * turn) for turn in range(7)]

    assert order == ["b1", "i1", "b2", "i2", "i3", "i4", "i5"]


def test_a_task_that_lost_its_worker_goes_first_in_its_class() -> None:
    waitlist = filled("i1", "b1", "i2", "b2")
    again, b_again = make_task("again"), make_task("b-again", batch=True)
    waitlist.push_front(again)
    waitlist.push_front(b_again)

    assert drain(waitlist) == ["again", "i1", "i2", "b-again", "b1", "b2"]


def test_a_task_leaves_from_anywhere() -> None:
    waitlist = Waitlist()
    tasks = [make_task(f"i{n}") for n in range(5)]
    for task in tasks:
        waitlist.push(task)
    for task in (tasks[2], tasks[0], tasks[4]):
        waitlist.remove(task)

    assert drain(waitlist) == ["i1", "i3"]


def test_rank_counts_those_that_go_before() -> None:
    waitlist = Waitlist()
    tasks = {name: make_task(name, batch=name.startswith("b")) for name in ("i1", "b1", "i2", "b2", "i3")}
    for task in tasks.values():
        waitlist.push(task)
    waitlist.remove(tasks["i1"])

    assert {name: waitlist.rank(tasks[name]) for name in ("i2", "i3", "b1", "b2")} == {
        "i2": 0,
        "i3": 1,
        "b1": 2,
        "b2": 3,
    }


def test_rank_stays_right_over_many_blocks_of_leavers() -> None:
    waitlist = Waitlist()
    tasks = [make_task(f"i{n}") for n in range(3_000)]
    for task in tasks:
        waitlist.push(task)
    for task in tasks[:1_500:2]:
        waitlist.remove(task)
    left = [*tasks[1:1_500:2], *tasks[1_500:]]

    assert [waitlist.rank(task) for task in left[::97]] == list(range(len(left)))[::97]


def test_bytes_tokens_and_depth_follow_every_change() -> None:
    waitlist = Waitlist()
    small, large = (
        make_task("i1", size_bytes=10, expected_tokens=5),
        make_task("b1", batch=True, size_bytes=700, expected_tokens=9),
    )
    waitlist.push(small)
    waitlist.push(large)

    assert (waitlist.size_bytes, waitlist.depth(INTERACTIVE), waitlist.depth(BATCH), len(waitlist)) == (710, 1, 1, 2)
    assert (waitlist.expected_tokens(INTERACTIVE), waitlist.expected_tokens(BATCH)) == (5, 9)
    waitlist.remove(small)
    assert (waitlist.size_bytes, waitlist.expected_tokens(INTERACTIVE), len(waitlist)) == (700, 0, 1)


def aged(name: str, admitted_ms: float, *, attempt: int = 0) -> Task:
    return make_task(name, batch=name.startswith("b"), admitted_ms=admitted_ms, attempt=attempt)


@pytest.mark.orch("ORCH-3005")
def test_the_oldest_of_any_class_or_of_one() -> None:
    waitlist = Waitlist()
    for task in (aged("b1", 5), aged("i1", 7), aged("b2", 8), aged("i2", 9)):
        waitlist.push(task)
    oldest = [waitlist.oldest(), waitlist.oldest(INTERACTIVE), waitlist.oldest(BATCH)]

    assert [task and task.job_id for task in oldest] == ["b1", "i1", "b1"]


@pytest.mark.orch("ORCH-3005")
def test_only_a_lower_class_is_shed_and_its_newest_first() -> None:
    waitlist = filled("i1", "b1", "i2", "b2")
    victim = waitlist.newest_below(INTERACTIVE)

    assert victim is not None
    assert victim.job_id == "b2"
    assert waitlist.newest_below(BATCH) is None


@pytest.mark.orch("ORCH-3005")
def test_a_task_that_ran_already_is_never_a_victim() -> None:
    waitlist = Waitlist()
    waitlist.push(aged("b1", 5))
    waitlist.push_front(aged("b0", 1, attempt=1))
    first = waitlist.oldest()
    waitlist.remove(next(task for task in waitlist if task.job_id == "b1"))

    assert first is not None
    assert first.job_id == "b1"
    assert waitlist.oldest() is None
    assert waitlist.newest_below(INTERACTIVE) is None


def test_an_empty_waitlist_has_no_head_and_no_victim() -> None:
    waitlist = Waitlist()

    assert (waitlist.head(0), waitlist.oldest(), waitlist.newest_below(INTERACTIVE), len(waitlist)) == (
        None,
        None,
        None,
        0,
    )


@pytest.mark.orch("ORCH-3051")
def test_an_interactive_task_goes_before_batch_that_waited_alone_for_room() -> None:
    waitlist = filled("b1")
    head = waitlist.head(0)
    assert head is not None
    waitlist.hold(head)

    waitlist.push(make_task("i1"))

    assert take(waitlist) == "i1"


def held(waitlist: Waitlist, now_ms: float) -> Task:
    """The head, once it was found to have no room."""
    head = waitlist.head(now_ms)
    assert head is not None
    waitlist.hold(head)
    return head


@pytest.mark.orch("ORCH-3051")
def test_time_alone_does_not_take_the_turn_from_a_head_without_room() -> None:
    waitlist = filled("b1", "i1", "i2")
    head = held(waitlist, 0)

    later = [take(waitlist, BATCH_AGE_MS_MAX + 1) for _ in range(2)]

    assert head.job_id == "i1"
    assert later == ["i1", "b1"], "one dispatch late, and no more"


@pytest.mark.orch("ORCH-3051")
def test_batch_that_is_due_keeps_the_turn_from_interactive_tasks_that_arrive() -> None:
    waitlist = filled("b1", "i1")
    head = held(waitlist, BATCH_AGE_MS_MAX + 1)
    waitlist.push(make_task("i2"))

    assert head.job_id == "b1"
    assert take(waitlist, BATCH_AGE_MS_MAX + 1) == "b1"


@pytest.mark.orch("ORCH-3051")
def test_the_turn_is_the_heads_own_and_ends_when_it_leaves() -> None:
    waitlist = Waitlist()
    old, young = make_task("b1", batch=True), make_task("b2", batch=True, admitted_ms=BATCH_AGE_MS_MAX)
    for task in (old, young, make_task("i1")):
        waitlist.push(task)
    assert held(waitlist, BATCH_AGE_MS_MAX + 1) is old

    waitlist.remove(old)

    assert take(waitlist, BATCH_AGE_MS_MAX + 1) == "i1", "the young one is not due by count or by age"


def test_another_task_that_leaves_takes_no_turn_away() -> None:
    waitlist = filled("b1", "i1", "i2")
    assert held(waitlist, 0).job_id == "i1"

    waitlist.remove(next(task for task in waitlist if task.job_id == "i2"))

    assert take(waitlist, BATCH_AGE_MS_MAX + 1) == "i1"


def test_rank_stays_right_where_many_went_back_to_the_front() -> None:
    waitlist = Waitlist()
    tasks = [make_task(f"i{n}") for n in range(700)]
    returned = [make_task(f"r{n}", attempt=1) for n in range(1_100)]
    for task in tasks:
        waitlist.push(task)
    for task in returned:
        waitlist.push_front(task)
    waitlist.remove(returned[500])
    waitlist.remove(tasks[3])
    left = [task for task in (*reversed(returned), *tasks) if task not in (returned[500], tasks[3])]

    assert list(waitlist) == left
    assert [waitlist.rank(task) for task in left] == list(range(len(left)))


@pytest.mark.orch("ORCH-3051")
def test_a_batch_task_that_was_turned_away_does_not_lose_the_turn_of_its_class() -> None:
    waitlist = filled("b1", "b2", *(f"i{n}" for n in range(40)))
    for _ in range(BATCH_EVERY - 1):
        take(waitlist)
    head = waitlist.head(0)
    assert head is not None
    assert take(waitlist) == "b1"
    between = take(waitlist)

    waitlist.push_front(head)

    assert between == "i8"
    assert take(waitlist) == "b1"
    assert drain(waitlist).index("b2") == BATCH_EVERY - 1


@pytest.mark.orch("ORCH-3051")
def test_old_batch_that_was_turned_away_is_still_as_old_as_it_was() -> None:
    waitlist = filled("b1", "i1", "i2")
    head = waitlist.head(BATCH_AGE_MS_MAX + 1)
    assert head is not None
    assert take(waitlist, BATCH_AGE_MS_MAX + 1) == "b1"

    waitlist.push_front(head)

    assert take(waitlist, BATCH_AGE_MS_MAX + 1) == "b1"


@pytest.mark.orch("ORCH-3051")
def test_a_turn_that_another_batch_task_used_since_is_not_given_back() -> None:
    waitlist = filled("b1", "b2", *(f"i{n}" for n in range(40)))
    for _ in range(BATCH_EVERY - 1):
        take(waitlist)
    first = waitlist.head(0)
    assert first is not None
    order = [take(waitlist) for _ in range(BATCH_EVERY + 1)]

    waitlist.push_front(first)

    assert (order[0], order[-1]) == ("b1", "b2")
    assert drain(waitlist).index("b1") == BATCH_EVERY - 1


@pytest.mark.orch("ORCH-3051")
def test_a_batch_task_that_is_always_turned_away_does_not_keep_interactive_tasks_from_going() -> None:
    waitlist = filled("b1", *(f"i{n}" for n in range(40)))
    went = 0
    for _ in range(30):
        head = waitlist.head(0)
        assert head is not None
        waitlist.take(head, 0)
        if head.job_id == "b1":
            waitlist.push_front(head)
        else:
            went += 1

    assert went == 24, "eight of ten: batch has its turn and once more"
