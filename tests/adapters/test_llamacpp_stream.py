"""The completion decoder: recorded answers of the real server, every cut of them, and what is no answer."""

import json
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import Decoded, EngineError, Fault, Finished, StreamDecoder, Token
from adapters.llamacpp import LlamaCpp
from adapters.llamacpp_stream import ERROR_BODY_BYTES_MAX
from adapters.sse import EVENT_BYTES_MAX
from tests.support.llamacpp_transcripts import recorded

STREAM = recorded("completion_stream.txt").body
TINY = recorded("completion_stream_rawchunks_tiny.bin").body


def decoder(status: int = 200) -> StreamDecoder:
    return LlamaCpp().decoder(status)


def decoded(*reads: bytes, status: int = 200) -> list[Decoded]:
    under_test = decoder(status)
    found = [item for read in reads for item in under_test.feed(read)]
    return found + under_test.eof()


def event(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields, ensure_ascii=False).encode() + b"\n\n"


@pytest.mark.orch("ORCH-3054")
def test_a_recorded_stream() -> None:
    *tokens, finished = decoded(STREAM)

    assert tokens == [
        Token(" Paris", 1),
        Token(".", 2),
        Token("\n", 3),
        Token("\n", 4),
        Token("The", 5),
        Token(" United", 6),
        Token(" States", 7),
        Token(" has", 8),
    ]
    assert isinstance(finished, Finished)
    assert (finished.reason, finished.tokens_in, finished.tokens_out, finished.tokens_cached) == ("length", 5, 8, 4)
    assert (finished.prompt_ms, finished.decode_ms) == (38.962, 176.339)


@pytest.mark.parametrize("stream", [STREAM, TINY, b":\n\n" + STREAM.replace(b"\n\n", b"\r\n\r\n:\r\n\r\n")])
def test_every_boundary_gives_the_same_tokens(stream: bytes) -> None:
    whole = decoded(stream)

    assert isinstance(whole[-1], Finished)
    for cut in range(len(stream) + 1):
        assert decoded(stream[:cut], stream[cut:]) == whole, f"cut at byte {cut}"


def test_single_bytes_give_the_same_tokens() -> None:
    assert decoded(*(STREAM[at : at + 1] for at in range(len(STREAM)))) == decoded(STREAM)


def test_tokens_of_one_read_come_together_and_at_once() -> None:
    under_test = decoder()
    first = event(content="a", stop=False, tokens_predicted=1)

    assert under_test.feed(first) == [Token("a", 1)]
    assert under_test.feed(first + first) == [Token("a", 1), Token("a", 1)]


@given(st.lists(st.text(min_size=1), max_size=8), st.lists(st.integers(0, 2000), max_size=6))
def test_any_text_of_a_model_comes_out_exactly(texts: list[str], cuts: list[int]) -> None:
    stream = b"".join(event(content=text, stop=False, tokens_predicted=at + 1) for at, text in enumerate(texts))
    stream += event(content="", stop=True, stop_type="eos", tokens_predicted=len(texts), tokens_evaluated=3)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    *tokens, finished = decoded(*(stream[start:end] for start, end in pairwise(edges)))

    assert tokens == [Token(text, at + 1) for at, text in enumerate(texts)]
    assert finished == Finished(reason="stop", tokens_in=3, tokens_out=len(texts))


@pytest.mark.parametrize(
    ("stop_type", "reason"), [("limit", "length"), ("eos", "stop"), ("word", "stop"), ("none", "stop"), ("new", "stop")]
)
def test_why_it_ended(stop_type: str, reason: str) -> None:
    (finished,) = decoded(event(content="", stop=True, stop_type=stop_type, tokens_predicted=2))

    assert isinstance(finished, Finished)
    assert finished.reason == reason


def test_text_in_the_last_event_is_not_lost() -> None:
    found = decoded(event(content="tail", stop=True, stop_type="limit", tokens_predicted=9))

    assert found[0] == Token("tail", 9)
    assert isinstance(found[1], Finished)


def test_an_event_without_text_is_no_token() -> None:
    assert decoder().feed(event(content="", stop=False, tokens_predicted=4)) == []


def test_nothing_comes_after_the_end() -> None:
    last = event(content="", stop=True, stop_type="eos", tokens_predicted=1)

    assert len(decoded(last + last + event(content="x", stop=False), last)) == 1


@pytest.mark.parametrize("cut", [0, 1, 9, len(STREAM) - 700, len(STREAM) - 1])
def test_an_end_of_the_body_proves_nothing(cut: int) -> None:
    last = decoded(STREAM[:cut])[-1]

    assert isinstance(last, EngineError)
    assert (last.fault, last.kind) == (Fault.ENGINE, "cut")


@pytest.mark.parametrize(
    "garbage",
    [
        b"data: {\n\n",
        b"data: \xff\xfe\n\n",
        b'data: {"content":"\xff","stop":false}\n\n',
        b"data: 7\n\n",
        b"data: null\n\n",
        b"data: {}\n\n",
        b"data: [DONE]\n\n",
        b'data: {"content":7,"stop":false}\n\n',
        b'data: {"content":"x","stop":"yes"}\n\n',
        b'data: {"stop":true}\n\n',
        b"data: " + b"[" * 200_000 + b"\n\n",
        b'data: {"x":' + b"[" * 200_000 + b"\n\n",
    ],
)
def test_garbage_is_the_engines_fault(garbage: bytes) -> None:
    good = event(content="a", stop=False, tokens_predicted=1)
    first, error = decoded(good + garbage + good)

    assert first == Token("a", 1)
    assert isinstance(error, EngineError)
    assert (error.fault, error.kind) == (Fault.ENGINE, "protocol")


