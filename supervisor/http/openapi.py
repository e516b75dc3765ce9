"""`/openapi.json`: an OpenAPI 3.1 document out of the table of routes, the wire Structs and the limits."""

import re
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

import msgspec

from supervisor.http.bodies import STRINGS_MAX
from supervisor.http.limits import Limits
from supervisor.http.route import EVENT_STREAM, Parameter, Route
from supervisor.http.routes import IDENT_PATTERN
from supervisor.wire.errors import ErrorEnvelope
from supervisor.wire.frames import End, Started, StreamMetrics
from supervisor.wire.pools import DrainRequest
from supervisor.wire.tasks import SubmitTask

VERSION = "3.1.0"
API_VERSION = "1"
ALWAYS = (403, 404, 405, 414, 429, 431, 500)
"""Refusals that every route can give: who asks, what for, how long, and how many at once."""
PUBLISHED = (
    "body_bytes_max",
    "header_bytes_max",
    "header_count_max",
    "url_bytes_max",
    "framing_bytes_max",
    "json_depth_max",
    "header_s",
    "body_s",
    "write_stall_s",
    "comment_s",
    "connections_max",
)
_TASKS = "/v1/tasks"
_REF = "#/components/schemas/{name}"
_TOKEN = {
    "type": "object",
    "additionalProperties": False,
    "required": ["t", "i"],
    "properties": {
        "t": {"type": "string", "description": "Text, always whole characters."},
        "i": {"type": "integer", "minimum": 0, "description": "Counts from 0 without gaps."},
    },
}
_BACKOFF_HEADERS = {
    "Retry-After": {"schema": {"type": "integer", "minimum": 1}, "required": True, "description": "Seconds."},
    "X-Backoff-Ms": {"schema": {"type": "integer", "minimum": 1}, "required": True, "description": "Milliseconds."},
}
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key: `Authorization: Bearer ok_...`."},
    "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key", "description": "The same key in its own header."},
}
_CHALLENGE = {"WWW-Authenticate": {"schema": {"type": "string", "const": "Bearer"}}}
_CORRELATION = {"X-Correlation-Id": {"schema": {"type": "string", "pattern": "^[A-Za-z0-9-]{1,64}$"}, "required": True}}
_ALLOW = {"Allow": {"schema": {"type": "string"}, "required": True, "description": "The methods that are served."}}
_EXAMPLES = {
    SubmitTask: {
        "task_id": "8f14e45f-ceea-4a2e-9d1c-3b5a6e0c7d11",
        "session_id": "c9f0f895-fb98-4b2c-8a6e-1d2f3a4b5c6d",
        "workload": "completion",
        "model_ref": "smollm2-135m",
        "engine": "llamacpp",
        "ctx": 2048,
        "priority": "interactive",
        "max_tokens": 64,
        "deadline_ms": 30_000,
        "prompt": "The capital of France is",
    },
    DrainRequest: {"deadline_ms": 30_000},
}


