"""A file that is no config is refused at once, whatever it is: nothing hangs, is constructed or explodes."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.config.load import load
from supervisor.config.nodes import DEPTH_MAX, NODES_MAX
from supervisor.config.problems import ConfigError, Problem
from supervisor.config.source import FILE_BYTES_MAX
from tests.config.texts import a_config, a_pool, problems_of

pytestmark = pytest.mark.orch("ORCH-3030")


def refusal_of(path: Path) -> Problem:
    """The one problem of a file."""
    with pytest.raises(ConfigError) as caught:
        load(path)
    [problem] = caught.value.problems
    return problem


def make_nothing(path: Path) -> None:
    assert not path.exists()


def make_directory(path: Path) -> None:
    path.mkdir()


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_endless_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def make_symlink_loop(path: Path) -> None:
    path.symlink_to(path)


def make_huge_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 * 1024 * 1024)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (make_nothing, "cannot be opened: No such file or directory"),
        (make_directory, "is not a regular file"),
        (make_fifo, "is not a regular file"),
        (make_endless_device, "is not a regular file"),
        (make_socket, "cannot be opened"),
        (make_symlink_loop, "cannot be opened"),
        (make_huge_file, f"is larger than {FILE_BYTES_MAX} bytes"),
    ],
)
def test_what_is_no_file_is_refused_without_waiting(
    tmp_path: Path, make: Callable[[Path], None], sentence: str
) -> None:
    path = tmp_path / "pools.yaml"
    make(path)

    problem = refusal_of(path)

    assert sentence in problem.message
    assert str(problem).startswith(f"{path}: ")


def test_a_fifo_is_refused_by_a_process_that_nobody_feeds(tmp_path: Path) -> None:
    path = tmp_path / "pools.yaml"
    os.mkfifo(path)
    code = "import sys, pathlib; from supervisor.config.load import load; load(pathlib.Path(sys.argv[1]))"

    result = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60, check=False)

    assert "is not a regular file" in result.stderr


@pytest.mark.parametrize(
    ("raw", "line", "column", "sentence"),
    [
        (b"", 1, 1, "says nothing"),
        (b"# only a comment\n", 1, 1, "says nothing"),
        (b"---\n", 1, 1, "says nothing"),
        (b"- pools\n", 1, 1, "should be a mapping"),
        (b"just words", 1, 1, "should be a mapping"),
        (b"pools:\n  - id: \xff\xfe\n", 2, 9, "is not UTF-8: byte 0xff"),
        ("pools: []".encode("utf-16"), 1, 1, "is not UTF-8"),
        (b"pools:\n  - id: a\x00\n", 2, 10, "character 0x00 is not allowed"),
        (b"pools:\n  - id: \x1b[31m\n", 2, 9, "character 0x1b is not allowed"),
        (b"pools:\n\t- id: a\n", 2, 1, "not valid YAML"),
        (b"pools: [\n", 2, 1, "not valid YAML"),
        (b"pools: 'a\n", 2, 1, "not valid YAML"),
        (b"a: b: c\n", 1, 5, "not valid YAML"),
        (b"pools: []\n---\npools: []\n", 2, 1, "only one YAML document"),
        (b"? [a]\n: b\n", 1, 3, "a key must be a plain text"),
        (b"\x7fELF\x02\x01\x01\x00", 1, 1, "not allowed"),
    ],
)
def test_text_that_is_no_config_is_refused_where_it_breaks(
    tmp_path: Path, raw: bytes, line: int, column: int, sentence: str
) -> None:
    path = tmp_path / "pools.yaml"
    path.write_bytes(raw)

    problem = refusal_of(path)

    assert (problem.line, problem.column) == (line, column)
    assert sentence in problem.message


@pytest.mark.parametrize(
    "tagged",
    ["!!python/object/apply:os.system ['touch /tmp/owned']", "!!python/name:os.system", "!!str a", "!own a", "! a"],
)
def test_no_tag_is_ever_obeyed(tagged: str) -> None:
    [problem] = problems_of(f"mode: strict\nstate_dir: {tagged}\n")

    assert (problem.line, problem.column, problem.pointer) == (2, 12, "/state_dir")
    assert "tags are not allowed" in problem.message


@pytest.mark.parametrize(
    ("text", "line", "pointer"),
    [
        ("mode: strict\npools: []\nmode: compat\n", 3, "/mode"),
        (a_config(a_pool("ctx: 1", "slots: 1", "ctx: 2")), 8, "/pools/0/ctx"),
        ("pools:\n  - { id: a, id: a }\n", 2, "/pools/0/id"),
    ],
)
def test_a_key_that_stands_twice_is_refused_at_the_second(text: str, line: int, pointer: str) -> None:
    [problem] = problems_of(text)

    assert (problem.line, problem.pointer) == (line, pointer)
    assert "duplicate key, first used on line" in problem.message


def laughs(join: str, first: str) -> str:
    """Nine values that each hold the one before nine times: 9**9 in the end."""
    more = [f"a{level}: &a{level} " + join % ", ".join([f"*a{level - 1}"] * 9) for level in range(1, 10)]
    return "\n".join([f"a0: &a0 {first}", *more]) + "\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (laughs("[%s]", "[lol]"), f"more than {NODES_MAX} values"),
        (laughs("{ <<: [%s] }", "{ lol: 1 }"), f"more than {NODES_MAX} values"),
        ("pools: [" + "a, " * (NODES_MAX + 1) + "]\n", f"more than {NODES_MAX} values"),
        ("pools: " + "[" * 50_000, f"nested more than {DEPTH_MAX} levels"),
        ("".join(f"a{n}: &a{n} [{f'*a{n - 1}' if n else 1}]\n" for n in range(99)), f"than {DEPTH_MAX} levels"),
        ("".join(f"a{n}: &a{n} {{ {f'<<: *a{n - 1}' if n else 'b: 1'} }}\n" for n in range(99)), "merges nest"),
        ("pools: &a [*a]\n", "no complete value is named &a"),
        ("pools: *a\n", "no complete value is named &a"),
        ("pools:\n  <<: 1\n", "takes a mapping"),
    ],
)
def test_a_bomb_of_aliases_or_brackets_is_refused(text: str, sentence: str) -> None:
    [problem] = problems_of(text)

    assert sentence in problem.message


def test_a_hostile_key_cannot_steer_the_terminal() -> None:
    [problem] = problems_of(a_config(tail='"\\e[2J\\nmode": strict\n'))

    assert str(problem).isprintable()


def test_an_error_of_many_problems_stays_readable() -> None:
    with pytest.raises(ConfigError) as caught:
        raise ConfigError([Problem("f", line, 1, "", "m") for line in range(1, 1000)])

    assert str(caught.value).splitlines()[-1] == "... and 949 more problems"
