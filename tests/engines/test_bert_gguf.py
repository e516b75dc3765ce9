"""What becomes of a published BERT: the engine computes from the GGUF file what the published files say."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.base import Workload
from adapters.llamacpp import LlamaCpp
from adapters.llamacpp_launch import plan_launch
from adapters.oneshot import Embedding
from tests.adapters.builders import launch
from tests.adapters.oneshot import answered
from tests.support.bert_reference import Bert
from tests.support.llama_process import Process, free_port
from tests.support.pools import REAL_ENGINE
from tests.support.tiny_safetensors import CTX, HEADS, write_published_bert
from tools.bert_gguf import convert

pytestmark = pytest.mark.engines

TEXTS = ["a cat", "The café's cats, sitting [still]!", "x", "the 🙂 sat", "[unused0]"]


def test_the_engine_gives_the_vectors_of_the_published_files(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="the extra `demo` is not installed")
    weights, vocabulary = write_published_bert(tmp_path)
    published = Bert(weights, vocabulary, heads=HEADS)
    model = convert(weights, vocabulary, tmp_path / "m.gguf", name="tiny", heads=HEADS)
    spec = launch(ctx=CTX, threads=1, simulated=True, workloads=frozenset({Workload.EMBEDDING}), binary=REAL_ENGINE)
    plan = plan_launch(replace(spec, model_path=str(model), port=free_port()))
    port = int(plan.argv[plan.argv.index("--port") + 1])
    with Process(replace(plan, argv=(sys.executable, *plan.argv)), port, tmp_path) as engine:
        engine.wait_ready()
        finished = answered(engine, LlamaCpp(), TEXTS)

    rows = [output.embedding for output in finished.outputs if isinstance(output, Embedding)]
    assert rows == [pytest.approx(published.embed(text), abs=1e-3) for text in TEXTS]
    assert finished.tokens_in == sum(len(published.tokens(text)) for text in TEXTS)
