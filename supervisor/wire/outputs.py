"""What an embedding or rerank task delivers: one output for each input, or for each document, in their order."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

_INDEX = {"type": "integer", "minimum": 0}
_NUMBER = {"type": "number"}


def _item(name: str, value: dict[str, Any], says: str) -> dict[str, Any]:
    properties = {"index": _INDEX, name: value}
    return {"type": "object", "description": says, "required": [*properties], "properties": properties}


_SCHEMA = {
    "type": "array",
    "minItems": 1,
    "items": {
        "oneOf": [
            _item("embedding", {"type": "array", "items": _NUMBER}, "The vector of input `index`, of length 1."),
            _item(
                "score",
                _NUMBER,
                "How well document `index`, counted from 0 without the query, fits; higher fits better.",
            ),
        ]
    },
}

Outputs = Annotated[msgspec.Raw, Meta(description="In the order of the inputs.", extra_json_schema=_SCHEMA)]
"""Encoded once, where the run ends. For an embedding `{index, embedding}`, for a rerank `{index, score}`."""
