"""Names that come from outside: what a hub may call a file, and what a model is called when nobody said."""

import re

from supervisor.config.catalogue import FILE_PATTERN, NAME_PATTERN
from supervisor.store.faults import Kind, StoreError

SHOWN_CHARS_MAX = 60
_FILE = re.compile(FILE_PATTERN)
_NAME = re.compile(NAME_PATTERN)
_FORBIDDEN = re.compile(r"[^a-z0-9._-]+")


def require_file_name(name: str) -> str:
    """The name itself, where it can only ever lie inside the model's folder. Raises StoreError.

    Refused: absolute names, `..`, hidden names, names that look like options, control characters, more than 8 levels.
    """
    if not _FILE.match(name):
        raise StoreError(f"the source names a file {shown(name)}, which is not a name that a model may use")
    return name


def require_model_name(name: str) -> str:
    """The name itself. Raises StoreError."""
    if not _NAME.match(name):
        raise StoreError(
            f"{shown(name)} is not a name for a model", "use a-z, 0-9, `.`, `_` and `-`, at most 128", Kind.WRONG
        )
    return name


def name_for(text: str) -> str:
    """A catalogue name made of a file's or a repository's. Raises StoreError where nothing is left of it."""
    base = text.rsplit("/", 1)[-1].lower()
    for ending in (".gguf", ".safetensors"):
        base = base.removesuffix(ending)
    base = re.sub(r"-[0-9]{5}-of-[0-9]{5}\Z", "", base)
    name = _FORBIDDEN.sub("-", base).strip("-._")[:128]
    if not _NAME.match(name):
        raise StoreError(f"no name can be made of {shown(text)}", "give one with `--name`", Kind.WRONG)
    return name


def shown(text: str) -> str:
    """A stranger's text in a message: bounded and harmless."""
    return ascii(text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "...")
