"""What is at the end of a stream, and what may be written there."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchctl.terminal import ASCII, UNICODE, Screen, one_line, printable, screen_of

UTF8 = {"LANG": "C.UTF-8", "TERM": "xterm"}


class Terminal(io.TextIOWrapper):
    """A stream that says that it is a terminal."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding)

    def isatty(self) -> bool:
        return True


def look(**environ: str) -> Screen:
    return screen_of(Terminal(), UTF8 | environ)


def test_a_terminal_has_colour() -> None:
    assert look().has_colour


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colour_stays_away_where_it_is_not_wanted(environ: dict[str, str]) -> None:
    assert not look(**environ).has_colour


def test_an_empty_no_color_asks_for_nothing() -> None:
    assert look(NO_COLOR="").has_colour


def test_a_pipe_has_neither_colour_nor_cursor() -> None:
    screen = screen_of(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), UTF8)

    assert not screen.has_colour
    assert not screen.has_cursor


@pytest.mark.parametrize(
    ("environ", "signs"),
    [
        ({"LANG": "en_GB.UTF-8"}, UNICODE),
        ({"LANG": "C", "LC_ALL": "de_DE.utf8"}, UNICODE),
        ({"LANG": "C"}, ASCII),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, ASCII),
        ({"LANG": "en_GB.UTF-8", "LC_ALL": "POSIX"}, ASCII),
        ({"LANG": ""}, ASCII),
    ],
)
def test_the_signs_are_those_that_the_locale_can_show(environ: dict[str, str], signs: object) -> None:
    assert look(**environ).signs is signs


def test_a_stream_that_cannot_encode_them_gets_no_unicode_signs() -> None:
    assert screen_of(Terminal("latin-1"), UTF8).signs is ASCII


@given(st.text())
def test_no_control_character_reaches_a_terminal(text: str) -> None:
    harmless = printable(text)

    assert all(char in "\n\t" or not (ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0) for char in harmless)
    assert printable(harmless) == harmless


def test_an_escape_sequence_is_shown_and_not_obeyed() -> None:
    assert printable("\x1b]0;owned\x07\x1b[2J\x9b31m\r\n\u202egnp.exe") == "^[]0;owned^G^[[2J<9b>31m\n<202e>gnp.exe"


def test_ordinary_text_of_any_script_stays_as_it_is() -> None:
    assert printable("naïve 漢字 🙂 עברית\n\tend") == "naïve 漢字 🙂 עברית\n\tend"


def test_a_sentence_stays_on_one_line() -> None:
    assert one_line("two\n  lines\x1b") == "two lines^["
