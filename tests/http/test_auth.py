"""The door: every route and method wants a key with its scope, and a key that is no key learns nothing."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from supervisor.config.keys import Issued
from supervisor.http.auth import Gate
from supervisor.http.limits import Limits
from supervisor.http.route import Route
from supervisor.http.routes import ROUTES, routes_on_tcp
from supervisor.http.server import HttpServer
from supervisor.runtime.audit import Audit
from supervisor.runtime.key_ring import KeyRing
from supervisor.wire.codes import Priority, Scope
from tests.support.keys import a_key, bearer, revoke
from tests.support.memory_service import MemoryService, submit_body
from tests.support.rawhttp import Answer, RawClient, request

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
PATHS = sorted({route.path for route in ROUTES} | {"/", "/nope", "/v1/tasks/x/nope"})
WELL_FORMED = "ok_" + "A" * 43


class Door:
    """A served edge with a key file; `reread` is what the daemon does when the file changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now_s = 0.0
        self.failures: list[str] = []
        self.ring = KeyRing(path, {})
        self.gate = Gate(self.ring, Audit(self.failures.append), lambda: self.now_s)
        self.port = 0

    def key(self, *scopes: Scope, **rights: Any) -> Issued:
        issued = a_key(self.path, *scopes, **rights)
        self.ring.take_up()
        return issued

    async def ask(
        self,
        method: str,
        path: str,
        key: Issued | str | None = None,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request on a connection of its own."""
        async with await RawClient.tcp(self.port) as client:
            return await client.ask(method, path, body, (bearer(key) if key else {}) | (headers or {}))


@pytest.fixture
async def door(service: MemoryService, tmp_path: Path) -> AsyncIterator[Door]:
    """With one key that no test knows, so that a key is asked for."""
    door = Door(tmp_path / "keys.json")
    door.key()
    server = HttpServer(service, gate=door.gate, limits=Limits(linger_s=0.2))
    await server.start()
    door.port = server.port
    yield door
    await server.close()


def shown(answer: Answer) -> tuple[int, str, str]:
    return answer.status, answer.json["code"], answer.json["reason"]


@pytest.mark.orch("ORCH-3035")
@pytest.mark.parametrize("path", PATHS)
async def test_no_route_and_no_method_answers_without_a_key(door: Door, path: str) -> None:
    answers = {method: await door.ask(method, path.replace("{id}", "p")) for method in METHODS}

    assert {answer.status for answer in answers.values()} == {401}
    assert {answer.headers["www-authenticate"] for answer in answers.values()} == {"Bearer"}
    assert all(shown(answer) == (401, "INVALID_PARAMS", "auth") for method, answer in answers.items() if answer.body)


async def test_what_is_documented_is_what_is_behind_the_door(door: Door) -> None:
    document = (await door.ask("GET", "/openapi.json", door.key(Scope.METRICS))).json
    operations = {(method, path): item for path, of in document["paths"].items() for method, item in of.items()}

    answers = {each: await door.ask(each[0].upper(), each[1].replace("{id}", "p")) for each in operations}

    assert {answer.status for answer in answers.values()} == {401}
    assert set(operations) == {(route.method.lower(), route.path) for route in routes_on_tcp()}
    assert all({"401", "403"} <= set(each["responses"]) for each in operations.values())
    assert all([*scheme] != [] for each in operations.values() for scheme in each["security"])
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}


async def test_without_any_key_the_document_asks_for_none(service: MemoryService, tmp_path: Path) -> None:
    door = Door(tmp_path / "keys.json")
    server = HttpServer(service, gate=door.gate)
    await server.start()
    door.port = server.port

    document = (await door.ask("GET", "/openapi.json")).json
    await server.close()

    assert "securitySchemes" not in document["components"]
    assert not [item for of in document["paths"].values() for item in of.values() if "security" in item]


@pytest.mark.orch("ORCH-3035")
@pytest.mark.parametrize("route", routes_on_tcp(), ids=lambda route: f"{route.method} {route.path}")
@pytest.mark.parametrize("scope", Scope)
async def test_a_route_is_for_the_scopes_that_it_declares(door: Door, route: Route, scope: Scope) -> None:
    key = door.key(scope)

    answer = await door.ask(route.method, route.path.replace("{id}", "none"), key, b"{}" if route.request else None)

    is_denied = answer.status == 403
    assert is_denied == (scope not in route.scopes)
    assert answer.status != 401
    if is_denied:
        assert shown(answer) == (403, "INVALID_PARAMS", "scope")
        assert "lacks the scope" in answer.json["message"]


def test_the_declared_scopes_are_those_that_were_decided() -> None:
    by_scope = {
        (route.method, route.path): "any" if len(route.scopes) == 3 else "+".join(sorted(route.scopes))
        for route in ROUTES
    }

    assert (
        by_scope.items()
        >= {
            ("POST", "/v1/tasks"): "data",
            ("GET", "/v1/tasks"): "data",
            ("GET", "/v1/tasks/{id}"): "data",
            ("GET", "/v1/tasks/{id}/stream"): "data",
            ("POST", "/v1/tasks/{id}/cancel"): "data",
            ("GET", "/v1/pools/{id}/health"): "data",
            ("GET", "/v1/replicasets"): "data",
            ("POST", "/v1/pools/{id}/drain"): "control",
            ("POST", "/v1/pools/{id}/resume"): "control",
            ("GET", "/v1/pools/{id}/logs"): "control",
            ("GET", "/v1/status"): "control",
            ("GET", "/metrics"): "metrics",
            ("GET", "/healthz"): "any",
            ("GET", "/readyz"): "any",
            ("GET", "/openapi.json"): "any",
        }.items()
    )


MALFORMED: dict[str, list[tuple[str, str]]] = {
    "no header": [],
    "empty": [("Authorization", "")],
    "no scheme": [("Authorization", "KEY")],
    "another scheme": [("Authorization", "Basic KEY")],
    "no space": [("Authorization", "BearerKEY")],
    "a word more": [("Authorization", "Bearer KEY x")],
    "quoted": [("Authorization", 'Bearer "KEY"')],
    "a comma list": [("Authorization", "Bearer KEY, Bearer KEY")],
    "long": [("Authorization", "Bearer KEYA")],
    "short": [("Authorization", "Bearer ok_" + "A" * 42)],
    "another prefix": [("Authorization", "Bearer sk_" + "A" * 43)],
    "twice": [("Authorization", "Bearer KEY")] * 2,
    "twice, one wrong": [("Authorization", f"Bearer {WELL_FORMED}"), ("Authorization", "Bearer KEY")],
    "in both headers": [("Authorization", "Bearer KEY"), ("X-Api-Key", "KEY")],
    "own header twice": [("X-Api-Key", "KEY")] * 2,
    "scheme in own header": [("X-Api-Key", "Bearer KEY")],
    "a digest for a key": [("X-Api-Key", "a" * 64)],
    "no ASCII": [("X-Api-Key", "ok_" + "\u00e9" * 43)],
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_key_that_is_not_given_exactly_once_is_none(door: Door, name: str) -> None:
    secret = door.key(Scope.DATA).secret
    lines = "".join(f"{field}: {value.replace('KEY', secret)}\r\n" for field, value in MALFORMED[name])

    async with await RawClient.tcp(door.port) as client:
        client.send(f"GET /healthz HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
        answer = await client.answer()

    assert shown(answer) == (401, "INVALID_PARAMS", "auth")
    assert secret not in answer.body.decode()


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER   {}"])
async def test_a_key_may_come_in_either_header(door: Door, form: str) -> None:
    key = door.key(Scope.DATA)

    answers = [
        await door.ask("GET", "/v1/tasks", headers={"Authorization": form.format(key.secret)}),
        await door.ask("GET", "/v1/tasks", headers={"X-Api-Key": key.secret}),
    ]

    assert [answer.status for answer in answers] == [200, 200]


async def test_unknown_expired_and_revoked_keys_get_the_same_answer(door: Door) -> None:
    expired = door.key(lifetime=timedelta(0))
    revoked = door.key()
    revoke(door.path, revoked)
    door.ring.take_up()

    answers = [await door.ask("GET", "/v1/tasks", key) for key in (WELL_FORMED, expired, revoked)]

    bodies = [{**answer.json, "correlation_id": ""} for answer in answers]
    assert [answer.status for answer in answers] == [401] * 3
    assert bodies == [bodies[0]] * 3
    assert door.failures == ["unknown", "expired", "revoked"]


async def test_a_body_is_not_looked_at_before_the_key(door: Door) -> None:
    huge = {"Content-Length": str(2**30), "Content-Type": "application/json"}
    wrong = {"Content-Encoding": "gzip", "Content-Type": "text/plain"}
    waiting = {**huge, "Expect": "100-continue"}

    answers = [await door.ask("POST", "/v1/tasks", headers=headers) for headers in (huge, wrong, waiting)]

    assert [answer.status for answer in answers] == [401] * 3


async def test_the_caller_is_who_the_key_says(door: Door, service: MemoryService) -> None:
    key = door.key(Scope.DATA, tenant="blue")

    await door.ask("POST", "/v1/tasks", key, submit_body())

    [held] = service.held.values()
    assert (held.caller.tenant, held.caller.client_id, held.caller.is_operator) == ("blue", key.key.id, False)


@pytest.mark.orch("ORCH-3035")
async def test_a_key_for_batch_submits_nothing_interactive(door: Door, service: MemoryService) -> None:
    key = door.key(Scope.DATA, priorities=(Priority.BATCH,))

    refused = await door.ask("POST", "/v1/tasks", key, submit_body(priority="interactive"))
    accepted = await door.ask("POST", "/v1/tasks", key, submit_body(priority="batch"))

    assert (shown(refused), accepted.status) == ((403, "INVALID_PARAMS", "scope"), 202)
    assert [held.request.priority for held in service.held.values()] == ["batch"]


@pytest.mark.parametrize("field", ["tenant", "client_id", "job_id", "policy", "scopes", "is_operator", "attempt"])
async def test_a_client_cannot_say_what_is_not_its_to_say(door: Door, service: MemoryService, field: str) -> None:
    answer = await door.ask("POST", "/v1/tasks", door.key(Scope.DATA), submit_body(**{field: "red"}))

    assert (answer.status, answer.json["reason"]) == (400, "field")
    assert service.held == {}


async def test_more_than_50_failures_a_second_of_one_address_are_told_to_wait(door: Door) -> None:
    key = door.key(Scope.DATA)

    first = [(await door.ask("GET", "/v1/tasks", WELL_FORMED)).status for _ in range(50)]
    held_up = await door.ask("GET", "/v1/tasks", WELL_FORMED)
    with_key = await door.ask("GET", "/v1/tasks", key)
    door.now_s += 1
    later = await door.ask("GET", "/v1/tasks")

    assert first == [401] * 50
    assert shown(held_up) == (429, "ADMISSION_REJECT", "rate_limit")
    assert int(held_up.headers["retry-after"]) >= 1
    assert (with_key.status, later.status) == (200, 401), "who has a key is never held up"
    assert door.failures.count("throttled") == 1


async def test_once_there_were_keys_the_door_stays_shut(door: Door) -> None:
    key = door.key(Scope.DATA)
    door.path.write_text(json.dumps({"version": 1, "keys": []}))
    door.ring.take_up()

    answers = [await door.ask("GET", "/healthz", given) for given in (None, key)]

    assert [answer.status for answer in answers] == [401, 401]


async def test_a_request_is_judged_by_its_own_key_not_by_that_of_its_connection(door: Door) -> None:
    key = door.key(Scope.DATA)
    async with await RawClient.tcp(door.port) as client:
        client.send(request("GET", "/v1/tasks", headers=bearer(key)) + request("GET", "/v1/tasks"))
        answers = [await client.answer(), await client.answer()]

    assert [answer.status for answer in answers] == [200, 401]


async def test_failures_and_control_actions_are_lines_with_an_actor_and_without_a_key(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    control, data = door.key(Scope.CONTROL), door.key(Scope.DATA)

    with caplog.at_level("INFO", "orchctl"):
        await door.ask("POST", "/v1/pools/p/drain", control, b'{"deadline_ms": 5}')
        await door.ask("POST", "/v1/pools/p/resume", data)
        await door.ask("GET", "/v1/tasks", WELL_FORMED)

    lines = [{"event": each.getMessage(), **each.__dict__} for each in caplog.records if each.name == "orchctl"]
    done, denied, rejected = lines
    assert (done["event"], done["actor"], done["action"], done["target"], done["status"]) == (
        "control action", control.key.id, "drain", "p", 202,
    )  # fmt: skip
    assert (denied["event"], denied["actor"], denied["action"]) == ("request not permitted", data.key.id, "resume")
    assert (rejected["event"], rejected["reason"], rejected["peer"]) == (
        "request not authenticated", "unknown", "127.0.0.1",
    )  # fmt: skip
    assert len(rejected["fingerprint"]) == 6
    assert not [line for line in lines for value in line.values() if isinstance(value, str) and "ok_" in value]


async def test_on_the_control_socket_the_actor_is_the_user(
    service: MemoryService, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    door = Door(tmp_path / "keys.json")
    door.key()
    server = HttpServer(service, gate=door.gate, socket_path=tmp_path / "s")
    await server.start()

    with caplog.at_level("INFO", "orchctl"):
        async with await RawClient.unix(tmp_path / "s") as client:
            answer = await client.ask("POST", "/v1/pools/p/resume")
    await server.close()

    [line] = [each for each in caplog.records if each.getMessage() == "control action"]
    assert answer.status == 202
    assert line.__dict__["actor"].startswith("uid:")


async def test_the_lines_that_one_key_can_cause_by_asking_for_too_much_are_bounded(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    key = door.key(Scope.DATA)
    async with await RawClient.tcp(door.port) as client:
        statuses = {(await client.ask("GET", "/metrics", headers=bearer(key))).status for _ in range(60)}
    lines = [line for line in caplog.records if line.getMessage() == "request not permitted"]

    assert statuses == {403}
    assert len(lines) == 50
    assert door.failures == ["scope"] * 60
