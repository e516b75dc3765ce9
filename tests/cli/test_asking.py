"""From the words on the line to a task."""

from typing import Any

import pytest
from msgspec import UNSET

from orchctl.asking import Subject, Wish, plan_task, task_id_of
from orchctl.exits import ExitCode, VerbError
from supervisor.wire.codes import Engine
from supervisor.wire.tasks import Sampler
from tests.cli.builders import host, pool

TASK = "0b0e7d4e-6a63-4f8c-9a36-2f3f0f3f2b11"


def wish(**changes: Any) -> Wish:
    base: dict[str, Any] = {"subject": Subject("hi"), "task_id": TASK, "session_id": TASK, "deadline_ms": 300_000}
    return Wish(**base | changes)


def refused(asked: Wish, *pools: Any) -> VerbError:
    with pytest.raises(VerbError) as caught:
        plan_task(asked, host(*pools))
    return caught.value


def test_the_only_model_its_engine_and_its_context_are_found() -> None:
    task = plan_task(wish(), host(pool(ctx=2048)))

    assert (task.model_ref, task.engine, task.ctx, task.max_tokens) == ("smollm2-135m", Engine.LLAMACPP, 2048, 256)


def test_what_was_said_is_not_touched() -> None:
    task = plan_task(wish(model="other", engine=Engine.VLLM, ctx=512, max_tokens=9, seed=-1, stop=["."]), None)

    assert (task.model_ref, task.engine, task.ctx, task.max_tokens) == ("other", Engine.VLLM, 512, 9)
    assert (task.seed, task.stop) == (-1, ["."])


def test_what_was_not_said_is_not_sent() -> None:
    task = plan_task(wish(), host(pool()))

    assert task.seed is UNSET
    assert task.determinism is UNSET
    assert task.sampler is UNSET


def test_a_model_may_be_named_by_its_digest() -> None:
    digest = "sha256:" + "ab" * 32

    assert plan_task(wish(model=digest), host(pool())).engine is Engine.LLAMACPP


def test_replicas_of_one_engine_need_no_choice_and_the_largest_context_counts() -> None:
    task = plan_task(wish(), host(pool("a", ctx=2048), pool("b", ctx=8192)))

    assert task.ctx == 8192


def test_a_small_context_bounds_the_default_answer() -> None:
    assert plan_task(wish(), host(pool(ctx=100))).max_tokens == 100


def test_two_engines_for_a_model_are_a_choice_for_the_user() -> None:
    error = refused(wish(), pool("a"), pool("b", engine=Engine.VLLM))

    assert error.code is ExitCode.USAGE
    assert str(error) == (
        "the model smollm2-135m is served by llamacpp (pool a), vllm (pool b); choose one with `--engine`"
    )


def test_a_model_that_nobody_serves_is_answered_with_those_that_are() -> None:
    error = refused(wish(model="gpt-7"), pool(), pool("b", model_ref="qwen"))

    assert error.code is ExitCode.FAILED
    assert "no pool serves the model gpt-7 (the models here: qwen, smollm2-135m)" in str(error)


def test_two_models_are_a_choice_for_the_user() -> None:
    assert "--model is needed, this host has a, b" in str(refused(wish(), pool(model_ref="a"), pool(model_ref="b")))


def test_an_engine_that_does_not_serve_the_model_is_refused() -> None:
    assert "no vllm pool serves the model" in str(refused(wish(engine=Engine.VLLM), pool()))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sampler": Sampler(temperature=9.0)}, "temperature: expected `float` <= 5.0"),
        ({"max_tokens": 0}, "max-tokens: expected `int` >= 1"),
        ({"seed": 2**63}, "seed: "),
        ({"model": "../../etc/passwd", "engine": Engine.VLLM, "ctx": 1}, "model-ref: expected `str` matching"),
        ({"subject": Subject("")}, "prompt: expected `str` of length >= 1"),
        ({"subject": Subject("\udcff")}, "the prompt is not valid UTF-8"),
        ({"deadline_ms": 0}, "deadline-ms: expected `int` >= 1"),
    ],
)
def test_a_value_out_of_bounds_is_refused_here_by_its_name(changes: dict[str, Any], words: str) -> None:
    error = refused(wish(**changes), pool())

    assert error.code is ExitCode.USAGE
    assert words in str(error)


def test_a_task_id_may_be_written_large() -> None:
    assert task_id_of(TASK.upper(), "TASK_ID") == TASK


@pytest.mark.parametrize("text", ["", "7", TASK + "\n7", "{" + TASK + "}", "../" + TASK])
def test_what_is_no_task_id_is_a_usage_error(text: str) -> None:
    with pytest.raises(VerbError, match="TASK_ID is a UUID"):
        task_id_of(text, "TASK_ID")
