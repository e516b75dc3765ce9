"""Sessions over HTTP: looked at, listed, deleted; a stranger's is as unknown as one that never was."""

import pytest

from tests.support.memory_service import MemoryService
from tests.support.rawhttp import RawClient

OWN = "123e4567-e89b-42d3-a456-426614174000"
FOREIGN = "123e4567-e89b-42d3-a456-426614174001"
UNKNOWN = "123e4567-e89b-42d3-a456-426614174002"


@pytest.mark.orch("ORCH-3021")
async def test_a_session_is_shown_to_its_tenant(client: RawClient, service: MemoryService) -> None:
    service.keep_session(OWN)

    answer = await client.ask("GET", f"/v1/sessions/{OWN}")

    expected = {"session_id": OWN, "ttl_ms_remaining": 1000, "turns": 1, "kv_bytes": 10, "kv_warmth": True}
    assert (answer.status, answer.json) == (200, expected)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_foreign_one_and_an_unknown_one_have_the_same_answer(
    client: RawClient, service: MemoryService, method: str
) -> None:
    service.keep_session(FOREIGN, tenant="other")

    answers = [
        await client.ask(method, f"/v1/sessions/{ident}", headers={"X-Correlation-Id": "c"})
        for ident in (FOREIGN, UNKNOWN, "no-uuid")
    ]

    assert {(answer.status, answer.body) for answer in answers} == {(404, answers[0].body)}
    assert (answers[0].json["code"], answers[0].json["reason"]) == ("INVALID_PARAMS", "not_found")


async def test_looking_at_a_session_makes_none(client: RawClient, service: MemoryService) -> None:
    await client.ask("GET", f"/v1/sessions/{UNKNOWN}")

    assert (await client.ask("GET", "/v1/sessions")).json == {"sessions": [], "truncated": False}


async def test_a_deleted_session_is_gone_and_deleting_it_again_does_no_harm(
    client: RawClient, service: MemoryService
) -> None:
    service.keep_session(OWN)

    deletes = [await client.ask("DELETE", f"/v1/sessions/{OWN}") for _ in range(2)]

    assert [(answer.status, answer.body) for answer in deletes] == [(204, b""), (204, b"")]
    assert (await client.ask("GET", f"/v1/sessions/{OWN}")).status == 404


async def test_the_list_is_bounded_and_says_so(client: RawClient, service: MemoryService) -> None:
    service.keep_session(OWN)
    service.keep_session(UNKNOWN)

    page = (await client.ask("GET", "/v1/sessions?limit=1")).json

    assert [each["session_id"] for each in page["sessions"]] == [UNKNOWN]
    assert page["truncated"]
    assert (await client.ask("GET", "/v1/sessions?limit=0")).status == 400
