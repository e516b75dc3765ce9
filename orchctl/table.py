"""Lays columns out in a given width. Decides what is cut and which columns go first; knows not what they mean."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchctl.terminal import Screen, Style

GAP = 2
CELL_WIDTH_MIN = 6

Painter = Callable[[int], tuple[Style, ...]]
"""Row number to the styles of the cell."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `rank` 0 stays whatever happens; the highest rank goes first where the width is short.

    A column that `may_shrink` is cut at its end, to `CELL_WIDTH_MIN` columns, before any other is dropped.
    """

    title: str
    cells: Sequence[str]
    rank: int = 0
    is_number: bool = False
    may_shrink: bool = False
    paint: Painter | None = None

    @property
    def width(self) -> int:
        """Columns that it takes uncut."""
        return max(len(self.title), *(len(cell) for cell in self.cells), 0)


def lay_out(columns: Sequence[Column], screen: Screen) -> list[str]:
    """The title line and one line for each row, none wider than the screen."""
    widths = fit(columns, screen.width)
    kept = [(column, width) for column, width in zip(columns, widths, strict=True) if width]
    rows = range(len(columns[0].cells)) if columns else range(0)
    title = _line([_cell(column.title, column, width, screen) for column, width in kept])
    lines = [screen.paint(title[: screen.width], Style.BOLD)]
    for row in rows:
        cells = [_painted(column, row, width, screen) for column, width in kept]
        lines.append(_line(cells))
    return lines


def fit(columns: Sequence[Column], width: int) -> list[int]:
    """The width of each column, 0 for one that is dropped.

    1. everything as it is; 2. cut what may shrink; 3. drop the highest rank and begin again; 4. cut the widest.
    """
    kept = list(columns)
    while True:
        widths = {id(column): column.width for column in kept}
        excess = sum(widths.values()) + GAP * (len(kept) - 1) - width
        for column in sorted(kept, key=lambda one: -one.width):
            if column.may_shrink and excess > 0:
                cut = min(excess, max(0, column.width - CELL_WIDTH_MIN))
                widths[id(column)] -= cut
                excess -= cut
        droppable = max((column.rank for column in kept), default=0)
        if excess > 0 and droppable > 0:
            kept.remove(next(column for column in reversed(kept) if column.rank == droppable))
            continue
        while excess > 0 and any(size > 1 for size in widths.values()):
            widest = max(widths, key=lambda key: widths[key])
            widths[widest] -= 1
            excess -= 1
        return [widths.get(id(column), 0) for column in columns]


def shorten(text: str, width: int, screen: Screen) -> str:
    """The text, its end replaced by the sign for more where it is too long."""
    if len(text) <= width:
        return text
    return text[: max(0, width - len(screen.signs.more))] + screen.signs.more


def _cell(text: str, column: Column, width: int, screen: Screen) -> str:
    short = shorten(text, width, screen)
    return short.rjust(width) if column.is_number else short.ljust(width)


def _painted(column: Column, row: int, width: int, screen: Screen) -> str:
    text = _cell(column.cells[row], column, width, screen)
    return screen.paint(text, *column.paint(row)) if column.paint else text


def _line(cells: Sequence[str]) -> str:
    return (" " * GAP).join(cells).rstrip()
