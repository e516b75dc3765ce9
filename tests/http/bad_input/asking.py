"""One row of the catalogue of bad input, and how it is put to an edge."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from supervisor.http.server import HttpServer
from tests.support.hygiene import assert_clean
from tests.support.memory_service import submit_body
from tests.support.rawhttp import Answer, RawClient, request

SMUGGLED = b"GET /healthz HTTP/1.1\r\nHost: smuggled\r\n\r\n"
"""Follows every request whose end is in doubt: an answer to it would be an answer to what somebody else sent."""


@dataclass(frozen=True)
class Row:
    """Bytes on a connection of their own, and what comes back: a status and a reason, then a close or not."""

    data: bytes
    status: int
    reason: str
    closes: bool = False


def table(rows: dict[str, Row]) -> list[Any]:
    """Parameters for pytest; the catalogue's number stands in each id."""
    return [pytest.param(row, id=name.replace(" ", "-")) for name, row in rows.items()]


def bad(data: bytes, reason: str = "field", status: int = 400) -> Row:
    """Framing that cannot be trusted: an envelope, then the end, and nothing of what follows is a request."""
    return Row(data + SMUGGLED, status, reason, closes=True)


async def assert_refused(server: HttpServer, row: Row, socket_path: Path | None = None) -> Answer:
    """The answer is the one expected, says nothing it should not, and the next valid request works.

    Over TCP, or over the control socket at `socket_path`.
    """
    opening = RawClient.unix(socket_path) if socket_path is not None else RawClient.tcp(server.port)
    async with await opening as client:
        client.send(row.data)
        answer = await client.answer(has_body=not row.data.startswith(b"HEAD"))
        rest = await client.closed() if answer.closes else b""
        after = None if answer.closes else await client.ask("POST", "/v1/tasks", submit_body())
    async with await RawClient.tcp(server.port) as newcomer:
        anew = await newcomer.ask("POST", "/v1/tasks", submit_body())

    assert_clean(answer, row.data)
    error = answer.json if answer.body else {}
    assert (answer.status, error.get("code"), error.get("reason")) == (row.status, "INVALID_PARAMS", row.reason)
    assert answer.closes == row.closes
    assert rest == b"", "one request, one answer"
    assert after is None or after.status == 202
    assert anew.status == 202
    return answer


def post(body: bytes, **headers: str) -> bytes:
    """A submit with this body."""
    return request("POST", "/v1/tasks", body, {name.replace("_", "-"): value for name, value in headers.items()})
