"""`orchctl validate`: configs, good and bad."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Orchctl

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "pools.yaml"


@pytest.fixture
def bad_config(tmp_path: Path) -> Path:
    path = tmp_path / "pools.yaml"
    path.write_text("pools:\n  - id: a\n    engine: llamacpp\n    gpu: 1\n")
    return path


@pytest.mark.parametrize("line", [["validate"], ["validate", "--config"], ["serve", "--check", "--config"]])
def test_a_config_that_can_be_used_is_called_valid(orchctl: Orchctl, line: list[str]) -> None:
    ran = orchctl(*line, str(EXAMPLE))

    assert ran.code == 0
    assert ran.out.startswith(f"{EXAMPLE} is valid")


@pytest.mark.parametrize("line", [["validate"], ["serve", "--check", "--config"]])
def test_each_problem_has_its_place(orchctl: Orchctl, bad_config: Path, line: list[str]) -> None:
    ran = orchctl(*line, str(bad_config))

    *problems, last = ran.err.splitlines()
    assert (ran.code, ran.out) == (78, "")
    assert any(line.startswith(f"{bad_config}:4:") and " /pools/0/gpu: " in line for line in problems)
    assert last == f"orchctl: {bad_config} cannot be used; mend it, then `orchctl validate {bad_config}`"


def test_json_has_the_places_as_numbers(orchctl: Orchctl, bad_config: Path) -> None:
    ran = orchctl("validate", str(bad_config), "-o", "json")

    verdict = json.loads(ran.out)
    assert ran.code == 78
    assert not verdict["valid"]
    assert {(one["line"], one["pointer"]) for one in verdict["problems"]} >= {(4, "/pools/0/gpu")}


def test_a_valid_config_in_json_has_no_problems(orchctl: Orchctl) -> None:
    verdict = json.loads(orchctl("validate", str(EXAMPLE), "-o", "json").out)

    assert verdict["valid"]
    assert verdict["problems"] == []


@pytest.mark.parametrize("name", ["nothing.yaml", ""])
def test_what_is_no_file_is_a_bad_config(orchctl: Orchctl, tmp_path: Path, name: str) -> None:
    assert orchctl("validate", str(tmp_path / name)).code == 78
