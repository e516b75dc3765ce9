"""YAML becomes plain values that know their place, and nothing turns into something else on the way."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.config.document import parse_document
from supervisor.config.nodes import DocumentError
from supervisor.config.problems import Place, pointer_of

SCALARS: list[tuple[str, object]] = [
    ("no", "no"),
    ("on", "on"),
    ("y", "y"),
    ("1:30", "1:30"),
    ("2025-09-15", "2025-09-15"),
    ("1_000", "1_000"),
    ("010", 10),
    ("0x10", "0x10"),
    ("-5", -5),
    ("1e3", 1000.0),
    (".5", 0.5),
    ("true", True),
    ("False", False),
    ("null", None),
    ("~", None),
    ("", None),
    ("'true'", "true"),
    ('"5"', "5"),
    ("''", ""),
    ("-.inf", -math.inf),
    ("sha256:...", "sha256:..."),
]


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_scalars_are_those_of_the_core_schema(text: str, value: object) -> None:
    document = parse_document(f"key: {text}\n")

    assert document.value == {"key": value}
    assert isinstance(document.value, dict)
    assert type(document.value["key"]) is type(value)


def test_every_key_and_value_knows_its_line_and_column() -> None:
    document = parse_document("a:\n  - b: 1\n    ü: [x, y]\n")

    assert document.place_of(("a", 0, "b")) == Place(2, 8)
    assert document.place_of_key(("a", 0, "ü")) == Place(3, 5)
    assert document.place_of(("a", 0, "ü", 1)) == Place(3, 12)
    assert document.place_of(("a", 0, "missing", "deeper")) == Place(2, 5)


def test_merges_fill_in_what_is_not_said_and_aliases_copy() -> None:
    text = "a: &a { x: 1, y: 1 }\nb: &b { y: 2, z: 2 }\nc:\n  <<: [*a, *b]\n  x: 3\nd: *a\n"

    document = parse_document(text)

    assert document.value == {
        "a": {"x": 1, "y": 1},
        "b": {"y": 2, "z": 2},
        "c": {"x": 3, "y": 1, "z": 2},
        "d": {"x": 1, "y": 1},
    }
    assert document.place_of(("c", "z")) == Place(2, 18)


def error_of(text: str) -> DocumentError | None:
    try:
        parse_document(text)
    except DocumentError as error:
        return error
    return None


@given(st.text(alphabet="ab:-[]{}&*!|>'\"\\#%@,? \n\t0.~<é\x85\u2028", max_size=60))
def test_any_text_is_a_document_or_a_document_error_inside_the_text(text: str) -> None:
    error = error_of(text)

    assert error is None or (error.message and 1 <= error.place.line <= len(text.splitlines()) + 1)


def test_pointers_escape_what_they_use_themselves() -> None:
    assert pointer_of(("models", "repo:a/b~c", 0)) == "/models/repo:a~1b~0c/0"
