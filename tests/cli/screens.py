"""Screens to lay text out on."""

import dataclasses
from typing import Any

from orchctl.terminal import ASCII, Screen

WIDE = Screen(is_terminal=False, has_colour=False, has_cursor=False, width=200, height=50, signs=ASCII)


def screen(**changes: Any) -> Screen:
    """An ASCII screen of 200 columns without colour, but for what is named."""
    return dataclasses.replace(WIDE, **changes)
