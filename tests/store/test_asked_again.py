"""What becomes needed while `models prune` and `models remove` ask stays where it is."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.store.shelf import Shelf
from tests.store.conftest import ROOT, Orchctl
from tests.store.test_keeping import add, names


def answer_after_the_config_names(orchctl: Orchctl, model: str, *line: str) -> int:
    """Run the verb on a terminal; while it asks, the config's pool takes `model`; then say yes. Gives the exit code."""
    config = orchctl.folder / "pools.yaml"
    here, there = pty.openpty()
    environ = {"PATH": os.environ["PATH"], "HOME": str(orchctl.folder), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "orchctl", "--socket", str(orchctl.folder / "s"), "models", *line]
    process = subprocess.Popen(
        [*command, "-c", str(config)], env=environ, stdin=there, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    os.close(there)
    assert process.stderr is not None
    said = b""
    while b"[y/N]" not in said:
        part = process.stderr.read1(4096)  # type: ignore[attr-defined]
        assert part, said
        said += part
    told = json.loads(config.read_text())
    told["pools"][0]["model"] = model
    config.write_text(json.dumps(told))
    os.write(here, b"y\n")
    process.communicate(timeout=30)
    os.close(here)
    return process.returncode


@pytest.fixture
def two(orchctl: Orchctl) -> Orchctl:
    """Models `needed`, which the pool of the config names, and `other`."""
    add(orchctl, "needed")
    add(orchctl, "other")
    return orchctl


@pytest.mark.orch("ORCH-3042")
def test_prune_keeps_what_a_pool_took_while_it_asked(two: Orchctl) -> None:
    code = answer_after_the_config_names(two, "other", "prune", "--to", "0")

    assert code == 1
    assert names(two) == ["needed", "other"]


@pytest.mark.orch("ORCH-3042")
def test_remove_keeps_what_a_pool_took_while_it_asked(two: Orchctl) -> None:
    code = answer_after_the_config_names(two, "other", "remove", "other")

    assert code == 1
    assert names(two) == ["needed", "other"]


def test_a_name_that_came_while_it_asked_keeps_the_files(two: Orchctl) -> None:
    shelf = Shelf(two.store)
    entry = two.catalogue.find("other")
    assert entry is not None

    assert two("add", str(two.folder / "other.gguf"), "--name", "twin").returncode == 0
    assert shelf.forget(entry, lambda _: set())

    assert names(two) == ["needed", "twin"]
    assert (two.store / entry.place).is_file()


def test_what_the_last_look_finds_needed_is_not_dropped(two: Orchctl) -> None:
    entry = two.catalogue.find("other")
    assert entry is not None
    path: Path = two.store / entry.place

    dropped = Shelf(two.store).drop(entry.digest, lambda catalogue: {one.digest for one in catalogue.models})

    assert not dropped
    assert path.is_file()
