"""The CLI on a real pseudo-terminal: colour, width, the waiting line, Ctrl-C, and what is repainted."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.cli.builders import broken_pool, host, metrics, pool
from tests.cli.peer import WAIT_S_MAX, Peer

ROOT = Path(__file__).parents[2]
TASK = "0b0e7d4e-6a63-4f8c-9a36-2f3f0f3f2b11"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")

Spawned = Any
"""A pexpect child; its stubs leave the text type open."""

Terminal = Callable[..., Spawned]


@pytest.fixture
def terminal(peer: Peer) -> Iterator[Terminal]:
    """Starts a verb on a terminal of its own."""
    children: list[Spawned] = []

    def start(*argv: str, columns: int = 100, **environ: str) -> Spawned:
        child = pexpect.spawn(
            sys.executable,
            ["-m", "orchctl", *argv],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "ORCHCTL_SOCKET": str(peer.path),
                "TERM": "xterm-256color",
                "LANG": "C.UTF-8",
            }
            | environ,
            dimensions=(40, columns),
            encoding="utf-8",
            timeout=WAIT_S_MAX,
        )
        children.append(child)
        return child

    yield start
    for child in children:
        child.close(force=True)


def rest(child: Spawned) -> str:
    """Everything up to the end; the child is reaped."""
    child.expect(pexpect.EOF)
    child.close()
    return str(child.before).replace("\r\n", "\n")


def test_a_terminal_gets_colour(peer: Peer, terminal: Terminal) -> None:
    peer.status = host(pool(), broken_pool())

    page = rest(terminal("status"))

    assert "\x1b[32m●\x1b[0m" in page
    assert "\x1b[31m○\x1b[0m" in page
    assert "\x1b[31m  └ the engine ran out of GPU memory while it loaded; next try in 12 s\x1b[0m" in page


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_that_wants_no_colour_gets_none(peer: Peer, terminal: Terminal, environ: dict[str, str]) -> None:
    for line in (["status"], ["submit", "hi"]):
        assert not COLOUR.search(rest(terminal(*line, **environ)))


def test_the_locale_c_gets_plain_letters(peer: Peer, terminal: Terminal) -> None:
    page = rest(terminal("status", "large", LANG="C")) + rest(terminal("status", LANG="C"))

    assert page.isascii()
    assert "*\x1b[0m  small" in page


def test_the_page_fits_a_narrow_terminal(peer: Peer, terminal: Terminal) -> None:
    peer.status = host(pool(), broken_pool())

    page = COLOUR.sub("", rest(terminal("status", columns=40)))

    assert max(len(line) for line in page.splitlines()) <= 40
    assert "STATE" in page


def test_a_terminal_one_column_wide_still_gets_an_answer(terminal: Terminal) -> None:
    child = terminal("status", columns=1)

    rest(child)

    assert child.exitstatus == 0


def test_the_place_in_the_queue_is_shown_until_the_first_token(peer: Peer, terminal: Terminal) -> None:
    peer.answer = None
    child = terminal("submit", "--task-id", TASK, "hi")

    child.expect_exact("waiting, 2 ahead, starts in about 4 s")
    peer.start(TASK)
    peer.say(TASK, "Hello")
    child.expect_exact("\r\x1b[KHello")
    peer.say(TASK, " world")
    peer.end(TASK)

    assert rest(child).startswith(" world\n\x1b[2m2 tokens · 4.0 tok/s · first token ")
    assert child.exitstatus == 0


def test_the_waiting_line_is_cut_to_the_terminal(peer: Peer, terminal: Terminal) -> None:
    peer.answer = None
    child = terminal("submit", "--task-id", TASK, "hi", columns=20)

    child.expect(r"\x1b\[2m(. waiting[^\x1b]*)\x1b\[0m")

    assert len(child.match[1]) == 19
    assert child.match[1].endswith("…")


def test_a_dumb_terminal_gets_the_text_alone(peer: Peer, terminal: Terminal) -> None:
    assert rest(terminal("submit", "-q", "hi", TERM="dumb")) == "Hello world\n"


def test_ctrl_c_while_waiting_cancels_the_task(peer: Peer, terminal: Terminal) -> None:
    peer.answer = None
    child = terminal("submit", "--task-id", TASK, "hi")
    child.expect_exact("waiting")

    child.sendintr()

    assert f"\norchctl: task {TASK} is cancelled after 0 tokens\n" in rest(child)
    assert child.exitstatus == 130
    assert peer.tasks[TASK].is_over


def test_a_model_cannot_steer_the_terminal(peer: Peer, terminal: Terminal) -> None:
    peer.answer = ["a\x1b]0;ow", "ned\x07\x1b", "[2Jb\rc"]

    assert rest(terminal("submit", "-q", "hi", TERM="dumb")) == "a^[]0;owned^G^[[2Jbc\n"


def test_an_engine_cannot_steer_the_terminal_through_its_log(peer: Peer, terminal: Terminal) -> None:
    peer.log_pieces = [b"\x1b[31mred\x1b", b"[0m\n"]

    assert rest(terminal("logs", "small")) == "^[[31mred^[[0m\n"


def test_watching_repaints_in_place_and_survives_the_daemon(peer: Peer, terminal: Terminal) -> None:
    child = terminal("status", "--watch", "--interval", "100ms")
    child.expect_exact("\x1b[H")
    child.expect_exact("\x1b[J")
    assert "ready" in child.before

    peer.raw_replies["/v1/status"] = b""
    child.expect_exact("broke the connection, trying again")
    del peer.raw_replies["/v1/status"]
    child.expect_exact("ready")
    child.sendintr()
    rest(child)

    assert child.exitstatus == 130


def test_ending_tasks_at_once_is_asked_first(peer: Peer, terminal: Terminal) -> None:
    peer.change_pool("small", metrics=metrics(slots_busy=2))
    child = terminal("drain", "small", "--deadline", "0")
    child.expect_exact("End 2 tasks on small at once? [y/N]: ")

    child.sendline("n")

    assert "orchctl: nothing was changed; give the tasks time with `--deadline 30s`\n" in rest(child)
    assert child.exitstatus == 1
    assert not peer.status.pools[0].draining


def test_with_a_yes_it_is_done(peer: Peer, terminal: Terminal) -> None:
    child = terminal("drain", "small", "--deadline", "0")
    child.expect_exact("[y/N]: ")

    child.sendline("y")

    assert "pool small is draining, what ran is ended" in rest(child)
    assert peer.status.pools[0].draining


def test_a_prompt_that_is_missing_is_asked_for_and_not_waited_for(terminal: Terminal) -> None:
    child = terminal("submit")

    assert "orchctl: a prompt is missing; write `orchctl submit" in rest(child)
    assert child.exitstatus == 2
