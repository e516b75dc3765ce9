"""The page on the config names every key that there is, with the default that the model really has."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.base import LaunchSpec
from adapters.llamacpp_launch import placeholders
from supervisor.config.change_effects import HOST_EFFECTS, POOL_EFFECTS, ChangeEffect
from supervisor.config.launch import PLACEHOLDERS
from supervisor.config.schema import schema

PAGE = (Path(__file__).parents[2] / "docs" / "config.md").read_text()
SCHEMA = schema()
ROWS = dict(re.findall(r"^\| (?:↳ )?`([a-z_.]+)` \| ([^|]+) \|", PAGE, re.MULTILINE))


def leaves(section: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The keys of a section that hold a value of their own, with their schema."""
    for name, node in section["properties"].items():
        branches = [node, *node.get("anyOf", [])]  # a section that may be left out is one of two branches
        names = [branch["$ref"].rpartition("/")[2] for branch in branches if "$ref" in branch]
        target = SCHEMA["$defs"][names[0]] if names else {}
        if "properties" in target:
            yield from leaves(target, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", node


SECTIONS = (SCHEMA, *(SCHEMA["$defs"][name] for name in ("PoolConfig", "ClassConfig", "TenantConfig")))
KEYS = [leaf for section in SECTIONS for leaf in leaves(section)]


@pytest.mark.parametrize(("key", "node"), KEYS, ids=[key for key, _ in KEYS])
def test_a_key_has_a_row_with_its_real_default(key: str, node: dict[str, Any]) -> None:
    default = node.get("default")

    assert key in ROWS
    if isinstance(default, bool | int | str):
        assert ROWS[key] == f"`{str(default).lower()}`"


def test_no_row_is_about_a_key_that_is_gone() -> None:
    assert set(ROWS) == {key for key, _ in KEYS}


def test_the_placeholders_of_a_command_are_those_that_the_adapter_fills_in() -> None:
    spec = LaunchSpec(
        pool_id="a", model_path="m", model_name="a", ctx=1, slots=1, port=1, api_key="k", devices=["GPU-0"]
    )

    assert set(placeholders(spec)) == PLACEHOLDERS == set(re.findall(r"`\{([a-z_]+)\}`", PAGE))


@pytest.mark.parametrize("effect", [ChangeEffect.HOT, ChangeEffect.RESTART])
def test_the_list_of_what_a_change_costs_names_just_the_keys_that_cost_it(effect: ChangeEffect) -> None:
    bullet = re.search(rf"^\* \*\*{effect}\*\*: (.*?)(?=^\* |^$)", PAGE, re.MULTILINE | re.DOTALL)
    assert bullet is not None
    named = re.findall(r"`([a-z_.]+)`", bullet[1])
    of_one_value = {"preload", "require_same_engine_version"}
    effects = {key: each for key, each in (*POOL_EFFECTS.items(), *HOST_EFFECTS.items()) if key not in of_one_value}

    covered = {key for key in effects if any(key == name or key.startswith(f"{name}.") for name in named)}

    assert covered == {key for key, each in effects.items() if each is effect}
