"""How far a pull is: a bar on a terminal, elsewhere a line now and then. Always on standard error."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from orchctl.model_text import size_text
from orchctl.render import say
from orchctl.terminal import Screen
from supervisor.store.flight import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

LINE_EVERY_S = 5.0
WIDE_COLUMNS = 70
"""On a narrower terminal the figure stands alone: beside the words there is no room for it."""

_WORDS = {
    "waiting": "another orchctl fetches it, waiting",
    "fetching": "fetching",
    "checking": "checking the digest",
}


class PullProgress:
    """Told of every step of a pull."""

    def __init__(self, screen: Screen, name: str) -> None:
        self._screen = screen
        self._name = name
        self._bar: RichProgress | None = None
        self._stage = ""
        self._said_at_s = 0.0

    def __enter__(self) -> Self:
        if self._screen.has_cursor:
            from rich.console import Console  # noqa: PLC0415  (only a pull on a terminal pays for it)
            from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
            from rich.progress import Progress as Bar  # noqa: PLC0415

            console = Console(file=sys.stderr, no_color=not self._screen.has_colour)
            figure = DownloadColumn()
            wide = (TextColumn("{task.description}"), BarColumn(), figure, TimeRemainingColumn())
            columns = wide if self._screen.width >= WIDE_COLUMNS else (figure,)
            self._bar = Bar(*columns, console=console, transient=True)
            self._bar.start()
            self._bar.add_task(self._name, total=None)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def tell(self, progress: Progress) -> None:
        """Show it, where it is time for that."""
        words = f"{self._name}: {_WORDS[progress.stage]}"
        if self._bar is not None:
            task = self._bar.task_ids[0]
            self._bar.update(task, description=words, completed=progress.done, total=progress.total)
            return
        now_s = time.monotonic()
        if progress.stage == self._stage and now_s - self._said_at_s < LINE_EVERY_S:
            return
        self._stage, self._said_at_s = progress.stage, now_s
        of = f" of {size_text(progress.total)}" if progress.total is not None else ""
        say(f"{words}, {size_text(progress.done)}{of}")
