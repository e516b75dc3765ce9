"""Columns in a given width."""

from hypothesis import given
from hypothesis import strategies as st

from orchctl.table import Column, fit, lay_out
from orchctl.terminal import Style
from tests.cli.screens import screen

POOLS = Column("POOL", ["small", "the-pool-with-a-long-name"], may_shrink=True)
STATES = Column("STATE", ["ready", "backoff"])
MODELS = Column("MODEL", ["smollm2-135m", "qwen-32b"], rank=2)
QUEUES = Column("QUEUE", ["3", "14"], rank=1, is_number=True)

words = st.text("abcdefgh-", max_size=14)


@st.composite
def columns(draw: st.DrawFn) -> list[Column]:
    rows = draw(st.integers(0, 3))
    return [
        Column(draw(words), draw(st.lists(words, min_size=rows, max_size=rows)), rank, False, draw(st.booleans()))
        for rank in draw(st.lists(st.integers(0, 5), min_size=1, max_size=7))
    ]


def test_with_room_enough_nothing_is_cut() -> None:
    lines = lay_out([POOLS, STATES, QUEUES], screen())

    assert lines == [
        "POOL                       STATE    QUEUE",
        "small                      ready        3",
        "the-pool-with-a-long-name  backoff     14",
    ]


def test_a_name_is_cut_before_a_column_goes() -> None:
    lines = lay_out([POOLS, STATES, QUEUES], screen(width=30))

    assert lines[2] == "the-pool-with~  backoff     14"


def test_the_highest_rank_goes_first() -> None:
    widths = fit([POOLS, STATES, MODELS, QUEUES], 24)

    assert widths[2] == 0
    assert 0 not in (widths[0], widths[1], widths[3])


@given(columns(), st.integers(1, 120))
def test_no_line_is_ever_wider_than_the_screen_that_can_hold_its_first_columns(made: list[Column], width: int) -> None:
    last = [column for column in made if column.rank == 0] or made[:1]
    least = len(last) + 2 * (len(last) - 1)

    lines = lay_out(made, screen(width=max(width, least)))

    assert all(len(line) <= max(width, least) for line in lines)


def test_colour_changes_no_width() -> None:
    painted = Column("STATE", ["ready"], paint=lambda _: (Style.GOOD,))

    plain, coloured = (lay_out([painted, QUEUES], screen(has_colour=has))[1] for has in (False, True))

    assert coloured == plain.replace("ready", "\x1b[32mready\x1b[0m")