def document(routes: tuple[Route, ...], limits: Limits, *, is_keyed: bool = False) -> dict[str, Any]:
    """The document of one listener; `is_keyed` where every request must carry an API key."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, limits, is_keyed=is_keyed)
    paths[_TASKS]["post"]["responses"]["202"]["links"] = _links(routes)
    return {
        "openapi": VERSION,
        "info": {
            "title": "OrchQueue",
            "version": API_VERSION,
            "x-limits": {name: value for name, value in asdict(limits).items() if name in PUBLISHED}
            | {"json_strings_max": STRINGS_MAX},
        },
        "paths": paths,
        "components": {"schemas": _schemas(routes)} | ({"securitySchemes": _SCHEMES} if is_keyed else {}),
    }


def _links(routes: tuple[Route, ...]) -> dict[str, Any]:
    """What can be asked about a task that was just accepted."""
    return {
        _operation_id(route): {"operationId": _operation_id(route), "parameters": {"id": "$response.body#/task_id"}}
        for route in routes
        if route.path.startswith(f"{_TASKS}/{{id}}")
    }


def _operation_id(route: Route) -> str:
    return route.handler.__name__


def _operation(route: Route, limits: Limits, *, is_keyed: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "parameters": _parameters(route, limits),
        "responses": {str(route.status): _success(route)} | _refusals(route, is_keyed=is_keyed),
    }
    if is_keyed:
        # A list of names means all of them, so a route that takes one of several scopes names none.
        names = [*route.scopes] if len(route.scopes) == 1 else []
        operation["security"] = [{scheme: names} for scheme in _SCHEMES]
    if route.request is not None:
        content: dict[str, Any] = {"schema": {"$ref": _REF.format(name=route.request.__name__)}}
        if route.request in _EXAMPLES:
            content["example"] = _EXAMPLES[route.request]
        operation["requestBody"] = {"required": True, "content": {"application/json": content}}
    return operation


def _parameters(route: Route, limits: Limits) -> list[dict[str, Any]]:
    found = [_parameter(parameter, limits) for parameter in route.parameters]
    if "{id}" in route.path:
        schema = {"type": "string", "pattern": f"^{IDENT_PATTERN}$"}
        found.append({"name": "id", "in": "path", "required": True, "schema": schema})
    return found


def _parameter(parameter: Parameter, limits: Limits) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": parameter.kind}
    if parameter.least is not None:
        schema["minimum"] = parameter.least
    if parameter.most is not None:
        schema["maximum"] = getattr(limits, parameter.most) if isinstance(parameter.most, str) else parameter.most
    return {
        "name": parameter.name,
        "in": parameter.where,
        "required": False,
        "description": parameter.description,
        "schema": schema,
    }


def _success(route: Route) -> dict[str, Any]:
    headers = {name: {"schema": {"type": "integer", "minimum": 0}} for name in route.reply_headers} | _CORRELATION
    answer: dict[str, Any] = {"description": HTTPStatus(route.status).phrase, "headers": headers}
    if route.status != HTTPStatus.NO_CONTENT:
        schema: dict[str, Any] = {"type": "string"}
        if route.reply is not None:
            schema = {"$ref": _REF.format(name=route.reply.__name__)}
        elif route.media_type == "application/json":
            schema = {"type": "object"}
        elif route.media_type == EVENT_STREAM:
            schema = {"oneOf": [_event(name, data) for name, data in _events().items()]}
        answer["content"] = {route.media_type: {"schema": schema}}
    return answer


def _events() -> dict[str, Any]:
    structs = {"started": Started, "metrics": StreamMetrics, "end": End, "error": ErrorEnvelope}
    return {name: {"$ref": _REF.format(name=struct.__name__)} for name, struct in structs.items()} | {"token": _TOKEN}


def _event(name: str, data: dict[str, Any]) -> dict[str, Any]:
    """One server-sent event, field by field, as `itemSchema` of OpenAPI 3.2 has it."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["id", "event", "data"],
        "properties": {
            "id": {"type": "string", "pattern": "^[0-9]{1,19}$"},
            "event": {"const": name},
            "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": data},
        },
    }


def _refusals(route: Route, *, is_keyed: bool) -> dict[str, Any]:
    schema = {"$ref": _REF.format(name=ErrorEnvelope.__name__)}
    answers: dict[str, Any] = {}
    for status in sorted({*ALWAYS, *route.refusals} | ({401} if is_keyed else set())):
        headers: dict[str, Any] = _CORRELATION | (_BACKOFF_HEADERS if status in {429, 503} else {})
        headers |= _CHALLENGE if status == HTTPStatus.UNAUTHORIZED else {}
        headers |= _ALLOW if status == HTTPStatus.METHOD_NOT_ALLOWED else {}
        answers[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "headers": headers,
            "content": {"application/json": {"schema": schema}},
        }
    return answers


def _schemas(routes: tuple[Route, ...]) -> dict[str, Any]:
    structs = {struct for route in routes for struct in (route.request, route.reply) if struct is not None}
    structs |= {ErrorEnvelope, Started, StreamMetrics, End}
    ordered = sorted(structs, key=lambda struct: struct.__name__)
    _, found = msgspec.json.schema_components(ordered, ref_template=_REF)
    schemas: dict[str, Any] = _portable(found)
    submit = schemas.get(SubmitTask.__name__)
    if submit is not None:
        submit["oneOf"] = [{"required": ["prompt"]}, {"required": ["inputs"]}]
    return schemas


def _portable(schema: Any) -> Any:  # noqa: ANN401  (JSON)
    """The same schema with patterns that ECMA-262 knows: its `$` is Python's end-of-text anchor."""
    if isinstance(schema, dict):
        return {key: _anchored(value) if key == "pattern" else _portable(value) for key, value in schema.items()}
    return [_portable(item) for item in schema] if isinstance(schema, list) else schema


def _anchored(pattern: Any) -> Any:  # noqa: ANN401  (JSON: a field may be called `pattern` too)
    return re.sub(r"\\Z\Z", "$", pattern) if isinstance(pattern, str) else _portable(pattern)
