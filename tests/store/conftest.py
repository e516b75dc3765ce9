"""Fixtures: a hub with one model, and `orchctl models` with a store and a home of its own."""

import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from supervisor.config.catalogue import Catalogue, read_catalogue
from tests.support.hub import Hub

ROOT = Path(__file__).parents[2]


def a_gguf(size: int = 300_000, seed: int = 1) -> bytes:
    """Bytes that look like a GGUF from outside."""
    return b"GGUF\x03\0\0\0" + random.Random(seed).randbytes(size - 8)


@dataclass
class Orchctl:
    """The verb in a process of its own, as an operator runs it."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    by: tuple[str, ...] = ()
    """A program that is given the command line."""

    @property
    def store(self) -> Path:
        """Its folder."""
        return self.folder / "models"

    @property
    def catalogue(self) -> Catalogue:
        """What is in it."""
        return read_catalogue(self.store)

    @property
    def files(self) -> list[str]:
        """Every file of the store that holds bytes of a model, by its name there."""
        if not self.store.exists():
            return []
        own = {"catalogue.json", "plan.json"}
        found = (path for path in self.store.rglob("*") if path.is_file() and path.suffix != ".lock")
        return sorted(str(path.relative_to(self.store)) for path in found if path.name not in own)

    def start(self, *line: str) -> "subprocess.Popen[str]":
        """Start `orchctl models ...`."""
        path = self.folder / "pools.yaml"
        pools = [{"id": "p", "engine": "llamacpp", "model": "needed", "devices": [0]}]
        base = {"pools": pools, "store": {"dir": str(self.store)}}
        path.write_text(json.dumps({**base, **self.config}))
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "PYTHONPATH": str(ROOT), **self.environ}
        return subprocess.Popen(
            [
                *self.by,
                sys.executable,
                "-m",
                "orchctl",
                "--socket",
                str(self.folder / "s"),
                "models",
                *line,
                "-c",
                str(path),
            ],
            env=environ,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *line: str) -> "subprocess.CompletedProcess[str]":
        """Run it to its end."""
        process = self.start(*line)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(line, process.returncode, out, err)


@pytest.fixture
def orchctl(tmp_path: Path) -> Orchctl:
    return Orchctl(tmp_path)


MakeHub = Callable[..., Hub]


@pytest.fixture
def make_hub(orchctl: Orchctl) -> Iterator[MakeHub]:
    """Starts hubs; the last one is the endpoint of `orchctl`."""
    with contextlib.ExitStack() as stack:

        def make(files: dict[str, bytes] | None = None, **options: Any) -> Hub:
            hub = stack.enter_context(Hub(files or {"tiny.gguf": a_gguf()}, **options).serving())
            orchctl.config["hub"] = {"endpoint": hub.endpoint, **orchctl.config.get("hub_more", {})}
            return hub

        yield make
