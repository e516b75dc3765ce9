"""The command line itself: verbs, options, help, and what is said to a line that cannot be meant."""

import subprocess
import sys
from collections.abc import Mapping

import pytest

from orchctl import __version__
from orchctl.commands.canary import ACTIONS as CANARY_ACTIONS
from orchctl.commands.keys import ACTIONS
from orchctl.commands.lease import ACTIONS as LEASE_ACTIONS
from orchctl.commands.models import ACTIONS as MODEL_ACTIONS
from orchctl.commands.rollout import ACTIONS as ROLLOUT_ACTIONS
from orchctl.verbs import VERBS
from tests.cli.conftest import Orchctl
from tests.cli.peer import Peer

TASK = "0b0e7d4e-6a63-4f8c-9a36-2f3f0f3f2b11"

BAD_LINES = [
    ([], "a verb is missing; list the verbs with `orchctl --help`"),
    (["stauts"], "no such command 'stauts', did you mean 'status'; see `orchctl --help`"),
    (["--colour", "status"], "no such option: --colour"),
    (["status", "--wide"], "no such option: --wide"),
    (["status", "-o", "xml"], "'xml' is not one of 'table', 'wide', 'json', 'yaml'; see `orchctl status --help`"),
    (["status", "a", "b"], "got unexpected extra argument"),
    (["status", "--interval", "5"], "--interval wants a time with a unit"),
    (["status", "--interval", "1ms"], "--interval is at least 100ms"),
    (["serve"], "missing option '-c' / '--config'; see `orchctl serve --help`"),
    (["validate"], "a config is missing; write `orchctl validate FILE`"),
    (["validate", "a", "-c", "b"], "two configs are named"),
    (["submit", "--max-tokens", "many", "hi"], "'--max-tokens'"),
    (["submit", "--priority", "INTERACTIVE", "hi"], "'--priority'"),
    (["submit", "--task-id", "7", "hi"], "--task-id is a UUID"),
    (["submit", "--session", "7", "hi"], "--session is a UUID"),
    (["submit", "--deadline", "soon", "hi"], "--deadline wants a time with a unit"),
    (["submit", "--temperature", "9", "hi"], "temperature: expected `float` <= 5.0; see `orchctl submit --help`"),
    (["submit", "--max-tokens", "0", "hi"], "max-tokens: expected `int` >= 1"),
    (["submit", "\udcff"], "the prompt is not valid UTF-8"),
    (["cancel", "7"], "TASK_ID is a UUID, not '7'"),
    (["logs", "small", "-n", "-1"], "'-n' / '--lines'"),
    (["logs", "small", "-f", "-o", "yaml"], "-f has no end, and YAML needs one"),
    (["drain", "small", "--deadline", "25h"], "--deadline is at most 24h"),
    (["drain"], "missing argument 'POOL'"),
]


@pytest.mark.parametrize(("line", "words"), BAD_LINES)
def test_a_line_that_cannot_be_meant_is_refused_with_one_sentence(
    peer: Peer, orchctl: Orchctl, line: list[str], words: str
) -> None:
    ran = orchctl(*line)

    assert ran.code == 2
    assert words in ran.err
    assert ran.err.startswith("orchctl: ")
    assert ran.err.count("\n") == 1
    assert ran.out == ""
    assert not [one for one in peer.requests if one.method == "POST"]


def test_a_socket_path_that_no_system_can_open_is_a_usage_error(orchctl: Orchctl) -> None:
    ran = orchctl("--socket", "/tmp/" + "x" * 103, "status")

    assert ran.code == 2
    assert "a socket path is at most 107 bytes long" in ran.err


def test_the_version_is_one_line(orchctl: Orchctl) -> None:
    ran = orchctl("--version")

    assert (ran.code, ran.out, ran.err) == (0, f"orchctl {__version__}\n", "")


def test_the_help_lists_every_verb(orchctl: Orchctl) -> None:
    ran = orchctl("--help")

    assert ran.code == 0
    assert all(f"\n  {verb} " in ran.out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_without_a_daemon(orchctl: Orchctl, verb: str) -> None:
    ran = orchctl(verb, "-h")

    assert ran.code == 0
    assert ran.out.startswith(f"Usage: orchctl {verb} ")


GROUPS: dict[str, Mapping[str, object]] = {
    "keys": ACTIONS,
    "canary": CANARY_ACTIONS,
    "rollout": ROLLOUT_ACTIONS,
    "models": MODEL_ACTIONS,
    "lease": LEASE_ACTIONS,
}
ANSWERING = [[verb] for verb in VERBS if verb not in {"serve", *GROUPS}]
ANSWERING += [[verb, action] for verb, actions in GROUPS.items() for action in actions]


@pytest.mark.parametrize("line", ANSWERING, ids=" ".join)
def test_every_verb_but_serve_can_answer_in_json(orchctl: Orchctl, line: list[str]) -> None:
    assert "<table|wide|json|yaml>" in orchctl(*line, "-h").out


def test_no_verb_loads_what_only_the_daemon_needs() -> None:
    heavy = ("pydantic", "aiohttp", "rich", "yaml", "asyncio", "uvloop", "supervisor.core", "supervisor.runtime")
    program = (
        "import importlib, sys, orchctl.app, orchctl.verbs\n"
        f"for verb in {VERBS!r}: importlib.import_module('orchctl.commands.' + verb)\n"
        f"print([name for name in {heavy!r} if name in sys.modules])\n"
    )

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert loaded.stdout == "[]\n"
