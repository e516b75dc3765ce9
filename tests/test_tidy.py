"""The style of the house, enforced: sizes, names, and where broad excepts may stand."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = ("orchctl", "supervisor", "adapters", "tools", "examples", "bench")
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 50
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
# Task roots and request handlers: they log and change state (house rule 5).
BROAD_EXCEPTS = {
    "supervisor/runtime/lease_desk.py",
    "supervisor/runtime/parity.py",
    "supervisor/http/dispatch.py",
    "supervisor/runtime/loop.py",
    "supervisor/runtime/worker_hands.py",
    "supervisor/runtime/residency_watch.py",
    "supervisor/runtime/engine_http/pool.py",
    "supervisor/runtime/side_thread.py",
    "orchctl/app.py",
    "supervisor/runtime/journal/writer.py",
}


def sources() -> Iterator[Path]:
    for folder in SOURCES:
        yield from sorted((ROOT / folder).rglob("*.py"))


FILES = [pytest.param(path, id=str(path.relative_to(ROOT))) for path in sources()]


@pytest.mark.parametrize("path", FILES)
def test_a_file_is_one_concept_of_readable_size(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= FILE_LINES_MAX
    assert path.stem not in BANNED_NAMES


@pytest.mark.parametrize("path", FILES)
def test_a_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), "a module begins with a docstring"


@pytest.mark.parametrize("path", FILES)
def test_functions_fit_on_a_screen(path: Path) -> None:
    long = [
        f"{node.name} ({node.end_lineno - node.lineno + 1} lines)"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX
    ]

    assert long == []


@pytest.mark.parametrize("path", FILES)
def test_broad_excepts_stand_only_at_task_roots(path: Path) -> None:
    broad = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}))
        and not any(isinstance(each, ast.Raise) and each.exc is None for each in ast.walk(node))
    ]

    assert broad == [] or str(path.relative_to(ROOT)) in BROAD_EXCEPTS


def test_tests_neither_patch_nor_sleep() -> None:
    offenders = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if path != Path(__file__) and ("unittest.mock" in path.read_text() or "monkeypatch" in path.read_text())
    ]

    assert offenders == []


def test_the_core_decides_in_a_known_set_of_files() -> None:
    names = {path.stem for path in (ROOT / "supervisor" / "core").glob("*.py")}

    assert {"conductor", "lifecycle", "waitlist", "admission", "placement", "dispatch", "restart"} <= names
