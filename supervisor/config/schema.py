"""The JSON Schema of a config, for editors, and the names of the keys that may stand at a place."""

from functools import cache
from typing import Any

from supervisor.config.model import Config
from supervisor.config.problems import Loc

Schema = dict[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> Schema:
    """The JSON Schema (2020-12) of the whole file. Rules between several keys are not in it; `load` checks them."""
    return {"$schema": _DIALECT, **Config.model_json_schema(), "title": "orchctl config"}


def known_keys(loc: Loc) -> tuple[str, ...]:
    """The keys of the mapping at `loc`, empty where the place is unknown or its keys are free."""
    root = _schema_once()
    node = root
    for step in loc:
        node = _child(_resolved(node, root), step)
    return tuple(_resolved(node, root).get("properties", {}))


@cache
def _schema_once() -> Schema:
    return schema()


def _child(node: Schema, step: str | int) -> Schema:
    if isinstance(step, int):
        return node.get("items") or {}
    named: dict[str, Schema] = node.get("properties", {})
    if step in named:
        return named[step]
    free = [node.get("additionalProperties"), *node.get("patternProperties", {}).values()]
    return next((branch for branch in free if isinstance(branch, dict)), {})


def _resolved(node: Schema, root: Schema) -> Schema:
    """Follow references, and take the branch of an optional value that is not null."""
    while True:
        if "$ref" in node:
            node = root["$defs"][node["$ref"].rpartition("/")[2]]
        elif "anyOf" in node:
            node = next(branch for branch in node["anyOf"] if branch.get("type") != "null")
        else:
            return node
