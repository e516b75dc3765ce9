"""The published JSON Schema allows exactly the keys that the loader allows."""

from typing import Any

import pytest

from supervisor.config.model import Config
from supervisor.config.pool import PoolConfig
from supervisor.config.schema import known_keys, schema


@pytest.mark.orch("ORCH-3030")
def test_every_section_of_the_schema_forbids_unknown_keys() -> None:
    definitions: dict[str, Any] = schema()["$defs"]

    sections = [one for one in [schema(), *definitions.values()] if "properties" in one]
    assert len(sections) > 10
    assert all(section["additionalProperties"] is False for section in sections)


def test_the_schema_requires_what_has_no_default_and_carries_the_bounds() -> None:
    document = schema()
    pool = document["$defs"]["PoolConfig"]

    assert document["required"] == ["pools"]
    assert set(pool["required"]) == {"id", "engine", "model", "devices"}
    assert pool["properties"]["slots"] == {
        "default": 1,
        "maximum": 256,
        "minimum": 1,
        "title": "Slots",
        "type": "integer",
    }
    assert pool["properties"]["id"]["pattern"] == "^([a-z0-9][a-z0-9._-]{0,62})$"


@pytest.mark.parametrize(
    ("loc", "keys"),
    [
        ((), set(Config.model_fields)),
        (("pools", 3), set(PoolConfig.model_fields)),
        (("models", "repo:a/b"), {"path", "digest"}),
        (("engines", "vllm"), {"binary"}),
        (("pools", 0, "launch", "env"), set()),
        (("nowhere", 0), set()),
    ],
)
def test_the_known_keys_of_a_place(loc: tuple[str | int, ...], keys: set[str]) -> None:
    assert set(known_keys(loc)) == keys
