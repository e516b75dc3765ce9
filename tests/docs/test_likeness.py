"""A page that says what is not so is found out: every answer of docs/api.md is changed in every way."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.docs.likeness import ELISION, mismatch
from tests.docs.page import Example
from tests.docs.test_api_examples import EXAMPLES

BODY = re.compile(r"^(?:data: )?(\{.*?\})$(?=\n|\Z)", re.MULTILINE | re.DOTALL)
HTTP = [pytest.param(example, id=f"line {example.line}") for example in EXAMPLES if example.kind == "http"]
ANSWERED = [
    pytest.param(example, id=f"line {example.line}") for example in EXAMPLES if example.kind in {"http", "json"}
]


def changed(value: Any) -> Iterator[Any]:
    """The same document with one field gone, renamed, added or of another type, at every depth."""
    if isinstance(value, dict) and ELISION not in value:
        yield {**value, "brand_new": 1}
    if isinstance(value, dict):
        for name in value.keys() - {ELISION}:
            rest = {other: value[other] for other in value if other != name}
            yield rest
            yield {**rest, f"{name}_2": value[name]}
            yield {**rest, name: None if value[name] is not None else "x"}
            yield from ({**rest, name: inner} for inner in changed(value[name]))
    elif isinstance(value, list) and value and value[0] != ELISION:
        yield value[1:] if value[-1] != ELISION else []
        yield from ([inner, *value[1:]] for inner in changed(value[0]))


@pytest.mark.parametrize("example", ANSWERED)
def test_a_changed_answer_is_not_like_the_page(example: Example) -> None:
    assert mismatch(example.kind, example.answer, example.answer) is None
    found = BODY.search(example.answer)
    if found is None:
        return
    document = json.loads(found[1])

    for other in changed(document):
        answer = example.answer.replace(found[1], json.dumps(other, ensure_ascii=False))
        assert mismatch(example.kind, example.answer, answer) is not None, other


@pytest.mark.parametrize("example", HTTP)
def test_another_status_or_a_header_less_is_not_like_the_page(example: Example) -> None:
    head, gap, body = example.answer.strip().partition("\n\n")
    status, *headers = head.split("\n")

    assert mismatch("http", example.answer, example.answer.replace("HTTP/1.1 ", "HTTP/1.1 5", 1)) is not None
    for header in headers:
        others = [other for other in headers if other != header]
        assert mismatch("http", example.answer, "\n".join([status, *others]) + gap + body) is not None


@pytest.mark.parametrize(
    ("kind", "page", "printed"),
    [
        ("json", '{"a": 1}', '{"a": true}'),
        ("json", '{"code": "INTERNAL"}', '{"code": "WORKER_RESET"}'),
        ("json", '{"age_ms": 1}', '{"age_ms": null}'),
        ("json", '{"age_ms": 1}', '{"age_ms": "1"}'),
        ("json", '{"id": "5d8a2f7c-4a51-4d0f-8f43-2a1f4f0f3b10"}', '{"id": "5"}'),
        ("json", '{"slots_total": 1}', '{"slots_total": 2}'),
        ("json", "[1, 2]", "[1]"),
        ("json", '[1, "…"]', "[]"),
        ("json", "{}", "<html>"),
        ("text", "one\ntwo", "two\none"),
        ("text", 'x{a="b"} 1', 'x{a="c"} 1'),
        ("sse", 'id: 1\nevent: end\ndata: {"a": 1}', 'id: 2\nevent: end\ndata: {"a": 1}'),
        ("sse", 'id: 1\nevent: end\ndata: {"a": 1}', 'id: 1\nevent: error\ndata: {"a": 1}'),
        ("sse", 'id: 1\nevent: end\ndata: {"a": 1}', 'id: 1\nevent: end\ndata: {"a": 1}\n\nid: 2\nevent: x\ndata: 1'),
        ("", "", "anything"),
    ],
)
def test_what_differs_is_said_to(kind: str, page: str, printed: str) -> None:
    assert mismatch(kind, page, printed) is not None


@pytest.mark.parametrize(
    ("kind", "page", "printed"),
    [
        ("json", '{"age_ms": 1, "t": "x"}', '{"t": "y", "age_ms": 2.5}'),
        ("json", '{"a": [1, "…"], "…": "…"}', '{"a": [1, 2, 3], "b": 4}'),
        ("json", '{"m": "no [[x]] …"}', '{"m": "no [[x]] at all?"}'),
        ("text", "one 1.5\n…\nthree", "zero\none 7\ntwo\nthree"),
        ("sse", "id: 1\ndata: 1\n\n…\n\nid: 4\ndata: 4", "id: 1\ndata: 1\n\n: x\n\nid: 2\ndata: 2\n\nid: 4\ndata: 4"),
    ],
)
def test_what_is_of_the_moment_makes_no_difference(kind: str, page: str, printed: str) -> None:
    assert mismatch(kind, page, printed) is None
