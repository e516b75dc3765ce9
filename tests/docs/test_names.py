"""Every verb, option, route, path and target that a page names is there."""

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from orchctl.verbs import VERBS
from supervisor.http.routes import ROUTES

ROOT = Path(__file__).parents[2]
TEXTS = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"])
PAGES = [*TEXTS, *sorted((ROOT / "examples").glob("*.yaml"))]
SOURCES = sorted([*(ROOT / "orchctl").rglob("*.py"), *(ROOT / "supervisor").rglob("*.py")])
_BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`")
_INDENTED = re.compile(r"^(?:    |#   )((?!#)\S.*)$", re.MULTILINE)
_COMMAND = re.compile(r"(?:^|[\s(/])(?<!-u )orchctl((?: +[^\s#|&;)]+)+)")
_ROUTE = re.compile(r"\b(GET|POST|DELETE) (/[\w/.:{}-]*)")
_PATH = re.compile(r"^(?:docs|examples|systemd|tests|supervisor|orchctl|adapters|bench|tools)/[\w./-]+$")
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
# What programs make here is not there in a fresh clone; a page may name it.
MADE_LATER = {line.lstrip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()}
GLOBAL = {"--socket", "--version", "--help", "-h"}


def codes(page: Path) -> list[str]:
    """What a page sets as code: blocks line by line, spans, and the commands in the head of an example."""
    text = page.read_text(encoding="utf-8")
    blocks = [line for block in _BLOCK.findall(text) for line in block.splitlines()]
    rest = _BLOCK.sub("", text)
    return [*blocks, *_SPAN.findall(rest.replace("\n", " ")), *_INDENTED.findall(rest)]


def words_of(line: str) -> list[str]:
    """The words of a command, without what may be left out being marked, and without the command of a lease."""
    text = re.sub(r"\\?\||[\[\]]|\.\.\.", " ", line)
    try:
        words = shlex.split(text)
    except ValueError:  # a quotation that goes on elsewhere
        words = text.split()
    return words[: words.index("--")] if "--" in words else words


def commands(code: str) -> Iterator[list[str]]:
    """The words after each `orchctl` of one line of code, its own options and their values left out."""
    for found in _COMMAND.finditer(code):
        words = words_of(found[1])
        while words and words[0].startswith("-"):
            words = words[2:] if words[0] == "--socket" else words[1:]
        if words and words[0].islower():
            yield words


def actions_of(verb: str) -> dict[str, set[str]]:
    """The options of a verb, or of each of its actions."""
    module = importlib.import_module(f"orchctl.commands.{verb}")
    functions = getattr(module, "ACTIONS", {"": getattr(module, verb, None)})
    return {name: options_of(function) for name, function in functions.items()}


def options_of(function: object) -> set[str]:
    application = typer.Typer(add_completion=False)
    application.command()(function)  # type: ignore[type-var]
    named = (parameter for parameter in typer.main.get_command(application).params)
    return {option for parameter in named for option in (*parameter.opts, *parameter.secondary_opts)}


GRAMMAR = {verb: actions_of(verb) for verb in VERBS}


def complaints(words: list[str]) -> Iterator[str]:
    """What of a command is not there."""
    verb, *rest = words
    if verb not in GRAMMAR:
        yield f"no verb {verb}"
        return
    actions, options = GRAMMAR[verb], GLOBAL.union(*GRAMMAR[verb].values())
    if "" not in actions and rest and rest[0].islower():
        if rest[0] not in actions:
            yield f"no action {verb} {rest[0]}"
            return
        options = GLOBAL | actions[rest[0]]
    for word in rest:
        option = word.partition("=")[0]
        if option.startswith("-") and re.match(r"--?[a-z]", option) and option not in options:
            yield f"no option {option} of {verb}"


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_every_command_on_a_page_can_be_typed(page: Path) -> None:
    wrong = {complaint: code for code in codes(page) for words in commands(code) for complaint in complaints(words)}

    assert wrong == {}


def test_every_next_step_that_the_program_names_can_be_typed() -> None:
    """What stands in backticks in its own sentences; what is filled in at run time stands for any word."""
    wrong: dict[tuple[str, str], str] = {}
    for source in SOURCES:
        for code in _SPAN.findall(source.read_text(encoding="utf-8")):
            filled = re.sub(r"\{[^}]*\}", " WORD", code)
            wrong |= {(source.name, complaint): code for words in commands(filled) for complaint in complaints(words)}

    assert wrong == {}


def test_the_table_of_verbs_has_every_verb_with_options_that_it_has() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    rows = [row for row in re.findall(r"^\| (`.*) \|", text, re.MULTILINE) if row[1:2].islower()]
    table = [words_of(span) for row in rows for span in _SPAN.findall(re.split(r"(?<!\\)\| ", row)[0])]
    of_verbs = [words for words in table if words[0] in VERBS]

    assert {words[0] for words in of_verbs} == set(VERBS)
    assert [complaint for words in of_verbs for complaint in complaints(words)] == []


@pytest.mark.parametrize("page", TEXTS, ids=[page.name for page in TEXTS])
def test_every_route_path_link_and_target_on_a_page_is_there(page: Path) -> None:
    spans = codes(page)
    routes = {(method, path.rstrip(".:")) for span in spans for method, path in _ROUTE.findall(span)}
    paths = {span for span in spans if _PATH.match(span) and not any(sign in span for sign in "*{<")}
    links = set(_LINK.findall(page.read_text(encoding="utf-8")))
    targets = {word for span in spans for word in re.findall(r"^make ([a-z-]+)", span)}

    assert {route for route in routes if not is_route(*route)} == set()
    assert {path for path in paths if path not in MADE_LATER and not (ROOT / path).exists()} == set()
    assert {link for link in links if not (page.parent / link).exists()} == set()
    assert {target for target in targets if not re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)} == set()


def is_route(method: str, path: str) -> bool:
    """Whether it is in the table; `{id}`, `:id` and an id itself are the same."""

    def fits(pattern: str) -> bool:
        pairs = list(zip(pattern.split("/"), path.split("/"), strict=False))
        return pattern.count("/") == path.count("/") and all(each == "{id}" or each == given for each, given in pairs)

    return any(route.method == method and fits(route.path) for route in ROUTES)


@pytest.mark.parametrize("words", ["restart", "drain small --by-force", "rollout undo small"])
def test_what_is_not_there_is_found(words: str) -> None:
    assert [complaint for each in commands(f"orchctl {words}") for complaint in complaints(each)] != []


def test_a_route_that_is_not_there_is_found() -> None:
    assert [is_route(*route) for route in (("GET", "/v1/pools"), ("POST", "/v1/status"), ("GET", "/v1/status"))] == [
        False,
        False,
        True,
    ]
