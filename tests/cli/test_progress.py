"""The line that says what is waited for."""

import threading

import pytest

from orchctl.progress import WaitingLine
from tests.cli.peer import WAIT_S_MAX
from tests.cli.screens import screen


def join_line() -> None:
    for thread in threading.enumerate():
        if thread.name == "waiting-line":
            thread.join(WAIT_S_MAX)


def test_nothing_is_written_once_it_is_cleared(capsys: pytest.CaptureFixture[str]) -> None:
    is_looking, may_answer = threading.Event(), threading.Event()

    def look() -> str:
        is_looking.set()
        may_answer.wait(WAIT_S_MAX)
        return "too late"

    with WaitingLine(screen(has_cursor=True), look) as line:
        is_looking.wait(WAIT_S_MAX)
        line.clear()
        may_answer.set()
        join_line()

    assert capsys.readouterr().err == "\r\x1b[K"


def test_without_a_cursor_nobody_even_looks(capsys: pytest.CaptureFixture[str]) -> None:
    looks: list[None] = []

    def look() -> str:
        looks.append(None)
        return ""

    with WaitingLine(screen(), look):
        join_line()

    assert looks == []
    assert capsys.readouterr().err == ""
