"""Bytes of one request (RFC 9112): what the adapter gave and what HTTP needs, never a header of a caller."""

import re

from adapters.base import EngineRequest

_TARGET = re.compile(r"/[\x21-\x7e]*")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_OURS = frozenset({"authorization", "connection", "content-length", "host", "transfer-encoding"})


def encode_request(request: EngineRequest, host: str, api_key: str | None) -> bytes:
    """The whole request in one piece. Raises ValueError for what does not belong in a header block."""
    if _NAME.fullmatch(request.method) is None or _TARGET.fullmatch(request.path) is None:
        raise ValueError("the method or the path of an engine request is malformed")
    lines = [f"{request.method} {request.path} HTTP/1.1", f"Host: {host}"]
    if api_key is not None:
        lines.append(_field("Authorization", f"Bearer {api_key}"))
    if not any(name.lower() == "accept" for name, _ in request.headers):
        lines.append("Accept: */*")
    for name, value in request.headers:
        if name.lower() in _OURS:
            raise ValueError(f"an adapter may not set {name}")
        lines.append(_field(name, value))
    if request.body or request.method not in {"GET", "HEAD"}:
        lines.append(f"Content-Length: {len(request.body)}")
    return "\r\n".join([*lines, "\r\n"]).encode("ascii") + request.body


def _field(name: str, value: str) -> str:
    if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
        raise ValueError("a header field of an engine request is malformed")
    return f"{name}: {value}"
