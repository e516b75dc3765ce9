"""Configurations for daemons under test: pools on the real llama.cpp server or on the fake engine."""

import hashlib
from pathlib import Path
from typing import Any

from tests.support.fake_engine_script import GOOD, Script
from tests.support.tiny_gguf import make_tiny_gguf

ROOT = Path(__file__).parent.parent.parent
REAL_ENGINE = str(ROOT / "examples" / "engines" / "xllamacpp_server.py")
FAKE_ENGINE = str(ROOT / "tests" / "support" / "fake_engine.py")
_FLAGS = ["--host", "127.0.0.1", "--port", "{port}", "-c", "{ctx_total}", "-np", "{slots}", "-t", "1", "--metrics"]
_FLAGS += ["-b", "64", "-ub", "64", "--sse-ping-interval", "1", "-a", "{pool_id}"]


def a_model(folder: Path, name: str = "tiny", **shape: int) -> dict[str, Any]:
    """A tiny random model of our own making, and its entry in `models:`."""
    path = folder / f"{name}.gguf"
    make_tiny_gguf(path, **shape)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {name: {"path": str(path), "digest": f"sha256:{digest}"}}


def a_pool(pool_id: str = "tiny", *, engine_script: str = REAL_ENGINE, **fields: Any) -> dict[str, Any]:
    """One pool of the tiny model on GPU 0."""
    pool: dict[str, Any] = {
        "id": pool_id,
        "engine": "llamacpp",
        "model": "tiny",
        "ctx": 512,
        "devices": [0],
        "launch": {"command": ["{python}", engine_script, "-m", "{model_path}", *_FLAGS]},
    }
    return {**pool, **fields}


def a_fake_pool(pool_id: str = "tiny", *, script: Script = GOOD, **fields: Any) -> dict[str, Any]:
    """The same on the scripted fake engine, for what the real one can't be made to do on demand."""
    pool = a_pool(pool_id, engine_script=FAKE_ENGINE, **fields)
    return {**pool, "launch": {**pool["launch"], "env": {"FAKE_ENGINE": script.to_json()}}}
