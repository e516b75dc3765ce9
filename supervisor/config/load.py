"""From a file to a `Config`: read, parse, validate, and say everything that is wrong at once, with line and pointer.

The only way a config comes into the daemon. It does not look whether model files, engines or devices are there.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from supervisor.config.advice import find_warnings
from supervisor.config.agreement import find_disagreements
from supervisor.config.document import Document, Value, parse_document
from supervisor.config.explain import UNKNOWN_KEY, describe, find_errors, loc_of
from supervisor.config.model import Config, Mode
from supervisor.config.models import ModelFile
from supervisor.config.nodes import DocumentError
from supervisor.config.problems import ConfigError, Loc, Place, Problem, pointer_of
from supervisor.config.source import read_text


@dataclass(frozen=True, slots=True)
class Loaded:
    """A config that can be used. `warnings` read like `ConfigError`; `source` is absolute, `text` is what was read."""

    config: Config
    warnings: list[str]
    source: Path
    text: str = ""


Catalogued = Callable[[Config], Mapping[str, ModelFile]]
"""What the store of a config holds, by reference."""


def load(path: Path, catalogued: Catalogued | None = None) -> Loaded:
    """Read and validate a config file. Raises ConfigError with every problem found; never waits for the file."""
    source = path.absolute()
    return parse(read_text(source), source, catalogued)


def parse(text: str, source: Path, catalogued: Catalogued | None = None) -> Loaded:
    """Validate the text of a config. `source` names it in messages; relative paths start at its folder."""
    file = str(source)
    document = _document(text, file)
    config, unknown = _validate(document, source)
    if catalogued is not None:
        config = _with_catalogue(config, catalogued(config), document, file)
    advice = [_problem(file, document.place_of(each.loc), each.loc, each.message) for each in find_warnings(config)]
    return Loaded(config, [str(problem) for problem in _in_order([*unknown, *advice])], source, text)


def _document(text: str, file: str) -> Document:
    try:
        document = parse_document(text)
    except DocumentError as error:
        raise ConfigError([_problem(file, error.place, error.loc, error.message)]) from error
    if document.value is None:
        raise ConfigError([Problem(file, 1, 1, "", "the file says nothing; `pools:` is required")])
    if not isinstance(document.value, dict):
        raise ConfigError([Problem(file, 1, 1, "", "should be a mapping that begins with `pools:`")])
    return document


def _validate(document: Document, source: Path) -> tuple[Config, list[Problem]]:
    """The config and, in compat mode, the unknown keys that were left out of it."""
    context = {"base": source.parent.resolve()}
    try:
        return Config.model_validate(document.value, context=context), []
    except ValidationError as error:
        errors = find_errors(error)
    tolerated = UNKNOWN_KEY if _is_compat(document) else None
    fatal = [each for each in errors if each["type"] != tolerated]
    if fatal:
        raise ConfigError(_in_order(describe(each, document, str(source)) for each in fatal))
    kept = _without(document.value, {loc_of(each) for each in errors}, ())
    config, further = _validate(Document(kept, document.keys, document.values), source)
    return config, [*(describe(each, document, str(source)) for each in errors), *further]


def _with_catalogue(config: Config, models: Mapping[str, ModelFile], document: Document, file: str) -> Config:
    """The config that knows these models too; what must agree inside a replica set is looked at once more."""
    known = config.with_catalogue(models)
    if findings := find_disagreements(known.pools, known.models):
        raise ConfigError(
            _in_order(_problem(file, document.place_of(each.loc), each.loc, each.message) for each in findings)
        )
    return known


def _is_compat(document: Document) -> bool:
    return isinstance(document.value, dict) and document.value.get("mode") == Mode.COMPAT


def _without(value: Value, unknown: set[Loc], loc: Loc) -> Value:
    if isinstance(value, list):
        return [_without(item, unknown, (*loc, index)) for index, item in enumerate(value)]
    if isinstance(value, dict):
        return {key: _without(each, unknown, (*loc, key)) for key, each in value.items() if (*loc, key) not in unknown}
    return value


def _problem(file: str, place: Place, loc: Loc, message: str) -> Problem:
    return Problem(file, place.line, place.column, pointer_of(loc), message)


def _in_order(problems: Iterable[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: (problem.line, problem.column))
