"""Every verb of the CLI against the real daemon: the two agree on routes, words and codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemon import Daemon

pytestmark = pytest.mark.engines

ORCHCTL = str(Path(sys.executable).parent / "orchctl")


def orchctl(daemon: Daemon, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """One command, not on a terminal."""
    return subprocess.run(
        [ORCHCTL, *arguments],
        env={**os.environ, "ORCHCTL_SOCKET": str(daemon.socket_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_status_shows_pools_and_devices(daemon: Daemon) -> None:
    table = orchctl(daemon, "status")
    one = orchctl(daemon, "status", "tiny")
    document = orchctl(daemon, "status", "-o", "json")

    assert (table.returncode, one.returncode, document.returncode) == (0, 0, 0)
    assert "tiny" in table.stdout
    assert "SIMULATED GPUS: 1x8GiB" in table.stdout
    assert "minimal_decode" in one.stdout
    assert json.loads(document.stdout)["pools"][0]["ready"] is True
    assert "\x1b" not in table.stdout


def test_submit_prints_the_answer_and_json_on_request(daemon: Daemon) -> None:
    plain = orchctl(daemon, "submit", "--model", "tiny", "--max-tokens", "8", "hello")
    document = orchctl(daemon, "submit", "--model", "tiny", "--max-tokens", "8", "-o", "json", "hello")

    assert (plain.returncode, document.returncode) == (0, 0), plain.stderr + document.stderr
    assert plain.stdout.strip()
    assert json.loads(document.stdout)


def test_logs_shows_what_the_engine_wrote(daemon: Daemon) -> None:
    shown = orchctl(daemon, "logs", "tiny", "-n", "5")

    assert shown.returncode == 0, shown.stderr
    assert 0 < len(shown.stdout.splitlines()) <= 5


def test_drain_refuse_resume(daemon: Daemon) -> None:
    drained = orchctl(daemon, "drain", "tiny", "--deadline", "5s", "--wait")
    refused = orchctl(daemon, "submit", "--no-retry", "--model", "tiny", "hello")
    resumed = orchctl(daemon, "resume", "tiny", "--wait")

    assert drained.returncode == 0, drained.stderr
    assert refused.returncode == 75
    assert "drained" in refused.stderr
    assert resumed.returncode == 0, resumed.stderr
    assert daemon.pool("tiny")["ready"]


def test_cancel_by_id(daemon: Daemon) -> None:
    submitted = orchctl(daemon, "submit", "--model", "tiny", "--max-tokens", "450", "--no-wait", "hello")
    task_id = submitted.stdout.strip()
    cancelled = orchctl(daemon, "cancel", task_id)

    assert cancelled.returncode == 0, cancelled.stderr
    assert daemon.wait_terminal(task_id)["state"] == "ended"


def test_serve_becomes_the_daemon_in_the_same_process(daemon: Daemon, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("pools: []\n")

    assert orchctl(daemon, "validate", str(daemon.config_path)).returncode == 0
    assert orchctl(daemon, "validate", str(bad)).returncode == 78
    assert orchctl(daemon, "serve", "--config", str(bad)).returncode == 78


def test_without_a_daemon_every_verb_says_so(daemon: Daemon) -> None:
    daemon.stop()
    for verb in (["status"], ["submit", "--model", "tiny", "x"], ["logs", "tiny"], ["resume", "tiny"]):
        answer = orchctl(daemon, *verb)
        assert answer.returncode == 69, (verb, answer.stderr)
        assert len(answer.stderr.strip().splitlines()) == 1
