"""The routes of changes: parsed strictly, for the control scope alone, each use in the audit trail."""

from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from supervisor.http.route import CONTROL
from supervisor.http.routes import ROUTES
from tests.http.conftest import Serve
from tests.support.rawhttp import RawClient

CHANGES = (
    ("/v1/pools/{}/reload", b'{"new_model_ref":"m"}'),
    ("/v1/pools/{}/canary", b'{"new_model_ref":"m","percent":5}'),
    ("/v1/pools/{}/rollback", b"{}"),
    ("/v1/pools/{}/rollout/promote", b"{}"),
    ("/v1/pools/{}/rollout/abort", b"{}"),
    ("/v1/pools/{}/rollout/share", b'{"percent":50}'),
)


@pytest.fixture
async def operator(serve: Serve, tmp_path: Path) -> AsyncIterator[RawClient]:
    """A connection to the control socket."""
    path = tmp_path / "control.sock"
    await serve(socket_path=path)
    async with await RawClient.unix(path) as client:
        yield client


@pytest.mark.orch("ORCH-3031", "ORCH-3033")
@pytest.mark.parametrize(("path", "body"), CHANGES)
async def test_a_change_is_begun_or_its_pool_is_not_there(operator: RawClient, path: str, body: bytes) -> None:
    known = await operator.ask("POST", path.format("p"), body)
    unknown = await operator.ask("POST", path.format("q"), body)

    assert (known.status, known.json) == (202, {"pool_id": "p", "revision": 2, "dry_run": False})
    assert (unknown.status, unknown.json["reason"]) == (404, "not_found")


async def test_the_rollout_of_a_pool(operator: RawClient) -> None:
    answer = await operator.ask("GET", "/v1/pools/p/rollout")

    assert (answer.status, answer.json["revision"], answer.json["history"]) == (200, 1, [])


async def test_a_reload_of_the_config_says_the_generation(operator: RawClient) -> None:
    answers = [await operator.ask("POST", "/v1/config/reload", body) for body in (b"{}", b'{"dry_run":true}')]

    assert [(answer.status, answer.json["generation"]) for answer in answers] == [(200, 2), (200, 1)]


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/v1/pools/p/reload", b"{}", "field"),
        ("/v1/pools/p/reload", b'{"new_model_ref":"../../etc/passwd"}', "field"),
        ("/v1/pools/p/reload", b'{"new_model_ref":"--flag"}', "field"),
        ("/v1/pools/p/reload", b'{"new_model_ref":"m","drain_ms":-1}', "field"),
        ("/v1/pools/p/canary", b'{"new_model_ref":"m"}', "field"),
        ("/v1/pools/p/canary", b'{"new_model_ref":"m","percent":101}', "field"),
        ("/v1/pools/p/canary", b'{"new_model_ref":"m","percent":1,"judge":{"parity_min":2}}', "field"),
        ("/v1/pools/p/canary", b'{"new_model_ref":"m","percent":1,"percent":2}', "json"),
        ("/v1/pools/p/rollout/share", b'{"percent":"5"}', "field"),
        ("/v1/config/reload", b'{"file":"/etc/passwd"}', "field"),
    ],
)
async def test_a_wrong_change_is_refused(operator: RawClient, path: str, body: bytes, reason: str) -> None:
    answer = await operator.ask("POST", path, body)

    assert (answer.status, answer.json["reason"]) == (400, reason)


def changing() -> Iterable[str]:
    paths = [path.format("{id}") for path, _ in CHANGES]
    return [*paths, "/v1/config/reload"]


@pytest.mark.parametrize("path", changing())
def test_every_change_needs_the_control_scope_and_is_audited(path: str) -> None:
    (route,) = [each for each in ROUTES if each.path == path]

    assert route.scopes == CONTROL
    assert route.is_audited
