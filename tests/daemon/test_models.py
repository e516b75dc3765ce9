"""Model files under a running daemon: out of the catalogue, swapped, damaged and deleted (F45)."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import ROOT, Daemon
from tests.support.opens import opens_of
from tests.support.pools import FAKE_ENGINE, REAL_ENGINE, a_fake_pool, a_model, a_pool
from tests.support.tiny_gguf import make_tiny_gguf
from tests.support.waiting import wait_until

SWAPS = "import os, shutil, sys; m = sys.argv[1]; shutil.copy(m, m + '.new'); os.replace(m + '.new', m); "
SWAPS += "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"


def swapping(pool: dict[str, Any], engine: str) -> dict[str, Any]:
    """The pool with an engine that finds another file under the name: it is replaced after the digest was read."""
    command = [*pool["launch"]["command"]]
    at = command.index(engine)
    launch = {**pool["launch"], "command": [command[0], "-c", SWAPS, "{model_path}", *command[at:]]}
    return {**pool, "launch": launch}


def models(daemon: Daemon, *line: str) -> "subprocess.CompletedProcess[str]":
    """`orchctl models ...` beside the daemon."""
    command = [sys.executable, "-m", "orchctl", "--socket", str(daemon.socket_path), "models", *line]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def step(daemon: Daemon, name: str) -> dict[str, Any] | None:
    return next((one for one in daemon.pool("tiny")["steps"] if one["name"] == name), None)


def refused(daemon: Daemon) -> str:
    """The cause for which the pool does not start."""
    cause: str = wait_until(lambda: daemon.pool("tiny")["cause"], within_s=30, what="a cause")
    return cause


@pytest.mark.engines
@pytest.mark.orch("ORCH-3037", "ORCH-3042")
def test_a_pool_whose_model_is_a_catalogue_name_serves_and_the_file_stays(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    store = {"dir": str(tmp_path / "store")}
    path = make_tiny_gguf(tmp_path / "pulled.gguf")
    daemon = make_daemon(a_pool(model="pulled"), settings={"models": {}, "store": store})
    added = models(daemon, "add", str(path), "--name", "pulled", "-c", str(daemon.config_path))
    path.unlink()
    daemon.start_ready()

    ended = daemon.wait_terminal(daemon.accept(model_ref="pulled"))
    pruned = models(daemon, "prune", "--to", "0", "--yes")
    listed = models(daemon, "list")

    assert added.returncode == 0, added.stderr
    assert ended["state"] == "ended"
    assert step(daemon, "model in use") is not None
    assert (pruned.returncode, "are in use" in pruned.stderr) == (1, True)
    assert listed.stdout.splitlines()[1].startswith("pulled")
    assert list((tmp_path / "store" / "used").iterdir()) != []


@pytest.mark.fault("F45")
@pytest.mark.orch("ORCH-3037")
def test_a_file_that_is_swapped_between_the_digest_and_the_start_never_serves(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(swapping(a_fake_pool(), FAKE_ENGINE)).start()

    cause = refused(daemon)

    assert "model file tiny.gguf was replaced while the engine loaded it" in cause
    assert daemon.pool("tiny")["ready"] is False


@pytest.mark.engines
@pytest.mark.orch("ORCH-3037")
def test_the_real_engine_that_mapped_a_swapped_file_never_serves(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(swapping(a_pool(), REAL_ENGINE)).start()

    assert "model file tiny.gguf was replaced while the engine loaded it" in refused(daemon)


@pytest.mark.fault("F45")
@pytest.mark.engines
@pytest.mark.orch("ORCH-3037", "ORCH-3042")
@pytest.mark.parametrize("harm", ["replace", "delete"])
def test_harm_to_the_file_leaves_the_running_engine_alone_and_stops_the_next(
    make_daemon: MakeDaemon, tmp_path: Path, harm: str
) -> None:
    daemon = make_daemon().start_ready()
    assert step(daemon, "model in use") == {**(step(daemon, "model in use") or {}), "detail": "mapped by the engine"}
    model = tmp_path / "tiny.gguf"
    if harm == "replace":
        make_tiny_gguf(tmp_path / "other.gguf", seed=2).replace(model)
    else:
        model.unlink()

    ended = daemon.wait_terminal(daemon.accept(max_tokens=64))
    [pid] = daemon.engine_pids()
    os.kill(pid, signal.SIGKILL)
    cause = wait_until(lambda: _cause_with(daemon, "model file", "is not the model"), within_s=30, what="the refusal")

    assert ended["state"] == "ended"
    assert ("digest" in cause) is (harm == "replace")
    assert ("No such file" in cause) is (harm == "delete")


@pytest.mark.fault("F45")
@pytest.mark.parametrize("harm", ["truncate", "flip"])
def test_a_file_that_was_damaged_in_place_is_not_loaded_again_until_it_is_whole(
    make_daemon: MakeDaemon, tmp_path: Path, harm: str
) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    model, good = tmp_path / "tiny.gguf", tmp_path / "good.gguf"
    shutil.copy2(model, good)
    stat = model.stat()
    if harm == "truncate":
        os.truncate(model, stat.st_size // 2)
    else:
        with model.open("r+b") as file:
            file.seek(stat.st_size // 2)
            file.write(b"\xff" * 8)
        os.utime(model, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    [pid] = daemon.engine_pids()

    os.kill(pid, signal.SIGKILL)
    cause = wait_until(lambda: _cause_with(daemon, "is not the model"), within_s=30, what="the refusal")
    shutil.copy2(good, model)
    daemon.wait_ready()

    assert "is not the model that is configured" in cause


def _cause_with(daemon: Daemon, *words: str) -> str | None:
    cause = daemon.pool("tiny")["cause"] or ""
    return cause if any(word in cause for word in words) else None


def test_the_catalogue_never_wins_over_the_config(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    declared = a_model(tmp_path)
    daemon = make_daemon(a_fake_pool(), settings={"store": {"dir": str(tmp_path / "store")}})
    other = make_tiny_gguf(tmp_path / "other.gguf", seed=2)

    models(daemon, "add", str(other), "--name", "tiny", "-c", str(daemon.config_path))
    daemon.start_ready()

    assert daemon.pool("tiny")["model_digest"] == declared["tiny"]["digest"]


def test_a_start_opens_a_model_once_for_its_head_and_once_for_its_digest(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    daemon = make_daemon(a_fake_pool())
    with opens_of(tmp_path / "tiny.gguf") as opens:
        daemon.start_ready()

        assert opens() == 2