@given(st.lists(st.binary(max_size=200), max_size=6), st.sampled_from([200, 400, 500, 503]))
def test_no_bytes_raise(reads: list[bytes], status: int) -> None:
    assert isinstance(decoded(*reads, status=status)[-1], EngineError)


def endless_line() -> Iterator[bytes]:
    yield event(content="a", stop=False, tokens_predicted=1)
    yield b'data: {"content":"'
    for _ in range(160):
        yield b"x" * 65_536


def test_a_line_of_ten_megabytes_is_given_up_at_the_bound() -> None:
    under_test = decoder()
    seen: list[Decoded] = []
    fed = 0
    for read in endless_line():
        seen += under_test.feed(read)
        fed += len(read)
        if isinstance(seen[-1], EngineError):
            break

    assert seen[1:] == [EngineError(Fault.ENGINE, "overflow", "the engine sent an event longer than the bound")]
    assert fed < EVENT_BYTES_MAX + 3 * 65_536


KINDS = (
    "exceed_context_size_error",
    "invalid_request_error",
    "unavailable_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "not_supported_error",
    "server_error",
)
ERRORS = [
    ("err_toolong_stream.txt", Fault.CLIENT, "ctx"),
    ("err_wrongtype.txt", Fault.CLIENT, "request"),
    ("err_badjson.txt", Fault.CLIENT, "request"),
    ("loading_completion_goodkey.txt", Fault.BUSY, "loading"),
    ("apikey_wrong.txt", Fault.ENGINE, "auth"),
    ("err_404.txt", Fault.ENGINE, "not_found"),
    ("metrics_disabled.txt", Fault.ENGINE, "unsupported"),
]


@pytest.mark.parametrize(("name", "fault", "kind"), ERRORS)
def test_recorded_errors(name: str, fault: Fault, kind: str) -> None:
    answer = recorded(name)
    (error,) = decoded(answer.body[:30], answer.body[30:], status=answer.status)

    assert isinstance(error, EngineError)
    assert (error.fault, error.kind) == (fault, kind)
    assert json.loads(answer.body)["error"]["message"] not in error.message


@pytest.mark.parametrize(("name", "fault", "kind"), ERRORS)
def test_the_same_errors_within_a_stream(name: str, fault: Fault, kind: str) -> None:
    error = decoded(b"data: " + recorded(name).body.strip() + b"\n\n")[-1]

    assert isinstance(error, EngineError)
    assert (error.fault, error.kind) == (fault, kind)


@pytest.mark.parametrize(
    ("status", "fault", "kind"),
    [
        (400, Fault.CLIENT, "request"),
        (401, Fault.ENGINE, "http_401"),
        (404, Fault.ENGINE, "http_404"),
        (429, Fault.BUSY, "busy"),
        (500, Fault.ENGINE, "http_500"),
        (503, Fault.BUSY, "busy"),
        (302, Fault.ENGINE, "http_302"),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>", b'{"error":"plain words"}', b'{"error":{"type":"new_error"}}'])
def test_errors_without_a_known_type_go_by_their_status(status: int, fault: Fault, kind: str, body: bytes) -> None:
    (error,) = decoded(body, status=status)

    assert isinstance(error, EngineError)
    assert (error.fault, error.kind) == (fault, kind)
    assert error.message


@pytest.mark.parametrize("kind", [*KINDS, "new_error", ""])
@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_the_words_of_the_engine_about_an_error_stay_with_it(kind: str, status: int) -> None:
    secret = "SECRET of another tenant at /srv/llama 10.1.2.3"
    texts = (secret, f"input (602 tokens) is too large to process {secret}")
    bodies = [{"message": text, "type": kind, "n_prompt_tokens": secret, "n_ctx": 512} for text in texts]
    errors = [decoded(json.dumps({"error": body}).encode(), status=status)[0] for body in (*bodies, secret)]

    assert all(isinstance(error, EngineError) and error.message for error in errors)
    assert not any(word in str(errors) for word in secret.split() if word not in {"of", "another", "at"})


def test_a_request_that_does_not_fit_is_told_by_how_much() -> None:
    body = {"error": {"type": "exceed_context_size_error", "message": "x", "n_prompt_tokens": 602, "n_ctx": 512}}
    (error,) = decoded(json.dumps(body).encode(), status=400)

    assert isinstance(error, EngineError)
    assert error.message == "the input is longer than the context of a slot (602 tokens, 512 of context)"


def test_a_body_of_an_error_past_the_bound_is_not_read() -> None:
    body = json.dumps({"error": {"type": "unavailable_error"}}).encode()
    padding = b" " * (ERROR_BODY_BYTES_MAX - len(body))
    (fits,) = decoded(padding, body, status=500)
    (longer,) = decoded(padding, b" ", body, status=500)

    assert isinstance(fits, EngineError)
    assert isinstance(longer, EngineError)
    assert (fits.kind, longer.kind) == ("loading", "http_500")
