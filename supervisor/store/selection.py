"""Which files of a repository are the model. Pure: a listing in, a choice or a refusal out.

1. the file that was named, with all shards of its set; 2. the only GGUF, or set of shards, that there is; 3. without
any GGUF: the safetensors, and what a tokenizer needs beside them. Never pickles, which run code when they are loaded.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from supervisor.config.catalogue import FILES_MAX
from supervisor.store.faults import StoreError
from supervisor.store.names import require_file_name, shown
from supervisor.store.parts import shard_names

SHOWN_MAX = 6
_BESIDE = re.compile(r"[^/]+\.(json|safetensors|tiktoken|jinja)|tokenizer\.model|merges\.txt|vocab\.txt")


@dataclass(frozen=True, slots=True)
class Listed:
    """One file as the hub lists it: bytes, and its sha256 where it is in large file storage, else its id in git."""

    path: str
    size: int
    sha256: str | None
    git_id: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The files to fetch and the names that they get; `entry_file` is given to an engine, None: the whole folder."""

    files: tuple[tuple[Listed, str], ...]
    entry_file: str | None


def choose_files(listing: Sequence[Listed], file: str | None) -> Choice:
    """The model of a repository. Raises StoreError."""
    by_path = {each.path: each for each in listing}
    if file is not None:
        if file not in by_path:
            raise StoreError(f"the repository has no file {shown(file)}", _names_of(by_path))
        return _one_file(by_path, file)
    ggufs = [path for path in by_path if path.endswith(".gguf")]
    heads = [path for path in ggufs if _is_head(path)]
    if len(heads) == 1:
        return _one_file(by_path, heads[0])
    if heads:
        raise StoreError(f"the repository has {len(heads)} models in it", f"choose with `--file`: {_some(heads)}")
    chosen = [each for each in listing if _BESIDE.fullmatch(each.path)]
    if not any(each.path.endswith(".safetensors") for each in chosen):
        raise StoreError("the repository has neither a GGUF nor safetensors in it", "name another, or a `--file`")
    if len(chosen) > FILES_MAX:
        raise StoreError(f"the model has {len(chosen)} files, and at most {FILES_MAX} are possible")
    return Choice(tuple((each, require_file_name(each.path)) for each in chosen), None)


def _one_file(by_path: dict[str, Listed], path: str) -> Choice:
    """A file and its shards lie side by side in the store, whatever folder they are in at the hub."""
    folder, slash, name = path.rpartition("/")
    wanted = [f"{folder}{slash}{each}" for each in shard_names(name)]
    if missing := [each for each in wanted if each not in by_path]:
        raise StoreError(f"the repository lacks {len(missing)} of {len(wanted)} shards of that model", "name another")
    files = tuple((by_path[each], require_file_name(each).rpartition("/")[2]) for each in wanted)
    return Choice(files, files[0][1])


def _is_head(path: str) -> bool:
    """Whether a GGUF stands for a model: it is no shard, or the first one of its set."""
    names = shard_names(path.rpartition("/")[2])
    return path.endswith(names[0])


def _names_of(by_path: dict[str, Listed]) -> str:
    return f"it has {_some(list(by_path))}" if by_path else "it is empty"


def _some(paths: list[str]) -> str:
    named = ", ".join(shown(path) for path in paths[:SHOWN_MAX])
    return named + (f" and {len(paths) - SHOWN_MAX} more" if len(paths) > SHOWN_MAX else "")
