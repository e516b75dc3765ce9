"""The table of routes is what is served and what is documented; the plain routes answer."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from supervisor.http.route import Reach, Route
from supervisor.http.routes import ROUTES
from tests.http.conftest import Serve
from tests.support.memory_service import MemoryService, submit_body
from tests.support.rawhttp import RawClient

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
TASK_ID = "00000000-0000-4000-8000-000000000001"


async def served(client: RawClient) -> set[tuple[str, str]]:
    """What answers on this connection: every path of the table with every method, asked for and not refused."""
    found = set()
    for path in {route.path for route in ROUTES}:
        for method in METHODS:
            answer = await client.ask(method, path.replace("{id}", "no-such-id"))
            is_route = answer.status != 405 and not (answer.status == 404 and b"no such resource" in answer.body)
            if is_route and method != "HEAD":
                found.add((method, path))
    return found


def documented(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, item in document["paths"].items() for method in item}


async def test_the_document_is_the_router_on_both_listeners(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = await serve(socket_path=path)
    async with await RawClient.tcp(server.port) as tcp, await RawClient.unix(path) as unix:
        documents = [(await one.ask("GET", "/openapi.json")).json for one in (tcp, unix)]
        answering = [await served(one) for one in (tcp, unix)]

    assert [documented(document) for document in documents] == answering
    assert answering[1] == {(route.method, route.path) for route in ROUTES}
    assert answering[1] - answering[0] == {
        ("GET", "/v1/pools/{id}/logs"),
        ("GET", "/v1/status"),
        ("GET", "/v1/leases"),
        ("POST", "/v1/leases"),
        ("GET", "/v1/leases/{id}"),
        ("DELETE", "/v1/leases/{id}"),
        ("POST", "/v1/plan"),
        ("GET", "/v1/upgrade"),
        ("POST", "/v1/upgrade"),
    }


async def test_the_document_publishes_every_bound(client: RawClient) -> None:
    document = (await client.ask("GET", "/openapi.json")).json

    assert document["openapi"] == "3.1.0"
    limits = document["info"]["x-limits"]
    assert (limits["body_bytes_max"], limits["header_bytes_max"], limits["url_bytes_max"]) == (1048576, 16384, 2048)
    assert (limits["json_depth_max"], limits["header_s"], limits["body_s"]) == (32, 5.0, 10.0)
    assert (limits["json_strings_max"], limits["framing_bytes_max"]) == (1024, 262_144)
    task = document["components"]["schemas"]["SubmitTask"]
    assert task["additionalProperties"] is False
    assert task["properties"]["inputs"]["maxItems"] == 256
    assert task["properties"]["deadline_ms"] == {"type": "integer", "minimum": 1, "maximum": 86_400_000}
    assert (task["properties"]["seed"]["minimum"], task["properties"]["seed"]["maximum"]) == (-(2**63), 2**63 - 1)
    assert task["oneOf"] == [{"required": ["prompt"]}, {"required": ["inputs"]}]
    assert set(task["required"]) == {
        "task_id", "session_id", "workload", "model_ref", "engine", "ctx", "priority", "max_tokens", "deadline_ms",
    }  # fmt: skip
    assert not re.search(r"\\\\Z", json.dumps(document)), "a pattern that only Python knows"


async def test_every_reference_of_the_document_leads_somewhere(client: RawClient) -> None:
    document = (await client.ask("GET", "/openapi.json")).json

    names = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))

    assert names
    assert names <= set(document["components"]["schemas"])


async def test_operation_ids_are_unique(client: RawClient) -> None:
    document = (await client.ask("GET", "/openapi.json")).json

    ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]

    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_a_wrong_method_is_told_the_right_ones(serve: Serve, tmp_path: Path, route: Route) -> None:
    path = tmp_path / "s"
    await serve(socket_path=path)
    async with await RawClient.unix(path) as client:
        answer = await client.ask("PATCH", route.path.replace("{id}", "x"))

    assert answer.status == 405
    assert route.method in answer.headers["allow"].split(", ")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/tasks", "/v1/replicasets"])
async def test_head_is_get_without_the_body(client: RawClient, path: str) -> None:
    head = await client.ask("HEAD", path)
    got = await client.ask("GET", path)

    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(got.body)), b"")


async def test_a_stream_has_no_head(client: RawClient, service: MemoryService) -> None:
    await client.ask("POST", "/v1/tasks", submit_body(task_id=TASK_ID))

    answer = await client.ask("HEAD", f"/v1/tasks/{TASK_ID}/stream")

    assert (answer.status, answer.headers["allow"]) == (405, "GET")


async def test_probes_say_whether_it_lives_and_whether_it_serves(client: RawClient, service: MemoryService) -> None:
    live, ready = await client.ask("GET", "/healthz"), await client.ask("GET", "/readyz")
    service.is_serving = False
    still_live, unready = await client.ask("GET", "/healthz"), await client.ask("GET", "/readyz")

    assert (live.json, ready.json) == ({"status": "live"}, {"status": "ready"})
    assert still_live.status == 200
    assert (unready.status, unready.json["code"], unready.json["retriable"]) == (503, "POOL_UNREADY", True)
    assert (unready.headers["retry-after"], unready.headers["x-backoff-ms"]) == ("1", "1000")


async def test_metrics_are_the_services_own_page(client: RawClient, service: MemoryService) -> None:
    answer = await client.ask("GET", "/metrics")

    assert answer.body == service.metrics_page()
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_a_task_can_be_looked_at_and_listed(client: RawClient) -> None:
    for _ in range(3):
        await client.ask("POST", "/v1/tasks", submit_body())
    await client.ask("POST", "/v1/tasks", submit_body(task_id=TASK_ID))

    shown = await client.ask("GET", f"/v1/tasks/{TASK_ID}")
    listed = await client.ask("GET", "/v1/tasks?limit=2")
    whole = await client.ask("GET", "/v1/tasks")

    assert (shown.status, shown.json["task_id"], shown.json["state"]) == (200, TASK_ID, "waiting")
    assert [task["task_id"] == TASK_ID for task in listed.json["tasks"]] == [True, False]
    assert (listed.json["truncated"], whole.json["truncated"], len(whole.json["tasks"])) == (True, False, 4)


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "x", "", "1e1", "\u0663", "9" * 30])
async def test_a_limit_has_bounds(client: RawClient, limit: str) -> None:
    answer = await client.ask("GET", f"/v1/tasks?limit={limit}")

    assert (answer.status, answer.json["reason"]) == (400, "field")


@pytest.mark.parametrize("ident", ["unknown", TASK_ID, "-", "." * 3, "x" * 128, "x" * 129, "a%20b"])
async def test_an_id_that_nobody_has_is_not_found(client: RawClient, ident: str) -> None:
    answers = [
        await client.ask(method, path)
        for method, path in (
            ("GET", f"/v1/tasks/{ident}"),
            ("POST", f"/v1/tasks/{ident}/cancel"),
            ("GET", f"/v1/tasks/{ident}/stream"),
            ("GET", f"/v1/pools/{ident}/health"),
        )
    ]

    assert {(answer.status, answer.json["code"], answer.json["reason"]) for answer in answers} == {
        (404, "INVALID_PARAMS", "not_found")
    }


async def test_a_simulated_host_says_so_in_every_response(serve: Serve) -> None:
    server = await serve(simulated="1x8GiB")
    async with await RawClient.tcp(server.port) as client:
        answers = [await client.ask("GET", path) for path in ("/healthz", "/nope", "/metrics")]

    assert {answer.headers["x-orchctl-simulated"] for answer in answers} == {"1x8GiB"}


def test_only_paths_with_one_id_in_third_place_are_in_the_table() -> None:
    for route in ROUTES:
        segments = route.path.split("/")
        assert segments.count("{id}") == (segments[3:4] == ["{id}"])
        assert route.reach in Reach
