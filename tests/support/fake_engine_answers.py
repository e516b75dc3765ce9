"""The answers of the fake engine, in the shapes of llama.cpp's server (build 11434)."""

import json
from typing import Any

from tests.support.fake_engine_decode import Slots

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 500: "Internal Server Error",
           501: "Not Implemented", 503: "Service Unavailable"}  # fmt: skip
_TYPES = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 500: "server_error",
          501: "not_supported_error", 503: "unavailable_error"}  # fmt: skip

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nAccess-Control-Allow-Origin: \r\nX-Accel-Buffering: no\r\n"
    b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nKeep-Alive: timeout=5, max=100\r\n\r\n"
)


def dumps(value: object) -> bytes:
    """JSON as that server writes it: compact, UTF-8 as it is."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def response(status: int, body: bytes, content_type: str = "application/json; charset=utf-8") -> bytes:
    """A whole answer; all but a 200 close the connection."""
    life = "Keep-Alive: timeout=5, max=100" if status == 200 else "Connection: close"
    head = (
        f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}\r\nServer: llama.cpp\r\nAccess-Control-Allow-Origin: \r\n"
    )
    return f"{head}Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{life}\r\n\r\n".encode() + body


def error(status: int, message: str, **more: Any) -> dict[str, Any]:
    """The error object."""
    return {"error": {"code": status, "message": message, "type": _TYPES[status], **more}}


def refusal(status: int, message: str, **more: Any) -> bytes:
    """An error as a whole answer."""
    return response(status, dumps(error(status, message, **more)))


def chunk(data: bytes) -> bytes:
    """One chunk of a streamed body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(value: object) -> bytes:
    """One event in a chunk of its own."""
    return chunk(b"data: " + dumps(value) + b"\n\n")


def props(*, ctx: int, slots: int, alias: str, model: str, version: str) -> dict[str, Any]:
    """GET /props."""
    return {
        "default_generation_settings": {"params": {"seed": 4294967295, "temperature": 0.8}, "n_ctx": ctx},
        "total_slots": slots,
        "model_alias": alias,
        "model_ftype": "Q4_1",
        "model_path": model,
        "modalities": {"vision": False, "video": False, "audio": False},
        "endpoint_slots": True,
        "endpoint_props": False,
        "endpoint_metrics": True,
        "build_info": version,
        "is_sleeping": False,
    }


def models(*, alias: str, ctx: int) -> dict[str, Any]:
    """GET /v1/models."""
    meta = {"vocab_type": 2, "n_vocab": 49152, "n_ctx": ctx, "n_ctx_train": 8192, "n_params": 134515008}
    entry = {"id": alias, "aliases": [alias], "tags": [], "object": "model", "owned_by": "llamacpp", "meta": meta}
    return {"object": "list", "data": [entry]}


def metrics(slots: Slots, *, tokens_in: int, tokens_out: int) -> bytes:
    """GET /metrics."""
    lines = []
    for kind, name, value in (
        ("counter", "prompt_tokens_total", tokens_in),
        ("counter", "tokens_predicted_total", tokens_out),
        ("counter", "n_decode_total", tokens_out),
        ("gauge", "requests_processing", sum(slot.is_busy for slot in slots.all)),
        ("gauge", "requests_deferred", slots.waiting),
    ):
        lines += [f"# HELP llamacpp:{name} of the fake engine", f"# TYPE llamacpp:{name} {kind}"]
        lines.append(f"llamacpp:{name} {value}")
    return ("\n".join(lines) + "\n").encode()
