"""`/openapi.json`: an OpenAPI 3.1 document out of the table of routes, the wire Structs and the limits."""

import re
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

import msgspec

from supervisor.http.limits import Limits
from supervisor.http.routes import EVENT_STREAM, Parameter, Route
from supervisor.wire.errors import ErrorEnvelope
from supervisor.wire.frames import End, Started, StreamMetrics
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
    "json_depth_max",
    "header_s",
    "body_s",
    "write_stall_s",
    "comment_s",
    "connections_max",
)
_REF = "#/components/schemas/{name}"
_TOKEN = {
    "type": "object",
    "required": ["t", "i"],
    "properties": {
        "t": {"type": "string", "description": "Text, always whole characters."},
        "i": {"type": "integer", "minimum": 0, "description": "Counts from 0 without gaps."},
    },
}
_BACKOFF_HEADERS = {
    "Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds."},
    "X-Backoff-Ms": {"schema": {"type": "integer", "minimum": 1}, "description": "Milliseconds."},
}
_CORRELATION = {"X-Correlation-Id": {"schema": {"type": "string", "pattern": "^[A-Za-z0-9-]{1,64}$"}}}


def document(routes: tuple[Route, ...], limits: Limits) -> dict[str, Any]:
    """The document of one listener."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": VERSION,
        "info": {
            "title": "OrchQueue",
            "version": API_VERSION,
            "x-limits": {name: value for name, value in asdict(limits).items() if name in PUBLISHED},
        },
        "paths": paths,
        "components": {"schemas": _schemas(routes)},
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "parameters": _parameters(route),
        "responses": {str(route.status): _success(route)} | _refusals(route),
    }
    if route.request is not None:
        schema = {"$ref": _REF.format(name=route.request.__name__)}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    found = [_parameter(parameter) for parameter in route.parameters]
    if "{id}" in route.path:
        found.append({"name": "id", "in": "path", "required": True, "schema": {"type": "string", "maxLength": 128}})
    return found


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "required": False,
        "description": parameter.description,
        "schema": {"type": parameter.kind},
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
        answer["content"] = {route.media_type: {"schema": schema}}
        if route.media_type == EVENT_STREAM:
            answer["content"][EVENT_STREAM]["x-events"] = _events()
    return answer


def _events() -> dict[str, Any]:
    structs = {"started": Started, "metrics": StreamMetrics, "end": End, "error": ErrorEnvelope}
    return {name: {"$ref": _REF.format(name=struct.__name__)} for name, struct in structs.items()} | {"token": _TOKEN}


def _refusals(route: Route) -> dict[str, Any]:
    schema = {"$ref": _REF.format(name=ErrorEnvelope.__name__)}
    answers: dict[str, Any] = {}
    for status in sorted({*ALWAYS, *route.refusals}):
        headers = _CORRELATION | (_BACKOFF_HEADERS if status in {429, 503} else {})
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
