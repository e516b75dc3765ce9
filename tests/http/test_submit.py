"""`POST /v1/tasks`: what is accepted, what is refused, and how."""

import asyncio
import json

import pytest

from supervisor.core.refusals import Refused
from supervisor.wire.codes import Code, Engine, Reason
from supervisor.wire.tasks import SubmitTask
from tests.http.conftest import Serve
from tests.support.memory_service import MemoryService, submit_body
from tests.support.rawhttp import RawClient
from tests.support.waiting import until

TASK_ID = "00000000-0000-4000-8000-000000000001"
SECRET = "s3cr3t-payload"


@pytest.mark.orch("ORCH-3024", "ORCH-3044")
async def test_an_accepted_task_gets_its_ids_and_its_place(client: RawClient, service: MemoryService) -> None:
    first = await client.ask("POST", "/v1/tasks", submit_body(task_id=TASK_ID))
    second = await client.ask("POST", "/v1/tasks", submit_body())

    assert (first.status, second.status) == (202, 202)
    assert first.json == {
        "task_id": TASK_ID,
        "job_id": service.task_of(TASK_ID).accepted.job_id,
        "queue_position": 0,
        "predicted_start_ms": None,
        "backoff_ms": 0,
    }
    assert first.headers["x-queue-position"] == "0"
    assert "x-queue-eta-ms" not in first.headers
    assert second.headers["x-queue-position"] == "1"
    assert second.headers["x-queue-eta-ms"] == "10"


async def test_the_service_gets_exactly_what_was_sent(client: RawClient, service: MemoryService) -> None:
    body = submit_body(
        task_id=TASK_ID,
        prompt='NUL \x00, \u202e, <|im_start|>, \n\ndata: {"ctx":1,"ctx":2}',
        seed=-(2**63),
        stop=["a", "b"],
        sampler={"temperature": 0.5, "top_k": 1},
        kv_hint="cold",
        determinism="strict",
        expected_tokens=16,
    )

    answer = await client.ask("POST", "/v1/tasks", body)

    assert answer.status == 202
    held = service.task_of(TASK_ID)
    fields = json.loads(body)
    assert held.request.prompt == fields["prompt"]
    assert held.request.seed == -(2**63)
    assert held.request.stop == ["a", "b"]
    assert held.size_bytes == len(body)
    assert (held.caller.tenant, held.caller.is_operator) == ("default", False)


async def test_the_same_task_again_gives_the_same_answer(client: RawClient) -> None:
    body = submit_body()

    first = await client.ask("POST", "/v1/tasks", body)
    again = await client.ask("POST", "/v1/tasks", body)
    other = await client.ask("POST", "/v1/tasks", body.replace(b"Hello", b"Other"))

    assert (again.status, again.json) == (202, first.json)
    assert (other.status, other.json["reason"]) == (400, "conflict")


@pytest.mark.orch("ORCH-2007", "ORCH-3025")
@pytest.mark.parametrize(
    ("wait_ms", "seconds", "millis"),
    [(None, "1", "1000"), (0, "1", "1"), (1, "1", "1"), (1000, "1", "1000"), (1001, "2", "1001")],
)
async def test_backpressure_says_when_to_come_again(
    client: RawClient, service: MemoryService, wait_ms: int | None, seconds: str, millis: str
) -> None:
    service.refuse_next = Refused(
        code=Code.ADMISSION_REJECT,
        message="Full.",
        reason=Reason.QUEUE_FULL,
        retry_after_ms=wait_ms,
        policy="shed-low-priority",
        engine=Engine.LLAMACPP,
        pool_id="p",
    )

    answer = await client.ask("POST", "/v1/tasks", submit_body(), {"X-Correlation-Id": "abc"})

    assert answer.status == 429
    assert (answer.headers["retry-after"], answer.headers["x-backoff-ms"]) == (seconds, millis)
    assert answer.json == {
        "code": "ADMISSION_REJECT",
        "message": "Full.",
        "retriable": True,
        "correlation_id": "abc",
        "engine": "llamacpp",
        "pool_id": "p",
        "retry_after_ms": int(millis),
        "reason": "queue_full",
        "policy": "shed-low-priority",
        "policy_label": "shed-low-priority",
    }


