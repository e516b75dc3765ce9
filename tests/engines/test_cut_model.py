"""What becomes of a real server whose model file is cut short, or replaced by a rename, while it serves."""

import http.client
import os
import shutil
import sys
from pathlib import Path

import pytest

from adapters.base import CompletionCall, ExitKind, LaunchPlan
from adapters.llamacpp import LlamaCpp
from tests.support.llama_process import Process, free_port
from tests.support.pools import REAL_ENGINE
from tests.support.tiny_gguf import make_tiny_gguf

pytestmark = pytest.mark.engines
CALL = CompletionCall(prompt="hello", max_tokens=8, seed=1, sampler={})


def a_server(model: Path) -> Process:
    port = free_port()
    argv = [sys.executable, REAL_ENGINE, "-m", str(model), "--host", "127.0.0.1", "--port", str(port)]
    argv += ["-c", "512", "-np", "1", "-t", "1", "-b", "64", "-ub", "64"]
    return Process(LaunchPlan(tuple(argv), {"LLAMA_API_KEY": "k" * 32}), port, model.parent)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_tiny_gguf(tmp_path / "m.gguf", embd=256, layers=8)


def test_a_model_that_is_cut_short_ends_the_server_at_its_next_look_into_it(model: Path) -> None:
    with a_server(model) as server:
        server.wait_ready()
        os.truncate(model, 4096)

        with pytest.raises((http.client.HTTPException, OSError)):
            server.ask(LlamaCpp().request_completion(CALL))
        explained = server.explained()

    assert (explained.kind, explained.cause) == (ExitKind.CRASHED, "the engine crashed (SIGBUS)")


def test_a_model_that_is_replaced_by_a_rename_is_served_on(model: Path) -> None:
    with a_server(model) as server:
        server.wait_ready()
        status, before = server.ask(LlamaCpp().request_completion(CALL))
        shutil.copy(model, model.with_name("other"))
        os.truncate(model.with_name("other"), 4096)
        model.with_name("other").replace(model)

        again, after = server.ask(LlamaCpp().request_completion(CALL))

    assert (status, again) == (200, 200)
    assert before
    assert after
