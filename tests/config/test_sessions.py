"""The ceilings of a session's life hold in the config already."""

import pytest

from supervisor.config.model import SessionsConfig
from tests.config.texts import a_config, a_pool, problems_of


@pytest.mark.orch("ORCH-3021")
@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("ttl_ms", "600001", "600000"),
        ("ttl_ms", "0", "1000"),
        ("turns_max", "9", "8"),
        ("turns_max", "0", "1"),
        ("max", "0", "1"),
        ("ttl_ms", "'600000'", "whole number"),
        ("turns", "8", "turns_max"),
    ],
)
def test_more_than_a_ceiling_is_refused_at_its_place(key: str, value: str, words: str) -> None:
    (problem,) = problems_of(a_config(a_pool()) + f"sessions:\n  {key}: {value}\n")

    assert problem.pointer == f"/sessions/{key}"
    assert words in problem.message


def test_the_defaults_are_the_ceilings() -> None:
    defaults = SessionsConfig()

    assert (defaults.ttl_ms, defaults.turns_max, defaults.max) == (600_000, 8, 10_000)
