"""The log file of an engine that keeps writing to it."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.runtime.engine_logs import Rotated, numbered, open_log, rotate_if_needed, tail, write_mark
from supervisor.runtime.private_files import UnsafeStateError


def _write(path: Path, data: bytes) -> None:
    fd = open_log(path)
    os.write(fd, data)
    os.close(fd)


def test_a_log_is_private_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "pool.log"
    _write(path, b"first\n")
    _write(path, b"second\n")

    assert path.read_bytes() == b"first\nsecond\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_in_the_place_of_a_log_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "pool.log").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(UnsafeStateError):
        open_log(tmp_path / "pool.log")
    assert not (tmp_path / "elsewhere").exists()


def test_the_tail_of_a_run_has_nothing_of_the_runs_before(tmp_path: Path) -> None:
    fd = open_log(tmp_path / "pool.log")
    write_mark(fd, "a1")
    os.write(fd, b"CUDA error: out of memory\n")
    write_mark(fd, "b2")
    os.write(fd, b"error: invalid argument: --no-such-flag\n")
    os.close(fd)

    assert tail(tmp_path / "pool.log", run="b2") == "error: invalid argument: --no-such-flag\n"
    assert "out of memory" in tail(tmp_path / "pool.log")
    assert "out of memory" in tail(tmp_path / "pool.log", run="gone with an old file")


def test_a_long_log_is_read_from_its_end_in_whole_lines(tmp_path: Path) -> None:
    _write(tmp_path / "pool.log", b"".join(b"line %04d\n" % number for number in range(1000)))

    assert tail(tmp_path / "pool.log", bytes_max=25) == "line 0998\nline 0999\n"


def test_one_line_longer_than_the_window_is_cut_and_not_dropped(tmp_path: Path) -> None:
    _write(tmp_path / "pool.log", b"x" * 1000)

    assert tail(tmp_path / "pool.log", bytes_max=100) == "x" * 100


def test_no_log_is_no_text(tmp_path: Path) -> None:
    assert tail(tmp_path / "pool.log") == ""


def test_nothing_of_a_log_can_command_a_terminal(tmp_path: Path) -> None:
    _write(tmp_path / "pool.log", b"a\x1b[2Jb\xff\x07c\rd\r\ne\tf\xc2\x9b")

    assert tail(tmp_path / "pool.log") == "a\ufffd[2Jb\ufffd\ufffdc\ufffdd\ne\tf\ufffd"


@given(st.binary(max_size=300), st.integers(1, 400))
def test_any_bytes_make_printable_text(tmp_path_factory: pytest.TempPathFactory, data: bytes, bytes_max: int) -> None:
    path = tmp_path_factory.getbasetemp() / "any.log"
    path.write_bytes(data)

    text = tail(path, bytes_max=bytes_max)

    assert len(text) <= bytes_max
    assert all(char in "\n\t" or ord(char) >= 32 for char in text)


def test_rotation_keeps_the_newest_files_and_the_engine_writes_on(tmp_path: Path) -> None:
    path = tmp_path / "pool.log"
    engine = open_log(path)
    outcomes = []
    for letter in b"abcd":
        os.write(engine, bytes([letter]) * 200)
        outcomes.append(rotate_if_needed(path, bytes_max=150, files_keep=2))
    os.write(engine, b"still here")
    os.close(engine)

    assert outcomes == [Rotated(lost_bytes=50)] * 4
    assert path.read_bytes() == b"still here"
    assert numbered(path, 1).read_bytes() == b"d" * 150
    assert numbered(path, 2).read_bytes() == b"c" * 150
    assert {entry.name for entry in tmp_path.iterdir()} == {"pool.log", "pool.log.1", "pool.log.2"}
    assert numbered(path, 1).stat().st_mode & 0o777 == 0o600


def test_a_log_within_its_bound_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "pool.log"
    _write(path, b"x" * 150)

    assert rotate_if_needed(path, bytes_max=150, files_keep=2) is None
    assert rotate_if_needed(tmp_path / "none.log", bytes_max=150, files_keep=2) is None
    assert path.stat().st_size == 150
    assert not numbered(path, 1).exists()


def test_keeping_no_files_just_empties_the_log(tmp_path: Path) -> None:
    _write(tmp_path / "pool.log", b"x" * 200)

    assert rotate_if_needed(tmp_path / "pool.log", bytes_max=150, files_keep=0) == Rotated(lost_bytes=200)
    assert [entry.name for entry in tmp_path.iterdir()] == ["pool.log"]


def test_without_room_for_a_copy_the_log_is_emptied_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "pool.log"
    _write(path, b"x" * 200)
    (tmp_path / "pool.log.new").mkdir()  # the copy cannot be made there

    assert rotate_if_needed(path, bytes_max=150, files_keep=2) == Rotated(lost_bytes=200)
    assert path.stat().st_size == 0
