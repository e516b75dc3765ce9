"""`orchctl logs`: what the engine of a pool wrote, and with -f what it writes from now on."""

import codecs
import sys
from collections.abc import Iterable, Iterator
from typing import Annotated

import typer
from msgspec import Struct

from orchctl.context import client_of
from orchctl.exits import usage
from orchctl.render import Output, OutputKind, json_line, print_document, show
from orchctl.terminal import out_screen

LINES_MAX = 100_000


class LogPage(Struct, kw_only=True):
    """What `-o json` prints."""

    pool_id: str
    lines: list[str]


class LogLine(Struct, kw_only=True):
    """One line of `-f -o json`."""

    pool_id: str
    line: str


def logs(
    ctx: typer.Context,
    pool: Annotated[str, typer.Argument(metavar="POOL", help="The id of the pool.")],
    *,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what comes.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, max=LINES_MAX, help="How many old lines.")] = 100,
    output: Output = OutputKind.TABLE,
) -> None:
    """Print what an engine wrote."""
    if follow and output is OutputKind.YAML:
        raise usage("-f has no end, and YAML needs one", "use `-o json`, which prints one document for each line")
    text = decoded(client_of(ctx).logs(pool, lines=lines, follow=follow))
    if output.is_for_programs and follow:
        for line in whole_lines(text):
            print_document(json_line(LogLine(pool_id=pool, line=line)))
    elif output.is_for_programs:
        show(LogPage(pool_id=pool, lines=list(whole_lines(text))), output, list)
    else:
        screen = out_screen()
        for piece in text:
            sys.stdout.write(screen.clean(piece))
            sys.stdout.flush()


def decoded(pieces: Iterable[bytes]) -> Iterator[str]:
    """The text of bytes that may be cut anywhere; what is no UTF-8 shows as the replacement character."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for piece in pieces:
        yield decoder.decode(piece)
    yield decoder.decode(b"", final=True)


def whole_lines(pieces: Iterable[str]) -> Iterator[str]:
    """Lines without their line feed; the last one also where it has none."""
    rest = ""
    for piece in pieces:
        *lines, rest = (rest + piece).split("\n")
        yield from lines
    if rest:
        yield rest
