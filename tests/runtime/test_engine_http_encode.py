"""The bytes of a request: what must be there, and what an adapter may not put there."""

import pytest

from adapters.base import EngineRequest
from supervisor.runtime.engine_http.encode import encode_request
from tests.runtime.engine_clients import POST


def test_request_holds_only_what_the_adapter_and_http_need() -> None:
    raw = encode_request(POST, "127.0.0.1:8080", "s3cret")

    assert raw == (
        b"POST /completion HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAuthorization: Bearer s3cret\r\nAccept: */*\r\n"
        b'Content-Type: application/json\r\nContent-Length: 7\r\n\r\n{"a":1}'
    )


@pytest.mark.parametrize(
    "request_",
    [
        EngineRequest("GET", "/a b"),
        EngineRequest("GET", "health"),
        EngineRequest("GET", "/\r\nX: 1"),
        EngineRequest("G T", "/"),
        EngineRequest("GET", "/", (("X", "a\r\nY: b"),)),
        EngineRequest("GET", "/", (("X:", "a"),)),
        EngineRequest("GET", "/", (("Host", "elsewhere"),)),
        EngineRequest("GET", "/", (("authorization", "Bearer x"),)),
    ],
)
def test_request_that_would_break_the_header_block_is_refused(request_: EngineRequest) -> None:
    with pytest.raises(ValueError, match=r"engine request|adapter"):
        encode_request(request_, "h", None)
