"""B34 to B53 where the daemon's own state decides: pools, known ids, tenants, keys. One daemon meets all of it."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from supervisor.wire.codes import Priority, Scope
from tests.support.api_keys import make_key
from tests.support.daemon import Daemon, Reply, a_request
from tests.support.hygiene import assert_clean
from tests.support.pools import a_fake_pool, a_model
from tests.support.rawhttp import Answer

CTX = 512
SECRET = "s3cr3t-payload-that-nobody-else-has"
UNKNOWN = "00000000-0000-4000-8000-00000000dead"


@dataclass(frozen=True)
class Host:
    """A daemon, the keys of two tenants, and keys with fewer rights."""

    daemon: Daemon
    a: str
    b: str
    batch: str
    data: str

    def ask(self, method: str, path: str, body: object = None, *, key: str | None = None, **headers: str) -> Answer:
        """One request and its answer, which is clean."""
        given = {"Authorization": f"Bearer {key or self.a}"} | {k.replace("_", "-"): v for k, v in headers.items()}
        answer = answer_of(self.daemon.ask(method, path, body, given))
        assert_clean(answer, str(body).encode())
        assert SECRET.encode() not in answer.body
        return answer

    def submit(self, key: str | None = None, /, **fields: Any) -> Answer:
        return self.ask("POST", "/v1/tasks", a_request(**fields), key=key)


def answer_of(reply: Reply) -> Answer:
    return Answer(reply.status, {name.lower(): value for name, value in reply.headers.items()}, reply.body)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder: Path = tmp_path_factory.mktemp("host")
    pool = a_fake_pool(queue={"capacity": 1000})
    daemon = Daemon(folder, {"pools": [pool], "models": a_model(folder)})
    try:
        keys = [
            make_key(daemon, "a"),
            make_key(daemon, "b"),
            make_key(daemon, "a", priorities=(Priority.BATCH,)),
            make_key(daemon, "a", scopes=(Scope.DATA,)),
        ]
        made = Host(daemon, *keys)
        daemon.start()
        daemon.wait_ready()
        yield made
        assert "Traceback" not in daemon.log_text()
        assert SECRET not in daemon.log_text()
    finally:
        daemon.close()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "B36 an embedding where none is": ({"workload": "embedding"}, "workload"),
    "B37 ctx above the model's": ({"ctx": CTX + 1}, "ctx"),
    "B38 prompt and max_tokens above ctx": ({"prompt": SECRET + " a" * CTX, "max_tokens": CTX // 2}, "token_budget"),
    "B38 max_tokens alone is all of ctx": ({"prompt": "a b c d " * 4, "max_tokens": CTX}, "token_budget"),
    "B42 an engine without this model": ({"engine": "vllm"}, "model"),
    "B42 a model that no pool has": ({"model_ref": "other"}, "model"),
    "B42 a digest that no pool has": ({"model_ref": "sha256:" + "0" * 64}, "model"),
    "B42 a repo that no pool has": ({"model_ref": "repo:a/b"}, "model"),
    "B43 a profile that no pool has": ({"sampler_profile_version": "v9"}, "field"),
}


@pytest.mark.orch("ORCH-3014", "ORCH-3015")
@pytest.mark.parametrize(("fields", "reason"), REFUSED.values(), ids=[name.replace(" ", "-") for name in REFUSED])
def test_a_task_that_no_pool_can_do_is_refused(host: Host, fields: dict[str, Any], reason: str) -> None:
    answer = host.submit(**{"prompt": SECRET, **fields})
    after = host.submit()

    assert (answer.status, answer.json["code"], answer.json["reason"]) == (400, "INVALID_PARAMS", reason)
    assert after.status == 202


def test_B34_ids_of_two_tenants_do_not_meet(host: Host) -> None:
    task_id = str(uuid.uuid4())

    answers = [host.submit(key, task_id=task_id, prompt=prompt) for key, prompt in ((host.a, "x"), (host.b, "y"))]

    assert [answer.status for answer in answers] == [202, 202]
    assert answers[0].json["job_id"] != answers[1].json["job_id"]


def test_B35_the_same_id_with_another_body_is_a_conflict(host: Host) -> None:
    task_id = str(uuid.uuid4())
    request = a_request(task_id=task_id)
    first = host.ask("POST", "/v1/tasks", request)

    other = host.ask("POST", "/v1/tasks", {**request, "prompt": SECRET})
    again = host.ask("POST", "/v1/tasks", request)

    assert (other.status, other.json["code"], other.json["reason"]) == (400, "INVALID_PARAMS", "conflict")
    assert (again.status, again.json["job_id"]) == (202, first.json["job_id"])


@pytest.mark.parametrize("seed", [None, 0, -1, -(2**63), 2**63 - 1], ids=lambda seed: f"B40-seed-{seed}")
def test_every_seed_of_64_bits_is_taken(host: Host, seed: int | None) -> None:
    answer = host.submit(**({} if seed is None else {"seed": seed}))

    assert answer.status == 202


PROMPTS = {
    "NUL": "a\0b",
    "1 MB of one character": "x" * 1_000_000,
    "right to left": "\u202eabc\u200b\ufeff",
    "special tokens": "<|im_start|>system\n</s>",
    "an event": "\n\ndata: {}\n\nevent: end\r\n\r\n",
}


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=[f"B46-{name.replace(' ', '-')}" for name in PROMPTS])
def test_a_strange_prompt_is_a_prompt_or_too_long(host: Host, prompt: str) -> None:
    answer = host.submit(prompt=prompt, max_tokens=4)

    if len(prompt) > CTX:
        assert (answer.status, answer.json["reason"]) == (400, "token_budget")
        return
    assert answer.status == 202
    view = wait_over(host, answer.json["task_id"])
    assert view["state"] == "ended"


def wait_over(host: Host, task_id: str) -> dict[str, Any]:
    """Reads the stream to its end, then looks."""
    stream = host.ask("GET", f"/v1/tasks/{task_id}/stream")
    assert stream.status == 200
    view: dict[str, Any] = host.ask("GET", f"/v1/tasks/{task_id}").json
    return view


@pytest.mark.orch("ORCH-3019")
def test_B48_a_key_for_batch_alone_does_not_rise(host: Host) -> None:
    refused = host.submit(host.batch, priority="interactive")
    accepted = host.submit(host.batch, priority="batch")

    assert (refused.status, refused.json["code"], refused.json["reason"]) == (403, "INVALID_PARAMS", "scope")
    assert accepted.status == 202


ROUTES = [("GET", ""), ("GET", "/stream"), ("POST", "/cancel")]


@pytest.mark.orch("ORCH-3036")
@pytest.mark.parametrize(("method", "what"), ROUTES, ids=[f"B49-{method}{what}" for method, what in ROUTES])
def test_anothers_task_looks_like_one_that_never_was(host: Host, method: str, what: str) -> None:
    task_id = host.submit(host.a).json["task_id"]

    answers = [
        host.ask(method, f"/v1/tasks/{ident}{what}", key=host.b, X_Correlation_Id="same")
        for ident in (task_id, UNKNOWN, "no-uuid")
    ]

    assert {answer.status for answer in answers} == {404}
    assert len({answer.body for answer in answers}) == 1
    assert len({tuple(sorted({**answer.headers, "date": ""}.items())) for answer in answers}) == 1


@pytest.mark.parametrize("after", ["-1", "abc", "1.5", "9" * 20, ""], ids=lambda after: f"B50-{after[:5]}")
def test_a_cursor_that_is_no_number_is_refused(host: Host, after: str) -> None:
    task_id = host.submit().json["task_id"]

    answer = host.ask("GET", f"/v1/tasks/{task_id}/stream", Last_Event_ID=after)

    assert (answer.status, answer.json["reason"]) == (400, "field")


def test_B50_a_finished_stream_is_the_same_again_and_ends_past_its_end(host: Host) -> None:
    task_id = host.submit(max_tokens=4).json["task_id"]

    first, second = (host.ask("GET", f"/v1/tasks/{task_id}/stream") for _ in range(2))
    past = host.ask("GET", f"/v1/tasks/{task_id}/stream", Last_Event_ID=str(10**18))

    frames = [part for part in first.body.split(b"\n\n") if b"event: metrics" not in part and not part.startswith(b":")]
    again = [part for part in second.body.split(b"\n\n") if b"event: metrics" not in part and not part.startswith(b":")]
    assert frames == again
    assert past.status == 200
    assert past.body.count(b"event: end") == 1
    assert b"event: token" not in past.body


def test_B51_a_cancel_with_a_body_of_1_MB_cancels(host: Host) -> None:
    task_id = host.submit().json["task_id"]

    answer = host.ask("POST", f"/v1/tasks/{task_id}/cancel", "x" * 1_000_000)

    assert answer.status == 204
    assert int(answer.headers["x-tokens-emitted"]) >= 0


DRAINS: dict[str, tuple[object, int]] = {
    "no deadline": ({}, 400),
    "negative": ({"deadline_ms": -1}, 400),
    "a string": ({"deadline_ms": "1000"}, 400),
    "10^15": ({"deadline_ms": 10**15}, 400),
    "a list": ([], 400),
    "an unknown field": ({"deadline_ms": 1, "force": True}, 400),
}


@pytest.mark.parametrize(("body", "status"), DRAINS.values(), ids=[f"B52-{name.replace(' ', '-')}" for name in DRAINS])
def test_a_drain_without_a_proper_deadline_is_refused(host: Host, body: object, status: int) -> None:
    answer = host.ask("POST", "/v1/pools/tiny/drain", body)

    assert (answer.status, answer.json["code"]) == (status, "INVALID_PARAMS")
    assert host.ask("GET", "/v1/pools/tiny/health").json["draining"] is False


@pytest.mark.parametrize("pool_id", ["other", "..", "%2e%2e", "tiny%00", "TINY"], ids=lambda pool: f"B52-pool-{pool}")
def test_a_pool_that_is_not_there_is_not_found(host: Host, pool_id: str) -> None:
    answers = [
        host.ask("POST", f"/v1/pools/{pool_id}/drain", {"deadline_ms": 1}),
        host.ask("POST", f"/v1/pools/{pool_id}/resume"),
        host.ask("GET", f"/v1/pools/{pool_id}/health"),
    ]

    assert [(answer.status, answer.json["reason"]) for answer in answers] == [(404, "not_found")] * 3


@pytest.mark.orch("ORCH-3019")
def test_B52_a_key_for_data_does_not_drain(host: Host) -> None:
    answer = host.ask("POST", "/v1/pools/tiny/drain", {"deadline_ms": 1}, key=host.data)

    assert (answer.status, answer.json["reason"]) == (403, "scope")


def test_B45_a_session_id_of_another_tenant_is_a_session_of_ones_own(host: Host) -> None:
    session_id = str(uuid.uuid4())
    turn = {"session_id": session_id, "kv_hint": "reuse", "determinism": "best_effort", "max_tokens": 4}
    answers = [host.submit(key, **turn) for key in (host.a, host.b)]
    views = [wait_over_as(host, key, answer) for key, answer in zip((host.a, host.b), answers, strict=True)]

    assert [view["state"] for view in views] == ["ended", "ended"]
    assert [host.ask("GET", f"/v1/sessions/{session_id}", key=key).json["turns"] for key in (host.a, host.b)] == [1, 1]


def wait_over_as(host: Host, key: str, accepted: Answer) -> dict[str, Any]:
    task_id = accepted.json["task_id"]
    assert host.ask("GET", f"/v1/tasks/{task_id}/stream", key=key).status == 200
    view: dict[str, Any] = host.ask("GET", f"/v1/tasks/{task_id}", key=key).json
    return view


def test_B53_a_session_is_deleted_twice_and_not_by_another(host: Host) -> None:
    session_id = str(uuid.uuid4())
    turn = {"session_id": session_id, "kv_hint": "reuse", "determinism": "best_effort", "max_tokens": 4}
    wait_over_as(host, host.a, host.submit(**turn))

    foreign = host.ask("DELETE", f"/v1/sessions/{session_id}", key=host.b)
    answers = [host.ask("DELETE", f"/v1/sessions/{session_id}") for _ in range(2)]
    unknown = host.ask("DELETE", f"/v1/sessions/{UNKNOWN}")

    assert [answer.status for answer in answers] == [204, 204]
    assert (foreign.status, unknown.status) == (404, 404)
    assert {**foreign.json, "correlation_id": ""} == {**unknown.json, "correlation_id": ""}


@pytest.mark.parametrize("claimed", ["\U0001f600", "a" * 65, "a b", "<b>"], ids=lambda claimed: f"B53-{claimed[:4]!a}")
def test_a_correlation_id_that_is_not_harmless_is_replaced(host: Host, claimed: str) -> None:
    answer = host.ask("GET", "/v1/tasks", X_Correlation_Id=claimed.encode().decode("latin-1"))

    assert (answer.status, len(answer.headers["x-correlation-id"])) == (200, 36)


def test_hostile_words_make_no_series(host: Host) -> None:
    before = series_of(host)

    for number in range(300):
        word = f"w{number}"
        host.ask("GET", f"/v1/tasks/{word}", X_Correlation_Id=word)
        host.ask("GET", f"/v1/pools/{word}/health")
        host.ask("GET", f"/{word}")
        host.submit(model_ref=word)
        host.submit(**{word: 1})

    assert len(series_of(host) - before) <= 5


def series_of(host: Host) -> set[str]:
    page = host.ask("GET", "/metrics").body.decode()
    return {line.rsplit(" ", 1)[0] for line in page.splitlines() if not line.startswith("#")}
