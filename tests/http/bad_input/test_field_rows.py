"""B34 to B47: values that no task may have, whatever the pools are. What pools decide is shown on a daemon."""

import pytest

from tests.http.bad_input.asking import Row, assert_refused, post, table
from tests.http.conftest import Serve
from tests.support.hygiene import assert_clean
from tests.support.memory_service import MemoryService, submit_body
from tests.support.rawhttp import RawClient

TASK_ID = "0a0a0a0a-0000-4000-8000-00000000000a"


def field(**changes: object) -> Row:
    return Row(post(submit_body(**changes)), 400, "field")


ROWS = {
    "B34 no task_id": field(task_id=...),
    "B34 no UUID": field(task_id="x"),
    "B34 upper case": field(task_id=TASK_ID.upper()),
    "B34 braces": field(task_id=f"{{{TASK_ID}}}"),
    "B34 urn": field(task_id=f"urn:uuid:{TASK_ID}"),
    "B34 no dashes": field(task_id=TASK_ID.replace("-", "")),
    "B34 a newline at the end": field(task_id=TASK_ID + "\n"),
    "B34 other digits": field(task_id=TASK_ID.replace("0", "\u0660")),
    "B34 NUL": field(task_id="\0" + TASK_ID[1:]),
    "B34 1 MB": field(task_id="a" * 1_000_000),
    "B34 a number": field(task_id=1),
    "B34 a path": field(task_id="../../../../etc/passwd"),
    "B36 an unknown workload": field(workload="chat"),
    "B36 a list of workloads": field(workload=["completion"]),
    "B36 a prompt that is a list": field(prompt=["a"]),
    "B36 a completion of inputs": field(prompt=..., inputs=["a"]),
    "B36 prompt and inputs": field(inputs=["a"]),
    "B36 an embedding of both": field(workload="embedding", inputs=["a"]),
    "B36 neither": field(prompt=...),
    "B36 an empty prompt": field(prompt=""),
    "B36 prompt null": field(prompt=None),
    "B36 no inputs": field(workload="embedding", prompt=..., inputs=[]),
    "B36 257 inputs": field(workload="embedding", prompt=..., inputs=["a"] * 257),
    "B36 an empty input": field(workload="embedding", prompt=..., inputs=["a", ""]),
    "B36 a number among inputs": field(workload="embedding", prompt=..., inputs=["a", 3]),
    "B36 inputs as text": field(workload="embedding", prompt=..., inputs="a"),
    "B37 ctx 0": field(ctx=0),
    "B37 ctx -1": field(ctx=-1),
    "B37 ctx 2^31": field(ctx=2**31),
    "B37 ctx 2^64": field(ctx=2**64 - 1),
    "B37 ctx 1.5": field(ctx=1.5),
    "B37 ctx as text": field(ctx="8192"),
    "B37 ctx true": field(ctx=True),
    "B37 ctx null": field(ctx=None),
    "B38 max_tokens 0": field(max_tokens=0),
    "B38 max_tokens -1": field(max_tokens=-1),
    "B38 max_tokens above ctx": field(max_tokens=4097),
    "B38 no max_tokens": field(max_tokens=...),
    "B39 deadline 0": field(deadline_ms=0),
    "B39 deadline -1": field(deadline_ms=-1),
    "B39 deadline 2^63": field(deadline_ms=2**63),
    "B39 a day and a millisecond": field(deadline_ms=86_400_001),
    "B39 a date": field(deadline_ms="2020-01-01T00:00:00Z"),
    "B40 seed 2^63": field(seed=2**63),
    "B40 seed 2^64": field(seed=2**64),
    "B40 seed -2^63-1": field(seed=-(2**63) - 1),
    "B40 seed 1.0": field(seed=1.0),
    "B40 seed as text": field(seed="1"),
    "B40 seed null": field(seed=None),
    "B41 capitals": field(priority="INTERACTIVE"),
    "B41 unknown": field(priority="realtime"),
    "B41 a blank": field(priority="batch "),
    "B41 a number": field(priority=0),
    "B42 an unknown engine": field(engine="ollama"),
    "B42 an engine of 1 MB": field(engine="l" * 1_000_000),
    "B43 unknown": field(determinism="maybe"),
    "B43 true": field(determinism=True),
    "B44 an unknown hint": field(kv_hint="warm"),
    "B44 expected_tokens above max_tokens": field(expected_tokens=17),
    "B44 expected_tokens 0": field(expected_tokens=0),
    "B45 session_id no UUID": field(session_id="x"),
    "B45 session_id a path": field(session_id="../../0a0a0a0a-0000-4000-8000-00000000000a"),
    "B47 a path": field(model_ref="../../etc/passwd"),
    "B47 an absolute path": field(model_ref="/etc/passwd"),
    "B47 a file URL": field(model_ref="file:///etc/shadow"),
    "B47 a URL": field(model_ref="http://169.254.169.254/latest/meta-data"),
    "B47 a short digest": field(model_ref="sha256:" + "a" * 63),
    "B47 a digest in capitals": field(model_ref="sha256:" + "A" * 64),
    "B47 a long digest": field(model_ref="sha256:" + "a" * 65),
    "B47 10 KB": field(model_ref="a" * 10_000),
    "B47 a newline": field(model_ref="m\n"),
    "B47 a newline inside": field(model_ref="m\nm"),
    "B47 ANSI": field(model_ref="\x1b[31mm"),
    "B47 a command": field(model_ref="$(id)"),
    "B47 back quotes": field(model_ref="`id`"),
    "B47 an option": field(model_ref="-m"),
    "B47 a long option": field(model_ref="--model=x"),
    "B47 repo with dots": field(model_ref="repo:../.."),
    "B47 repo with three parts": field(model_ref="repo:a/b/c"),
    "B47 empty": field(model_ref=""),
    "B47 another alphabet": field(model_ref="mоdel"),  # noqa: RUF001  (that is the point)
}
STRANGE_PROMPTS = {
    "B46 NUL": "a\0b",
    "B46 1 MB of one character": "x" * 1_000_000,
    "B46 right to left and of no width": "\u202eabc\u200b\u2066\ufeff",
    "B46 special tokens": "<|im_start|>system\n<|im_end|></s><s>[INST]",
    "B46 an event": "\n\ndata: {}\n\nevent: end\r\rid: 9\r\n\r\n",
    "B46 every control character": "".join(map(chr, range(0x20))) + "\x7f\x80\x85\u2028\u2029",
    "B46 the last characters": "\ufffe\uffff\U0010ffff",
    "B46 a format": "%s%n{0}${HOME}{{7*7}}",
}


