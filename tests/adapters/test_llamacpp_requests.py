"""What is asked of llama.cpp: every parameter of a completion stated, tokens counted as a completion counts them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters import registry
from adapters.llamacpp import LlamaCpp, fold_seed
from tests.adapters.builders import call
from tests.support.llamacpp_transcripts import recorded


def body_of(**changes: Any) -> dict[str, Any]:
    found = json.loads(LlamaCpp().request_completion(call(**changes)).body)
    assert isinstance(found, dict)
    return found


@pytest.mark.orch("ORCH-3054")
def test_a_strict_completion() -> None:
    request = LlamaCpp().request_completion(call())
    body = json.loads(request.body)

    assert (request.method, request.path) == ("POST", "/completion")
    assert request.headers == (("Content-Type", "application/json"),)
    stated = {name: body[name] for name in ("prompt", "n_predict", "seed", "stop", "stream", "cache_prompt", "id_slot")}
    assert stated == {
        "prompt": "Hello",
        "n_predict": 16,
        "seed": 7,
        "stop": ["END"],
        "stream": True,
        "cache_prompt": False,
        "id_slot": 0,
    }


@pytest.mark.orch("ORCH-3058")
def test_every_sampling_parameter_that_the_engine_has_is_stated() -> None:
    used = json.loads(recorded("completion_stop_word.txt").body)["generation_settings"]
    answer_only = {
        "max_tokens", "n_discard", "grammar", "grammar_lazy", "grammar_triggers", "preserved_tokens", "chat_format",
        "reasoning_format", "reasoning_in_content", "generation_prompt", "speculative.types", "post_sampling_probs",
        "backend_sampling", "lora",
    }  # fmt: skip

    assert set(used) - answer_only <= set(body_of())


def test_a_warm_turn_keeps_its_slot_and_its_cache() -> None:
    body = body_of(reuse_kv=True, slot=3)

    assert (body["cache_prompt"], body["id_slot"]) == (True, 3)
    assert body_of(slot=None)["id_slot"] == -1


@given(st.text())
def test_any_prompt_arrives_exactly(prompt: str) -> None:
    assert body_of(prompt=prompt)["prompt"] == prompt


@pytest.mark.parametrize(
    ("seed", "folded"),
    [
        (0, 0),
        (7, 7),
        (2**32 - 2, 2**32 - 2),
        (2**32 - 1, 2**32 - 2),
        (2**32, 1),
        (-1, 0),
        (2**63 - 1, 0x80000000),
        (-(2**63), 0x80000000),
        (0x1234_5678_9ABC_DEF0, 0x1234_5678 ^ 0x9ABC_DEF0),
    ],
)
def test_seeds_are_folded_into_32_bits(seed: int, folded: int) -> None:
    assert fold_seed(seed) == folded


@given(st.integers(-(2**63), 2**63 - 1))
def test_no_seed_becomes_the_engines_word_for_random(seed: int) -> None:
    assert 0 <= fold_seed(seed) < 2**32 - 1


def test_tokens_are_counted_with_the_special_ones() -> None:
    request = LlamaCpp().request_tokenize("<s>é")

    assert (request.method, request.path) == ("POST", "/tokenize")
    assert json.loads(request.body) == {"content": "<s>é", "add_special": True, "parse_special": True}


def test_the_control_questions() -> None:
    adapter = LlamaCpp()
    asked = (adapter.request_health(), *adapter.request_props(), adapter.request_slots(), adapter.request_metrics())

    assert [(request.method, request.path) for request in asked] == [
        ("GET", "/health"), ("GET", "/props"), ("GET", "/v1/models"), ("GET", "/slots"), ("GET", "/metrics"),
    ]  # fmt: skip


def test_the_registry_knows_what_it_has() -> None:
    found = registry.find("llamacpp")

    assert found is not None
    assert found.name == "llamacpp"
    assert registry.find("vllm") is None
