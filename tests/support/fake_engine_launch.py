"""Gives a test a `llama-server` that is the fake engine, and its script to change while it runs."""

import shlex
import sys
from pathlib import Path

from tests.support.fake_engine_script import GOOD, Script

ENTRY = Path(__file__).with_name("fake_engine.py")


class FakeServer:
    """An executable for `LaunchSpec.binary`, one script for all processes that are started from it."""

    def __init__(self, folder: Path, script: Script = GOOD) -> None:
        self.path = folder / "llama-server"
        self.model = folder / "fake.gguf"
        self._script = folder / "engine.json"
        self.set(script)
        # -S and -E: without site-packages it starts in half of the time
        words = [sys.executable, "-S", "-E", str(ENTRY), "--fake-script", str(self._script)]
        self.path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        self.path.chmod(0o755)
        self.model.write_bytes(b"GGUF, or so it says")

    def set(self, script: Script) -> None:
        """From now on behave like this; in one step, so that no engine reads half a script."""
        temporary = self._script.with_suffix(".new")
        temporary.write_text(script.to_json())
        temporary.replace(self._script)
