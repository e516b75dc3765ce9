"""No verb pays for what another one loads: asyncio and aiohttp take longer than a whole `orchctl status`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.peer import Peer

ROOT = Path(__file__).parents[2]
HEAVY = {"aiohttp", "asyncio", "pydantic", "yaml"}
PROGRAM = "import json, sys; from orchctl.app import run; run(sys.argv[1:]); print('\\n' + json.dumps([*sys.modules]))"


def loaded(peer: Peer, *argv: str) -> set[str]:
    """The modules that are there once the verb is over."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "ORCHCTL_SOCKET": str(peer.path)}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *argv], env=environ, capture_output=True, text=True, check=True
    )
    return set(json.loads(ran.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "line", [["--version"], ["--help"], ["submit", "--help"], ["status"], ["status", "small"], ["status", "-o", "json"]]
)
def test_a_verb_that_follows_nothing_loads_no_event_loop(peer: Peer, line: list[str]) -> None:
    assert loaded(peer, *line) & HEAVY == set()


def test_a_verb_that_follows_a_task_does(peer: Peer) -> None:
    assert {"aiohttp", "asyncio"} <= loaded(peer, "submit", "-q", "hi")
