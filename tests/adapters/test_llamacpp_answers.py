"""The control answers of llama.cpp, recorded from the real server, and what must not pass for one."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import BadAnswerError, EngineProps, Liveness, SlotState
from adapters.llamacpp import LlamaCpp
from tests.support.llamacpp_transcripts import recorded

PROPS = recorded("props.txt").body
MODELS = recorded("models.txt").body


@pytest.mark.parametrize(
    ("status", "body", "liveness"),
    [
        (200, recorded("health.txt").body, Liveness.READY),
        (503, recorded("loading_health.txt").body, Liveness.LOADING),
        (200, b"", Liveness.DEAD),
        (200, b"OK", Liveness.DEAD),
        (200, b'{"status":"error"}', Liveness.DEAD),
        (200, b"[" * 100_000, Liveness.DEAD),
        (404, b"", Liveness.DEAD),
        (500, b'{"status":"ok"}', Liveness.DEAD),
    ],
)
def test_health(status: int, body: bytes, liveness: Liveness) -> None:
    assert LlamaCpp().read_health(status, body) is liveness


@pytest.mark.orch("ORCH-3032", "ORCH-3054")
def test_properties() -> None:
    assert LlamaCpp().read_props((PROPS, MODELS)) == EngineProps(
        engine_version="b11434",
        slots=1,
        ctx_per_slot=2048,
        model_path="/models/SmolLM2-135M-Instruct.Q4_1.gguf",
        model_alias="smollm2",
    )


@pytest.mark.parametrize(
    ("build_info", "tags", "version"),
    [
        ("b11434-0a1b2c3", [], "b11434-0a1b2c3"),
        ("b11434-unknown", ["build=other"], "b11434"),
        ("b0-unknown", ["build=xllamacpp-2026.10.11549"], "xllamacpp-2026.10.11549"),
        ("b0-unknown", ["chat", "build="], "unknown"),
        ("b0-unknown", [], "unknown"),
        ("", [], "unknown"),
    ],
)
def test_the_version_is_never_empty(build_info: str, tags: Sequence[str], version: str) -> None:
    props: dict[str, Any] = {**json.loads(PROPS), "build_info": build_info}
    models = {"data": [{"id": "m", "tags": tags}]}
    found = LlamaCpp().read_props((json.dumps(props).encode(), json.dumps(models).encode()))

    assert found.engine_version == version


def test_slots() -> None:
    assert LlamaCpp().read_slots(recorded("slots_idle.txt").body) == (SlotState(slot=0, is_busy=False),)
    assert LlamaCpp().read_slots(recorded("slots_processing_tiny.json").body) == (SlotState(slot=0, is_busy=True),)


def test_tokens() -> None:
    assert LlamaCpp().read_tokenize(recorded("tokenize.txt").body) == 7


@pytest.mark.orch("ORCH-3028")
def test_metrics_under_neutral_names() -> None:
    assert LlamaCpp().read_metrics(recorded("metrics.txt").body) == {
        "requests_processing": 0,
        "requests_waiting": 0,
        "tokens_in_total": 56,
        "tokens_out_total": 108,
    }
    assert LlamaCpp().read_metrics(b"llamacpp:kv_cache_usage_ratio 0.25\n") == {"kv_usage_ratio": 0.25}


READERS: list[Callable[[bytes], object]] = [
    lambda body: LlamaCpp().read_props((body, MODELS)),
    lambda body: LlamaCpp().read_props((PROPS, body)),
    lambda body: LlamaCpp().read_slots(body),
    lambda body: LlamaCpp().read_tokenize(body),
    lambda body: LlamaCpp().read_metrics(body),
]
NOT_ANSWERS = [
    b"", b"{", b"null", b"7", b"{}", b'"ok"', b"<html>", b"\xff", b"[7]", b"[" * 100_000, b'{"tokens":7}',
    b'{"data":{}}', b"llamacpp:requests_processing many\n", recorded("apikey_wrong.txt").body,
    recorded("loading_health.txt").body,
]  # fmt: skip


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("body", NOT_ANSWERS)
def test_what_is_no_answer_is_refused(read: Callable[[bytes], object], body: bytes) -> None:
    with pytest.raises(BadAnswerError, match=r"^the engine's answer to /"):
        read(body)


@given(st.binary(max_size=300), st.sampled_from(READERS))
def test_any_bytes_are_an_answer_or_refused(body: bytes, read: Callable[[bytes], object]) -> None:
    with suppress(BadAnswerError):
        assert read(body) is not None


@pytest.mark.parametrize(("slots", "ctx"), [(0, 2048), (1, 0), (-1, 2048)])
def test_properties_without_room_are_refused(slots: int, ctx: int) -> None:
    props = {**json.loads(PROPS), "total_slots": slots, "default_generation_settings": {"n_ctx": ctx}}
    with pytest.raises(BadAnswerError):
        LlamaCpp().read_props((json.dumps(props).encode(), MODELS))


def test_properties_are_two_answers() -> None:
    with pytest.raises(BadAnswerError, match="2 answers, not 1"):
        LlamaCpp().read_props((PROPS,))
