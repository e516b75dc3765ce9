"""The cheap test for duplicate keys never misses one and never invents one."""

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.refusals import Refused
from supervisor.http.bodies import Body
from supervisor.wire.codes import Reason
from supervisor.wire.tasks import SubmitTask
from tests.support.memory_service import submit_body

BODY = Body(SubmitTask)
BLANKS = st.text(" \t\r\n", max_size=2)
TRICKY = st.text(st.sampled_from('":,{}\\ \n\tctxé\U0001f600'), min_size=1, max_size=20)


@st.composite
def documents(draw: st.DrawFn) -> tuple[bytes, bool]:
    """A valid task as JSON in any spelling, and whether a key comes twice in one of its objects."""
    fields = list(json.loads(submit_body(prompt=draw(TRICKY), stop=draw(st.lists(TRICKY, max_size=3)))).items())
    sampler = [("top_k", 1), ("top_p", 0.5), *draw(st.sampled_from([[], [("top_k", 2)]]))]
    twice = draw(st.lists(st.sampled_from(fields), max_size=2))
    members = [(name, json.dumps(value, ensure_ascii=draw(st.booleans()))) for name, value in [*fields, *twice]]
    members.append(("sampler", spell(draw, [(name, json.dumps(value)) for name, value in sampler])))
    return spell(draw, members).encode(), bool(twice) or len(sampler) > 2


def spell(draw: st.DrawFn, members: list[tuple[str, str]]) -> str:
    """One object, with blanks anywhere and keys partly escaped."""
    pairs = []
    for name, value in members:
        key = "".join(f"\\u{ord(letter):04x}" if draw(st.integers(0, 9)) == 0 else letter for letter in name)
        pairs.append(f'{draw(BLANKS)}"{key}"{draw(BLANKS)}:{draw(BLANKS)}{value}{draw(BLANKS)}')
    return "{" + ",".join(draw(st.permutations(pairs))) + "}"


@given(documents())
def test_duplicate_keys_are_found_in_any_spelling(document: tuple[bytes, bool]) -> None:
    body, has_duplicates = document

    parsed = BODY.parse(body)

    if has_duplicates:
        assert isinstance(parsed, Refused)
        assert parsed.reason is Reason.JSON
    else:
        assert isinstance(parsed, SubmitTask)
        assert msgspec.to_builtins(parsed) == json.loads(body)


def json_values() -> st.SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    return st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@given(st.sampled_from(SubmitTask.__struct_fields__), json_values())
def test_any_value_in_any_field_is_a_task_or_a_refusal(name: str, value: object) -> None:
    parsed = BODY.parse(submit_body(**{name: value}))

    assert isinstance(parsed, SubmitTask | Refused)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_task_or_a_refusal(data: bytes) -> None:
    parsed = BODY.parse(data)

    assert isinstance(parsed, Refused)
    assert parsed.reason in {Reason.JSON, Reason.FIELD}
