"""Config texts whose lines a test can count: a pool is lines 2 to 5 of the file, and what is added starts at line 6."""

from pathlib import Path

from supervisor.config.load import Loaded, parse
from supervisor.config.model import Config
from supervisor.config.problems import ConfigError, Problem

SOURCE = Path("/etc/orchctl/pools.yaml")
DIGEST = "sha256:" + "ab" * 32
OTHER_DIGEST = "sha256:" + "cd" * 32
MODELS = f"models:\n  tiny: {{ path: tiny.gguf, digest: '{DIGEST}' }}\n"


def a_pool(*more: str, id: str = "a", engine: str = "llamacpp", model: str = "tiny", devices: str = "[0]") -> str:  # noqa: A002  (the key's own name)
    """One list item of `pools`; `more` are further lines of it, indented by this function."""
    lines = [f"- id: {id}", f"  engine: {engine}", f"  model: {model}", f"  devices: {devices}"]
    return "".join(f"  {line}\n" for line in [*lines, *(f"  {line}" for line in more)])


def a_config(*pools: str, tail: str = "") -> str:
    """A whole config of these pools, with top-level keys after them."""
    return "pools:\n" + "".join(pools or (a_pool(),)) + tail


def loaded(text: str) -> Loaded:
    return parse(text, SOURCE)


def config_of(text: str) -> Config:
    return loaded(text).config


def problems_of(text: str) -> list[Problem]:
    """What is wrong with a text; an empty list where nothing is."""
    try:
        parse(text, SOURCE)
    except ConfigError as error:
        return list(error.problems)
    return []
