"""A real embedding model, all-MiniLM-L6-v2, in the pool of the embedding example behind the whole daemon.

Its vectors mean something, and they are those of the published files.
"""

import math
from collections.abc import Iterator, Sequence
from operator import mul
from typing import Any

import pytest
import yaml

from tests.support.bert_reference import Bert
from tests.support.daemon import ROOT, Daemon
from tests.support.pools import REAL_ENGINE
from tools import fetch_minilm

pytestmark = [pytest.mark.engines, pytest.mark.timeout(180)]

DIMENSIONS = 384
EXAMPLE = ROOT / "examples" / "embedding.yaml"
LAUNCHER = "{config_dir}/engines/xllamacpp_server.py"
PARAPHRASES = [
    ("A man is eating food.", "Someone is having a meal."),
    ("The stock market fell sharply today.", "Share prices dropped a lot this afternoon."),
    ("How do I reset my password?", "I forgot my login and cannot get into my account."),
    ("The spacecraft entered orbit around Mars.", "A probe has reached the red planet."),
]


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for this module, Ready with the real model."""
    if not (fetch_minilm.cached().is_file() and (fetch_minilm.published() / fetch_minilm.WEIGHTS).is_file()):
        pytest.skip("all-MiniLM-L6-v2 is not in the cache (84 MB to download); run: make minilm")
    pytest.importorskip("xllamacpp", reason="the extra `demo` is not installed")
    example = yaml.safe_load(EXAMPLE.read_text())
    [pool] = example["pools"]
    pool["launch"]["command"] = [REAL_ENGINE if word == LAUNCHER else word for word in pool["launch"]["command"]]
    models = {"minilm": {**example["models"]["minilm"], "path": str(fetch_minilm.cached())}}
    daemon = Daemon(tmp_path_factory.mktemp("minilm"), {"pools": [pool], "models": models})
    yield daemon.start_ready()
    daemon.close()


@pytest.fixture(scope="module")
def published() -> Bert:
    """The model computed from the files that were published, without an engine."""
    folder = fetch_minilm.published()
    return Bert(folder / fetch_minilm.WEIGHTS, folder / fetch_minilm.VOCABULARY, heads=fetch_minilm.HEADS)


def ended(daemon: Daemon, inputs: Sequence[str]) -> dict[str, Any]:
    """The `end` frame of an embedding."""
    task_id = daemon.accept(workload="embedding", model_ref="minilm", inputs=list(inputs))
    end = daemon.read_stream(task_id).end
    assert end.data["finish_reason"] == "stop"
    return end.data


def vectors(daemon: Daemon, *inputs: str) -> list[list[float]]:
    """One for each input, in their order."""
    outputs = ended(daemon, inputs)["outputs"]
    assert [output["index"] for output in outputs] == list(range(len(inputs)))
    return [output["embedding"] for output in outputs]


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    product: float = sum(map(mul, one, other))
    return product / math.hypot(*one) / math.hypot(*other)


@pytest.mark.orch("ORCH-3054")
def test_a_cat_is_nearer_to_a_kitten_than_to_the_stock_market(minilm: Daemon) -> None:
    cat, kitten, market = vectors(minilm, "cat", "kitten", "stock market")

    assert cosine(cat, kitten) > cosine(cat, market) + 0.3


def test_each_sentence_is_nearest_to_its_paraphrase(minilm: Daemon) -> None:
    given = vectors(minilm, *(sentence for sentence, _ in PARAPHRASES))
    rephrased = vectors(minilm, *(paraphrase for _, paraphrase in PARAPHRASES))

    nearest = [max(range(len(rephrased)), key=lambda at: cosine(vector, rephrased[at])) for vector in given]
    assert nearest == list(range(len(PARAPHRASES)))


@pytest.mark.orch("ORCH-3054")
def test_256_inputs_give_256_vectors_of_length_one(minilm: Daemon) -> None:
    given = vectors(minilm, *(f"sentence number {number}" for number in range(256)))

    assert [len(vector) for vector in given] == [DIMENSIONS] * 256
    assert all(math.isclose(math.hypot(*vector), 1, rel_tol=1e-5) for vector in given)
    assert len({tuple(vector) for vector in given}) == 256


@pytest.mark.orch("ORCH-3045")
def test_a_vector_is_the_same_alone_and_among_others(minilm: Daemon) -> None:
    texts = [f"{number} ships sail over the sea " * (1 + number % 9) for number in range(32)]
    among = vectors(minilm, *texts)

    alone = [vectors(minilm, text)[0] for text in texts[:9]]

    assert among[:9] == alone


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("A kitten sleeps.", id="short"),
        pytest.param("The café's über-cat isn't sleeping; it costs $3.50 (naïvely).", id="accents and punctuation"),
        pytest.param("I love 東京", id="ideographs"),
        pytest.param("e=mc² ½ ﬁ 🙂 — “quoted”", id="unknown and composed characters"),
        pytest.param("antidisestablishmentarianism " * 20, id="many pieces"),
    ],
)
def test_it_is_the_vector_of_the_published_files(minilm: Daemon, published: Bert, text: str) -> None:
    end = ended(minilm, [text])

    assert end["tokens_in"] == len(published.tokens(text))
    assert cosine(end["outputs"][0]["embedding"], published.embed(text)) > 0.9999
