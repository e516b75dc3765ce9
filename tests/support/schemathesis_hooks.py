"""Loaded by schemathesis itself (SCHEMATHESIS_HOOKS): makes valid cases valid for the pool of the daemon under test.

A schema says what each field may be. It can't say what the fields say together, nor what the pools of a host can do,
nor that a task_id was used before; those refusals are right, and tables of their own show them. So a positive case
keeps what the schema decides and is given a feasible model, context and a task_id of its own: then every one of them
has to be accepted. Negative cases are sent as they are.
"""

import itertools
import json
import os
import urllib.request
import uuid
from typing import Any

import schemathesis
from schemathesis import GenerationMode
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.openapi.checks import IgnoredAuth

UNKNOWN_HEADER = "x-schemathesis-unknown-property"
CTX_MIN = 128
CTX_MAX = 512
TOKENS = 8
_numbers = itertools.count(1)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Mend the body of a positive case."""
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE or not isinstance(case.body, dict):
        return
    body = {name: _whole(value) for name, value in case.body.items()}
    case.body = _feasible(body) if case.operation.label == "POST /v1/tasks" else body


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Undo a drain: the rest of the run is to meet an open pool."""
    if case.operation.label == "POST /v1/pools/{id}/drain" and response.status_code == 202:
        url = response.request.url.replace("/drain", "/resume")
        headers = {"Authorization": key} if (key := os.environ.get("SCHEMATHESIS_KEY")) else {}
        urllib.request.urlopen(urllib.request.Request(url, b"", headers, method="POST")).close()


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Whether a finding is one. Two are not.

    1. Who comes without a valid key too often within a second is turned away with 429: no access was given.
    2. A header that nobody knows is no wrong input: RFC 9110 §5.1 has it passed over.
    """
    if isinstance(failure, IgnoredAuth) and "got `429 " in failure.message:
        return False
    return not (isinstance(failure, AcceptedNegativeData) and UNKNOWN_HEADER in (case.headers or {}))


def _whole(value: Any) -> Any:
    """JSON Schema takes 1.0 for an integer (2020-12, §6.1.1); the API takes only what is spelled as one."""
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _feasible(body: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in body.items() if name != "inputs"}
    text = kept.get("prompt") or json.dumps(body.get("inputs"))
    mended = {
        "task_id": str(uuid.UUID(int=next(_numbers))),
        "workload": "completion",
        "model_ref": "tiny",
        "engine": "llamacpp",
        "ctx": min(max(kept["ctx"], CTX_MIN), CTX_MAX),
        "deadline_ms": max(kept["deadline_ms"], 60_000),
        "prompt": text.encode()[:64].decode(errors="ignore") or "x",
        "max_tokens": min(kept["max_tokens"], TOKENS),
    }
    if "expected_tokens" in kept:
        mended["expected_tokens"] = min(kept["expected_tokens"], mended["max_tokens"])
    if "sampler_profile_version" in kept:
        mended["sampler_profile_version"] = "v1"
    return kept | mended
