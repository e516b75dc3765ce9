"""How a reply is printed: as text for a person, as JSON or as YAML. Decides nothing about what the reply means."""

import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated

import msgspec
import typer


class OutputKind(StrEnum):
    """The values of `-o`."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"

    @property
    def is_for_programs(self) -> bool:
        """JSON and YAML: standard output then holds nothing else."""
        return self in (OutputKind.JSON, OutputKind.YAML)


Output = Annotated[OutputKind, typer.Option("-o", "--output", help="How to print it.")]

Wait = Annotated[bool, typer.Option("--wait", help="Come back only when it is done.")]


def show(reply: object, kind: OutputKind, text: Callable[[], Sequence[str]]) -> None:
    """Print one reply, complete; `text` gives its lines for a person."""
    if kind is OutputKind.JSON:
        print_document(json_text(reply))
    elif kind is OutputKind.YAML:
        print_document(yaml_text(reply))
    else:
        print_document("".join(f"{line}\n" for line in text()))


def print_document(text: str) -> None:
    """To standard output, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def say(text: str) -> None:
    """A remark to standard error, so that standard output stays clean."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def json_text(reply: object) -> str:
    """Indented JSON with a line feed at its end."""
    return msgspec.json.format(msgspec.json.encode(reply), indent=2).decode() + "\n"


def json_line(reply: object) -> str:
    """One JSON document on one line."""
    return msgspec.json.encode(reply).decode() + "\n"


def yaml_text(reply: object) -> str:
    """YAML in the order of the fields."""
    import yaml  # noqa: PLC0415  (only `-o yaml` pays for it)

    return str(yaml.safe_dump(msgspec.to_builtins(reply), sort_keys=False, allow_unicode=True))
