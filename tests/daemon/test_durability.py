"""Accepted means durable: the daemon is killed in the middle of its work, and every acked task ends exactly once."""

from collections import Counter

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.pools import a_pool
from tests.support.waiting import wait_until

TASKS = 200
TOKENS = 120


@pytest.mark.fault("F07")
@pytest.mark.engines
def test_kill_9_in_the_middle_of_200_accepted_tasks_loses_and_repeats_nothing(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_pool(queue={"capacity": 512})).start_ready()
    accepted = [daemon.accept(prompt=f"task {number}", max_tokens=TOKENS, seed=number) for number in range(TASKS)]
    daemon.wait_tasks_logged(20)
    daemon.kill()
    survivors = daemon.engine_pids()
    ended_before = Counter(line["task_id"] for line in daemon.tasks_logged())
    daemon.start_ready()

    ends = [daemon.read_stream(task_id).end for task_id in accepted]

    assert 20 <= len(ended_before) < TASKS
    assert len(survivors) == 1
    assert daemon.engine_pids() == survivors
    assert {end.name for end in ends} == {"end"}
    assert {end.data["tokens_out"] for end in ends} == {TOKENS}
    wait_until(lambda: daemon.status()["pools"][0]["metrics"]["waiting"] == 0, what="an empty queue")
    ended_after = Counter(line["task_id"] for line in daemon.tasks_logged())
    # The log is written by a thread of its own: a kill may take the line of an end that is on disk, and may leave
    # one of an end that is not. Such a task ran again, and no more than once.
    assert set(ended_before) | set(ended_after) <= set(accepted)
    assert max(ended_after.values()) == 1


@pytest.mark.engines
def test_a_finished_stream_is_readable_after_a_restart(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon().start_ready()
    task_id = daemon.accept(max_tokens=20)
    before = daemon.read_stream(task_id)
    daemon.kill()
    daemon.start()

    after = daemon.read_stream(task_id)

    assert [event for event in before.events if event.name != "metrics"] == after.events
    assert daemon.ask("GET", f"/v1/tasks/{task_id}").json["result"]["text"] == before.text


@pytest.mark.fault("F07")
@pytest.mark.engines
def test_a_strict_stream_goes_on_over_a_killed_daemon(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon().start_ready()
    whole = daemon.read_stream(daemon.accept(prompt="go on", max_tokens=450, seed=5))
    task_id = daemon.accept(prompt="go on", max_tokens=450, seed=5)
    with daemon.open_stream(task_id) as events:
        seen = [next(events) for _ in range(30)]
        daemon.kill()
    daemon.start()

    last = seen[-1].seq
    rest = daemon.read_stream(task_id, after=last)

    tokens = [event for event in [*seen, *rest.events] if event.name == "token"]
    assert "".join(event.data["t"] for event in tokens) == whole.text
