"""The Python of the pages runs, against a real daemon."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.daemon.conftest import MakeDaemon, make_daemon
from tests.docs.page import python_blocks
from tests.support.daemon import Daemon
from tests.support.pools import ROOT, a_fake_pool, a_model

__all__ = ["make_daemon"]

MODEL = "smollm2-135m"
PAGES = ["README.md", "docs/api.md"]
ADDRESS = "http://127.0.0.1:8090"


@pytest.fixture
def daemon(make_daemon: MakeDaemon, tmp_path: Path) -> Daemon:
    """The demo's pool on the fake engine."""
    pool = a_fake_pool("smollm2", model=MODEL, ctx=2_048)
    return make_daemon(pool, settings={"models": a_model(tmp_path, MODEL)}).start_ready()


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_prints_an_answer(daemon: Daemon, page: str) -> None:
    blocks = python_blocks(ROOT / page)
    assert len(blocks) == 1
    assert ADDRESS in blocks[0]
    program = blocks[0].replace(ADDRESS, f"http://127.0.0.1:{daemon.port}")

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    (task,) = daemon.ask("GET", "/v1/tasks").json["tasks"]
    whole = daemon.ask("GET", f"/v1/tasks/{task['task_id']}").json
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == whole["result"]["text"]
    assert ran.stdout


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_fails_in_one_known_way(page: str) -> None:
    """Without a daemon the client gives up by itself, and says what it could not reach."""
    program = python_blocks(ROOT / page)[0].replace(ADDRESS, "unix:/nowhere/at/all")
    program = program.replace('at/all")', 'at/all", retry=supervisor.client.NEVER)')

    ran = subprocess.run(
        [sys.executable, "-c", f"import supervisor.client\n{program}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.returncode == 1
    assert (
        ran.stderr.strip().splitlines()[-1].startswith("supervisor.client.errors.UnreachableError: no daemon answers")
    )