@pytest.mark.orch("ORCH-3015")
@pytest.mark.parametrize("row", table(ROWS))
async def test_a_value_that_no_task_may_have_is_refused(serve: Serve, row: Row) -> None:
    server = await serve()

    await assert_refused(server, row)


@pytest.mark.parametrize("prompt", STRANGE_PROMPTS.values(), ids=[name.replace(" ", "-") for name in STRANGE_PROMPTS])
async def test_a_prompt_may_be_any_text(serve: Serve, service: MemoryService, prompt: str) -> None:
    server = await serve()
    async with await RawClient.tcp(server.port) as client:
        answer = await client.ask("POST", "/v1/tasks", submit_body(task_id=TASK_ID, prompt=prompt))

    assert_clean(answer)
    assert (answer.status, service.task_of(TASK_ID).request.prompt) == (202, prompt)


async def test_B35_the_same_id_with_another_body_is_a_conflict(serve: Serve, service: MemoryService) -> None:
    server = await serve()
    async with await RawClient.tcp(server.port) as client:
        first = await client.ask("POST", "/v1/tasks", submit_body(task_id=TASK_ID))
        other = await client.ask("POST", "/v1/tasks", submit_body(task_id=TASK_ID, prompt="Other"))
        again = await client.ask("POST", "/v1/tasks", submit_body(task_id=TASK_ID))

    assert_clean(other, b"Other")
    assert (other.status, other.json["code"], other.json["reason"]) == (400, "INVALID_PARAMS", "conflict")
    assert again.json == first.json
    assert len(service.held) == 1
