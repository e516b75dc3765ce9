"""Configurations for daemons under test: pools on the real llama.cpp server or on the fake engine."""

import hashlib
from pathlib import Path
from typing import Any

from tests.support.fake_engine_script import GOOD, Script
from tests.support.tiny_bert_gguf import make_tiny_embedder, make_tiny_ranker
from tests.support.tiny_gguf import make_tiny_gguf

ROOT = Path(__file__).parent.parent.parent
REAL_ENGINE = str(ROOT / "examples" / "engines" / "xllamacpp_server.py")
FAKE_ENGINE = str(ROOT / "tests" / "support" / "fake_engine.py")
_FLAGS = ["--host", "127.0.0.1", "--port", "{port}", "-c", "{ctx_total}", "-np", "{slots}", "-t", "1", "--metrics"]
_FLAGS += ["-b", "64", "-ub", "64", "--sse-ping-interval", "1", "-a", "{pool_id}"]


def a_model(folder: Path, name: str = "tiny", **shape: int) -> dict[str, Any]:
    """A tiny random model of our own making, and its entry in `models:`."""
    return _entry(name, make_tiny_gguf(folder / f"{name}.gguf", **shape))


def an_embedder(folder: Path, name: str = "embedder", **shape: int) -> dict[str, Any]:
    """The same for a model that embeds."""
    return _entry(name, make_tiny_embedder(folder / f"{name}.gguf", **shape))


def a_ranker(folder: Path, name: str = "ranker", **shape: int) -> dict[str, Any]:
    """The same for a model that ranks."""
    return _entry(name, make_tiny_ranker(folder / f"{name}.gguf", **shape))


def _entry(name: str, path: Path) -> dict[str, Any]:
    return {name: {"path": str(path), "digest": f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"}}


def a_oneshot_pool(pool_id: str, workload: str, *, ctx: int = 512, **fields: Any) -> dict[str, Any]:
    """A pool on the real engine that embeds or ranks with the model of the same name."""
    flag = {"embedding": "--embeddings", "rerank": "--rerank"}[workload]
    flags = [*_FLAGS, "-b", "{ctx}", "-ub", "{ctx}", flag]
    command = ["{python}", REAL_ENGINE, "-m", "{model_path}", *flags]
    pool = a_pool(pool_id, model=pool_id, ctx=ctx, workloads=[workload], launch={"command": command})
    return {**pool, **fields}


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


def a_scripted_pool(path: Path, script: Script, **fields: Any) -> dict[str, Any]:
    """A pool whose engine reads its script anew for every request."""
    path.write_text(script.to_json())
    pool = a_fake_pool(**fields)
    return {**pool, "launch": {**pool["launch"], "env": {"FAKE_ENGINE": str(path)}}}
