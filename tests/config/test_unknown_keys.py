"""Unknown keys are errors in strict mode and warnings in compat mode, at every level (ORCH-3030)."""

import pytest

from tests.config.texts import MODELS, a_config, a_pool, config_of, loaded, problems_of

pytestmark = pytest.mark.orch("ORCH-3030")

UNKNOWN: list[tuple[str, int, int, str, str]] = [
    (a_config(tail="pool: []\n"), 6, 1, "/pool", "did you mean 'pools'?"),
    (a_config(tail="headroom: { percent: 10 }\n"), 6, 1, "/headroom", "unknown key"),
    (a_config(a_pool("contxt: 8192")), 6, 5, "/pools/0/contxt", "did you mean 'ctx'?"),
    (a_config(a_pool("queue: { capcity: 8 }")), 6, 14, "/pools/0/queue/capcity", "did you mean 'capacity'?"),
    (
        a_config(a_pool("admission: { priorities: [{ name: batch, rate: 5 }] }")),
        6,
        46,
        "/pools/0/admission/priorities/0/rate",
        "unknown key",
    ),
    (a_config(tail="engines: { llamacpp: { bin: x } }\n"), 6, 24, "/engines/llamacpp/bin", "did you mean 'binary'?"),
    (a_config(tail="shutdown: { xyz: 1 }\n"), 6, 13, "/shutdown/xyz", "known here: drain_ms"),
]


@pytest.mark.parametrize(("text", "line", "column", "pointer", "hint"), UNKNOWN)
def test_strict_refuses_and_says_what_was_probably_meant(
    text: str, line: int, column: int, pointer: str, hint: str
) -> None:
    [problem] = problems_of(text)

    assert (problem.line, problem.column, problem.pointer) == (line, column, pointer)
    assert hint in problem.message


@pytest.mark.parametrize(("text", "line", "column", "pointer", "hint"), UNKNOWN)
def test_compat_warns_with_the_same_words_and_leaves_the_key_out(
    text: str, line: int, column: int, pointer: str, hint: str
) -> None:
    result = loaded(text + "mode: compat\n" + MODELS)

    [warning] = result.warnings
    assert warning.startswith(f"/etc/orchctl/pools.yaml:{line}:{column}: {pointer}: unknown key")
    assert hint in warning
    assert result.config.pools[0].id == "a"


def test_compat_still_refuses_bad_values_and_bad_combinations() -> None:
    bad_value = problems_of(a_config(a_pool("ctx: 0", "extra: 1"), tail="mode: compat\n"))
    bad_combination = problems_of(a_config(a_pool("extra: 1"), a_pool(), tail="mode: compat\n"))

    assert [problem.pointer for problem in bad_value] == ["/pools/0/ctx"]
    assert [problem.pointer for problem in bad_combination] == ["/pools/1/id"]


def test_compat_keeps_a_pool_exactly_as_strict_would_read_it_without_the_key() -> None:
    with_key = config_of(a_config(a_pool("ctx: 8", "new: { deep: 1 }"), tail="mode: compat\n"))
    without_key = config_of(a_config(a_pool("ctx: 8"), tail="mode: compat\n"))

    assert with_key == without_key