NOT_JSON = {
    "empty": b"",
    "truncated": b'{"task_id"',
    "trailing garbage": submit_body() + b"x",
    "trailing NUL": submit_body() + b"\0",
    "two documents": submit_body() + submit_body(),
    "byte-order mark": b"\xef\xbb\xbf" + submit_body(),
    "UTF-16": submit_body().decode().encode("utf-16"),
    "bad UTF-8 in a value": submit_body(prompt="@").replace(b'"@"', b'"\xff"'),
    "bad UTF-8 in a key": submit_body(prompt="@").replace(b'"prompt"', b'"prom\xffpt"'),
    "a surrogate as UTF-8": submit_body(prompt="@").replace(b'"@"', b'"\xed\xa0\x80"'),
    "a lone high surrogate": submit_body(prompt="@").replace(b'"@"', b'"\\ud800"'),
    "a lone low surrogate": submit_body(prompt="@").replace(b'"@"', b'"\\udc00 and on"'),
    "a high surrogate and a letter": submit_body(prompt="@").replace(b'"@"', b'"\\ud800\\u0041"'),
    "a control character in a string": submit_body(prompt="@").replace(b'"@"', b'"a\nb"'),
    "NaN": submit_body(ctx=7).replace(b'"ctx":7', b'"ctx":NaN'),
    "Infinity": submit_body(ctx=7).replace(b'"ctx":7', b'"ctx":Infinity'),
    "a key twice": submit_body(ctx=7000).replace(b'"ctx":7000', b'"ctx":7000,"ctx":7000'),
    "a key twice, once with a blank": submit_body(ctx=7000).replace(b'"ctx":7000', b'"ctx":7000,"ctx"\n :7000'),
    "a key twice, once escaped": submit_body(ctx=7000).replace(b'"ctx":7000', b'"ctx":7000,"\\u0063tx":7000'),
    "a key twice in sampler": submit_body(sampler={"top_k": 1}).replace(b'"top_k":1', b'"top_k":1,"top_k":2'),
    "50,000 keys": b"{" + b",".join(b'"k%d":1' % i for i in range(50_000)) + b"}",
    "100,000 times a key": submit_body(ctx=7).replace(b'"ctx":7', b",".join([b'"ctx":7'] * 100_000)),
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
async def test_what_is_not_one_clean_json_document_is_refused(client: RawClient, body: bytes) -> None:
    answer = await client.ask("POST", "/v1/tasks", body)
    after = await client.ask("POST", "/v1/tasks", submit_body())

    assert (answer.status, answer.json["code"], answer.json["reason"]) == (400, "INVALID_PARAMS", "json")
    assert answer.json["retriable"] is False
    assert after.status == 202


DEEP = b"[" * 100_000
WRONG_FIELDS: dict[str, tuple[bytes, str]] = {
    "null": (b"null", "The body"),
    "an array": (b"[]", "The body"),
    "a string": (b'"x"', "The body"),
    "a number": (b"1", "The body"),
    "100,000 arrays deep": (DEEP, "The body"),
    "a prompt 100,000 deep": (submit_body(prompt="@").replace(b'"@"', DEEP), "/prompt"),
    "an unknown field 100,000 deep": (submit_body(prompt="@").replace(b'"prompt":"@"', b'"z":' + DEEP), "`z`"),
    "__proto__": (submit_body(__proto__=1), "`__proto__`"),
    "a tenant": (submit_body(tenant="root"), "`tenant`"),
    "an odd name": (submit_body(**{SECRET + "\n": 1}), "an unknown field."),
    "a name with a place in it": (submit_body(**{f"a` - at `$.{SECRET}": 1}), "an unknown field"),
    "no task_id": (submit_body(task_id=...), "`task_id`"),
    "task_id in capitals": (submit_body(task_id=TASK_ID.replace("1", "A")), "/task_id"),
    "task_id in braces": (submit_body(task_id=f"{{{TASK_ID}}}"), "/task_id"),
    "task_id and a newline": (submit_body(task_id=TASK_ID + "\n"), "/task_id"),
    "a huge task_id": (submit_body(task_id="a" * 1_000_000), "/task_id"),
    "session_id no UUID": (submit_body(session_id="x"), "/session_id"),
    "an unknown engine": (submit_body(engine="ollama"), "/engine"),
    "an unknown determinism": (submit_body(determinism="maybe"), "/determinism"),
    "an unknown kv_hint": (submit_body(kv_hint="warm"), "/kv_hint"),
    "a profile with a slash": (submit_body(sampler_profile_version="../v1"), "/sampler_profile_version"),
    "an unknown workload": (submit_body(workload=SECRET), "/workload"),
    "an enum value that looks like a place": (submit_body(priority=f"{SECRET}` - at `$.x"), "/priority"),
    "priority in capitals": (submit_body(priority="INTERACTIVE"), "/priority"),
    "inputs for a completion": (submit_body(prompt=..., inputs=["a"]), "/prompt"),
    "neither prompt nor inputs": (submit_body(prompt=...), "/inputs"),
    "prompt and inputs": (submit_body(inputs=["a"]), "/inputs"),
    "an empty prompt": (submit_body(prompt=""), "/prompt"),
    "prompt null": (submit_body(prompt=None), "/prompt"),
    "no inputs": (submit_body(prompt=..., inputs=[]), "/inputs"),
    "257 inputs": (submit_body(prompt=..., inputs=["a"] * 257), "/inputs"),
    "a number among the inputs": (submit_body(prompt=..., inputs=["a", 3]), "/inputs/1"),
    "ctx 0": (submit_body(ctx=0), "/ctx"),
    "ctx -1": (submit_body(ctx=-1), "/ctx"),
    "ctx 2^31": (submit_body(ctx=2**31), "/ctx"),
    "ctx 10^1000": (submit_body(ctx=7).replace(b'"ctx":7', b'"ctx":1' + b"0" * 1000), "/ctx"),
    "ctx 1.5": (submit_body(ctx=1.5), "/ctx"),
    "ctx as a string": (submit_body(ctx="8192"), "/ctx"),
    "ctx true": (submit_body(ctx=True), "/ctx"),
    "max_tokens 0": (submit_body(max_tokens=0), "/max_tokens"),
    "max_tokens > ctx": (submit_body(max_tokens=4097), "/max_tokens"),
    "expected_tokens > max_tokens": (submit_body(expected_tokens=17), "/expected_tokens"),
    "deadline 0": (submit_body(deadline_ms=0), "/deadline_ms"),
    "deadline over a day": (submit_body(deadline_ms=86_400_001), "/deadline_ms"),
    "seed 2^63": (submit_body(seed=2**63), "/seed"),
    "seed 1.0": (submit_body(seed=1.0), "/seed"),
    "temperature 1e400": (submit_body(sampler={"top_p": 0.125}).replace(b"0.125", b"1e400"), "/sampler/top_p"),
    "an unknown sampler field": (submit_body(sampler={"mirostat": 1}), "/sampler holds an unknown field `mirostat`"),
    "nine stops": (submit_body(stop=["a"] * 9), "/stop"),
    "model_ref as a path": (submit_body(model_ref="../../etc/passwd"), "/model_ref"),
    "model_ref as a URL": (submit_body(model_ref="http://169.254.169.254/"), "/model_ref"),
    "model_ref as an option": (submit_body(model_ref="-m"), "/model_ref"),
    "model_ref as a command": (submit_body(model_ref="$(id)"), "/model_ref"),
    "model_ref in capitals": (submit_body(model_ref="sha256:" + "A" * 64), "/model_ref"),
    "model_ref and a newline": (submit_body(model_ref="m\n"), "/model_ref"),
}


@pytest.mark.orch("ORCH-3015")
@pytest.mark.parametrize(("body", "place"), WRONG_FIELDS.values(), ids=WRONG_FIELDS)
async def test_a_wrong_field_is_named_and_never_repeated(client: RawClient, body: bytes, place: str) -> None:
    answer = await client.ask("POST", "/v1/tasks", body)
    after = await client.ask("POST", "/v1/tasks", submit_body())

    assert (answer.status, answer.json["code"], answer.json["reason"]) == (400, "INVALID_PARAMS", "field")
    assert place in answer.json["message"]
    assert SECRET.encode() not in answer.body
    assert len(answer.body) < 500
    assert after.status == 202


async def test_text_about_json_is_no_duplicate_key(client: RawClient) -> None:
    prompt = '{"ctx": 1, "ctx": 2} and \\"ctx\\": and "'

    answer = await client.ask("POST", "/v1/tasks", submit_body(prompt=prompt))

    assert answer.status == 202


async def test_a_bug_is_an_internal_error_without_details(client: RawClient, service: MemoryService) -> None:
    service.bug = RuntimeError(f"/etc/{SECRET}")

    answer = await client.ask("POST", "/v1/tasks", submit_body())
    service.bug = None
    after = await client.ask("POST", "/v1/tasks", submit_body())

    assert (answer.status, answer.json["code"], answer.json["retriable"]) == (500, "INTERNAL", False)
    assert SECRET.encode() not in answer.body
    assert after.status == 202


async def test_a_client_that_leaves_does_not_take_its_task_along(serve: Serve, service: MemoryService) -> None:
    service.hold = asyncio.Event()
    server = await serve()
    async with await RawClient.tcp(server.port) as leaving, await RawClient.tcp(server.port) as other:
        body = submit_body(task_id=TASK_ID)
        leaving.send(b"POST /v1/tasks HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n")
        leaving.send(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        await until(lambda: service.submits_waiting)
        leaving.reset()

        service.hold.set()
        await until(lambda: not service.submits_waiting)
        answer = await other.ask("GET", f"/v1/tasks/{TASK_ID}")

    assert answer.status == 200


def test_all_fields_of_a_task_have_a_case_here() -> None:
    tried = " ".join(place for _, place in WRONG_FIELDS.values())

    untried = {name for name in SubmitTask.__struct_fields__ if name not in tried}

    assert untried == set()
