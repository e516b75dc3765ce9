"""The heap of alarms: in order, and without the pointless ones growing in it."""

from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.agenda import Agenda, Alarm, Entry


@given(st.lists(st.floats(0, 1e9), max_size=50), st.floats(0, 1e9))
def test_what_is_due_comes_out_in_order_and_nothing_else(dues: list[float], now_ms: float) -> None:
    agenda = Agenda()
    for number, due in enumerate(dues):
        agenda.add(due, Alarm.TASK_DEADLINE, str(number))
    fired = []
    while (entry := agenda.pop_due(now_ms)) is not None:
        fired.append(entry[0])

    assert fired == sorted(due for due in dues if due <= now_ms)
    assert agenda.next_due_ms() == min((due for due in dues if due > now_ms), default=None)


def test_pointless_alarms_are_cleared_away_once_they_are_the_most() -> None:
    agenda, alive = Agenda(), set[str]()

    def is_live(entry: Entry) -> bool:
        return entry[2] in alive

    for number in range(100_000):
        agenda.add(float(number), Alarm.TASK_DEADLINE, str(number))
        alive.add(str(number))
        if number >= 100:
            alive.remove(str(number - 100))
            agenda.note_pointless(is_live)

    assert len(agenda) <= 2_048
    assert agenda.next_due_ms() is not None
    assert {str(number) for number in range(99_900, 100_000)} == alive
