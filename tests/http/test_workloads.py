"""What each workload takes: a prompt, inputs, a query before its documents; and what only a completion has."""

import pytest

from tests.support.memory_service import submit_body
from tests.support.rawhttp import RawClient

INPUTS = ["a", "b"]


@pytest.mark.parametrize(
    "fields",
    [
        {"workload": "embedding"},
        {"workload": "embedding", "prompt": ..., "inputs": ["a"]},
        {"workload": "embedding", "prompt": ..., "inputs": ["a"] * 256},
        {"workload": "rerank", "prompt": ..., "inputs": INPUTS},
        {"workload": "rerank", "prompt": ..., "inputs": ["q"] + ["d"] * 255},
    ],
    ids=["embed a prompt", "embed one", "embed 256", "rank one", "rank 255"],
)
async def test_the_other_workloads_take_texts(client: RawClient, fields: dict[str, object]) -> None:
    answer = await client.ask("POST", "/v1/tasks", submit_body(**fields))

    assert answer.status == 202, answer.body


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "completing inputs": ({"workload": "completion", "prompt": ..., "inputs": INPUTS}, "/prompt"),
    "ranking a prompt": ({"workload": "rerank"}, "/inputs"),
    "ranking no document": ({"workload": "rerank", "prompt": ..., "inputs": ["q"]}, "/inputs"),
    "embedding both": ({"workload": "embedding", "inputs": INPUTS}, "/inputs"),
    "an empty input": ({"workload": "embedding", "prompt": ..., "inputs": ["a", ""]}, "/inputs/1"),
    "257 inputs": ({"workload": "embedding", "prompt": ..., "inputs": ["a"] * 257}, "/inputs"),
    "a seed": ({"workload": "embedding", "seed": 1}, "/seed"),
    "a seed of 0": ({"workload": "embedding", "seed": 0}, "/seed"),
    "a stop": ({"workload": "rerank", "prompt": ..., "inputs": INPUTS, "stop": ["."]}, "/stop"),
    "no stops": ({"workload": "embedding", "stop": []}, "/stop"),
    "a sampler": ({"workload": "embedding", "sampler": {"temperature": 1.0}}, "/sampler"),
    "no max_tokens": ({"workload": "embedding", "max_tokens": ...}, "`max_tokens`"),
    "max_tokens 0": ({"workload": "embedding", "max_tokens": 0}, "/max_tokens"),
}


@pytest.mark.orch("ORCH-3015")
@pytest.mark.parametrize(("fields", "place"), REFUSED.values(), ids=REFUSED)
async def test_what_a_workload_does_not_take_is_refused(
    client: RawClient, fields: dict[str, object], place: str
) -> None:
    answer = await client.ask("POST", "/v1/tasks", submit_body(**fields))

    assert (answer.status, answer.json["code"], answer.json["reason"]) == (400, "INVALID_PARAMS", "field")
    assert place in answer.json["message"]


async def test_outputs_are_described(client: RawClient) -> None:
    schemas = (await client.ask("GET", "/openapi.json")).json["components"]["schemas"]

    for name in ("End", "TaskResult"):
        items = schemas[name]["properties"]["outputs"]["items"]["oneOf"]
        assert [sorted(item["properties"]) for item in items] == [["embedding", "index"], ["index", "score"]]
        assert "outputs" not in schemas[name]["required"]
