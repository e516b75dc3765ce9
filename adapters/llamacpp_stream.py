"""Reads the streamed answer of llama.cpp's `POST /completion`, sans I/O (server of builds 11434 to 11549).

The answer ends with an event that says `"stop":true`; there is no `[DONE]`, and the end of the body proves nothing.
Decides what each event means and whose fault an error is. It must never raise, whatever the engine sends.
The engine's own words about an error stay in its log file: they may quote prompts, paths and addresses.
"""

import re
from collections.abc import Mapping

import msgspec

from adapters.base import Decoded, EngineError, Fault, Finished, Token
from adapters.sse import EVENT_BYTES_MAX, SseSplitter

ERROR_BODY_BYTES_MAX = 64 * 1024

NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What a decoder raises for bytes that are not what it expects; the last one for brackets nested without end."""
_FINISH_REASONS = {"eos": "stop", "word": "stop", "limit": "length"}
_TYPE_FAULTS: Mapping[str, tuple[Fault, str]] = {
    "exceed_context_size_error": (Fault.CLIENT, "ctx"),
    "invalid_request_error": (Fault.CLIENT, "request"),
    "unavailable_error": (Fault.BUSY, "loading"),
    "authentication_error": (Fault.ENGINE, "auth"),
    "permission_error": (Fault.ENGINE, "auth"),
    "not_found_error": (Fault.ENGINE, "not_found"),
    "not_supported_error": (Fault.ENGINE, "unsupported"),
    "server_error": (Fault.ENGINE, "server"),
}
_TOO_LARGE = "is too large to process"
"""llama.cpp calls an input that is longer than a slot's context an error of its own where it gives no tokens."""
_TOO_LARGE_TOKENS = re.compile(r"input \(([0-9]{1,9}) tokens\)")
_TOKENS_SHOWN_MAX = 10**9
_WORDS: Mapping[str, str] = {
    "ctx": "the input is longer than the context of a slot",
    "request": "the engine did not take the request",
    "loading": "the engine is still loading its model",
    "busy": "the engine is busy",
    "auth": "the engine did not take the key of the daemon",
    "not_found": "the engine has no such route",
    "unsupported": "the engine does not do what was asked of it",
    "server": "the engine failed to answer",
}


class _Timings(msgspec.Struct, gc=False):
    cache_n: int = 0
    prompt_ms: float | None = None
    predicted_ms: float | None = None


class _ErrorBody(msgspec.Struct, gc=False):
    message: str = ""
    type: str = ""
    code: int | str | None = None
    n_prompt_tokens: object = None
    n_ctx: object = None


class _Event(msgspec.Struct, gc=False):
    """One event of the stream. Without `content` it must be an error; `timings` come with the last one."""

    content: str | None = None
    stop: bool = False
    tokens_predicted: int = 0
    tokens_evaluated: int | None = None
    stop_type: str = ""
    timings: _Timings | None = None
    error: _ErrorBody | str | None = None


class _ErrorAnswer(msgspec.Struct, gc=False):
    error: _ErrorBody | str


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_error = msgspec.json.Decoder(_ErrorAnswer).decode


class CompletionDecoder:
    """The decoder of a 200: server-sent events."""

    __slots__ = ("_is_over", "_splitter")

    def __init__(self, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._splitter = SseSplitter(event_bytes_max)
        self._is_over = False

    def feed(self, data: bytes | memoryview) -> list[Decoded]:
        """Tokens of the events that these bytes complete; events without text are dropped."""
        decoded: list[Decoded] = []
        if self._is_over:
            return decoded
        try:
            for payload in self._splitter.feed(data):
                event = _decode_event(payload)
                text = event.content
                if event.stop or event.error is not None or text is None:
                    self._is_over = True
                    return decoded + _last(event)
                if text:
                    decoded.append(Token(text, event.tokens_predicted))
        except NOT_JSON:
            return decoded + self._fail("protocol", "the engine sent an event that is not its protocol")
        if self._splitter.is_overflown:
            return decoded + self._fail("overflow", "the engine sent an event longer than the bound")
        return decoded

    def eof(self) -> list[Decoded]:
        """An error unless the last event was seen: llama.cpp closes in the same way when it is told to end."""
        if self._is_over:
            return []
        return self._fail("cut", "the engine ended the stream before its last event")

    def _fail(self, kind: str, message: str) -> list[Decoded]:
        self._is_over = True
        return [EngineError(Fault.ENGINE, kind, message)]


class ErrorDecoder:
    """The decoder of any other status: one JSON body, judged when it is complete."""

    __slots__ = ("_body", "_is_over", "_status")

    def __init__(self, status: int) -> None:
        self._status = status
        self._body = bytearray()
        self._is_over = False

    def feed(self, data: bytes | memoryview) -> list[Decoded]:
        """Nothing yet; bytes past the bound are dropped."""
        if not self._is_over:
            self._body += data[: ERROR_BODY_BYTES_MAX - len(self._body)]
        return []

    def eof(self) -> list[Decoded]:
        """The one error."""
        if self._is_over:
            return []
        self._is_over = True
        try:
            body = _decode_error(self._body).error
        except NOT_JSON:
            body = ""
        return [error_of(body, self._status)]


def error_of(body: _ErrorBody | str, status: int) -> EngineError:
    """Whose fault an error is: by its type where llama.cpp names one, by its HTTP status where not.

    The message is ours; of the engine's there are only numbers in it.
    """
    if isinstance(body, str):
        body = _ErrorBody(message=body)
    if _TOO_LARGE in body.message:
        found = _TOO_LARGE_TOKENS.match(body.message)
        return EngineError(Fault.CLIENT, "ctx", _ctx_words(int(found[1]) if found else None, None))
    fault, kind = _TYPE_FAULTS.get(body.type) or _fault_of_status(status)
    if kind == "ctx":
        return EngineError(fault, kind, _ctx_words(body.n_prompt_tokens, body.n_ctx))
    return EngineError(fault, kind, _WORDS.get(kind) or f"the engine answered {status}")


def _ctx_words(tokens: object, ctx: object) -> str:
    figures = [
        f"{number} {what}"
        for number, what in ((tokens, "tokens"), (ctx, "of context"))
        if isinstance(number, int) and 0 < number < _TOKENS_SHOWN_MAX
    ]
    return f"{_WORDS['ctx']} ({', '.join(figures)})" if figures else _WORDS["ctx"]


def _fault_of_status(status: int) -> tuple[Fault, str]:
    if status in {429, 503}:
        return Fault.BUSY, "busy"
    if status == 400:
        return Fault.CLIENT, "request"
    return Fault.ENGINE, f"http_{status}"


def _last(event: _Event) -> list[Decoded]:
    """The end of a stream: its error, or the text that was still held back and the figures."""
    if event.error is not None:
        code = event.error.code if isinstance(event.error, _ErrorBody) else None
        return [error_of(event.error, code if isinstance(code, int) else 500)]
    if event.content is None:
        return [EngineError(Fault.ENGINE, "protocol", "the engine sent an event without text")]
    timings = event.timings or _Timings()
    finished = Finished(
        reason=_FINISH_REASONS.get(event.stop_type, "stop"),
        tokens_in=event.tokens_evaluated,
        tokens_out=event.tokens_predicted,
        tokens_cached=timings.cache_n,
        prompt_ms=timings.prompt_ms,
        decode_ms=timings.predicted_ms,
    )
    return [Token(event.content, event.tokens_predicted), finished] if event.content else [finished]
