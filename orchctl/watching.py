"""Shows the same thing again and again, until Ctrl-C. Decides how a new picture takes the place of the last one."""

import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from orchctl.exits import UnreachableError
from orchctl.render import print_document
from orchctl.terminal import Screen, Style, one_line, out_screen

Page = Callable[[Screen], Sequence[str]]

_HOME = "\x1b[H"
_ERASE_LINE = "\x1b[K"
_ERASE_BELOW = "\x1b[J"


def repeat(show_once: Callable[[], None], interval_ms: int) -> NoReturn:
    """Call it for ever, with this pause between two calls."""
    while True:
        show_once()
        time.sleep(interval_ms / 1_000)


def painter(page: Page) -> Callable[[], None]:
    """A function that shows the page as it is now: painted over the last one on a terminal, below it elsewhere.

    A daemon that goes away is a remark on a terminal, because somebody watches for it to come back; elsewhere it ends
    the verb.
    """

    def paint() -> None:
        screen = out_screen()
        if not screen.has_cursor:
            print_document("".join(f"{line}\n" for line in [*page(screen), ""]))
            return
        print_document(picture(_page_or_remark(page, screen), screen))

    return paint


def picture(lines: Sequence[str], screen: Screen) -> str:
    """The lines from the top of the screen down; what does not fit is left out, so that nothing ever scrolls."""
    shown = lines[: screen.height - 1]
    return _HOME + "".join(f"{line}{_ERASE_LINE}\n" for line in shown) + _ERASE_BELOW


def _page_or_remark(page: Page, screen: Screen) -> Sequence[str]:
    try:
        return page(screen)
    except UnreachableError as error:
        remark = one_line(f"{error.cause}, trying again")
        return [screen.paint(remark[: screen.width], Style.BAD)]
