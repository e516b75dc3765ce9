"""One line on a terminal that says what is being waited for, written over again until there is something to show.

Where a line cannot be written over (a pipe, TERM=dumb) nothing is printed at all.
"""

import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from orchctl.spans import spoken
from orchctl.table import shorten
from orchctl.terminal import Screen, Style, one_line
from supervisor.wire.tasks import TaskView

FRAME_S = 0.12
"""Between two turns of the spinner."""

FRAMES_PER_LOOK = 8
"""The daemon is asked about once a second, whatever the spinner does."""

_ERASE_LINE = "\r\x1b[K"


class WaitingLine:
    """Turns until it is left or cleared. `look` gives the words; it must not raise."""

    def __init__(self, screen: Screen, look: Callable[[], str]) -> None:
        self._screen = screen
        self._look = look
        self._over = threading.Event()
        # Held for each write, so that nothing is ever written after `clear` has come back.
        self._writing = threading.Lock()

    def __enter__(self) -> Self:
        if self._screen.has_cursor:
            threading.Thread(target=self._turn, name="waiting-line", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.clear()

    def clear(self) -> None:
        """Take the line away, for good."""
        with self._writing:
            if not self._over.is_set() and self._screen.has_cursor:
                sys.stderr.write(_ERASE_LINE)
                sys.stderr.flush()
            self._over.set()

    def _turn(self) -> None:
        words = ""
        frame = 0
        while not self._over.is_set():
            if frame % FRAMES_PER_LOOK == 0:
                words = self._look()
            self._write(f"{self._screen.signs.spinner[frame % len(self._screen.signs.spinner)]} {one_line(words)}")
            frame += 1
            self._over.wait(FRAME_S)

    def _write(self, line: str) -> None:
        with self._writing:
            if not self._over.is_set():
                cut = shorten(line, self._screen.width - 1, self._screen)
                sys.stderr.write(_ERASE_LINE + self._screen.paint(cut, Style.DIM))
                sys.stderr.flush()


def task_words(task: TaskView) -> str:
    """What a task waits for."""
    if task.state == "running":
        done = f"{task.tokens_emitted} tokens so far" if task.tokens_emitted else "reading the prompt"
        return f"running on {task.pool_id}, {done}"
    if task.queue_position is None:
        return "waiting for a slot"
    ahead = f"waiting, {task.queue_position} ahead" if task.queue_position else "waiting, next in line"
    if task.predicted_start_ms is None:
        return ahead
    return f"{ahead}, starts in about {spoken(task.predicted_start_ms)}"
