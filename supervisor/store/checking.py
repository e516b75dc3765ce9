"""Reads the models of a store again and says which are no longer what they were. Changes nothing."""

import os
from pathlib import Path

from supervisor.config.catalogue import Entry
from supervisor.store.digests import model_digest, read_sha256
from supervisor.store.flight import Progress, Tell
from supervisor.store.parts import open_model


def find_damage(entry: Entry, root: Path, tell: Tell) -> str | None:
    """What is wrong with a model, None where every byte of it is as it was. Reads all of it."""
    done = 0

    def note(count: int) -> None:
        nonlocal done
        done += count
        tell(Progress("checking", done, entry.size))

    found: dict[str, str] = {}
    try:
        with open_model(root / entry.place, root) as parts:
            for part in parts:
                found[part.name] = read_sha256(part.fd, note)
    except OSError as error:
        return f"{os.fsdecode(error.filename or entry.place)}: {error.strerror}"
    for file in entry.files:
        if found.get(file.path) not in {None, file.sha256}:
            return f"{file.path} is not what it was"
    if model_digest(found.items()) != entry.digest:
        return "its files are not those that it had"
    return None
