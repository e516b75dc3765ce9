import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from supervisor.runtime.progress import RECORDS_MIN, Delivered, ProgressTable, digest_of
from supervisor.wire.frames import token_frame

HEADER = 4096
RECORD = 128
BOOT_ID_AT = 16
PROJECT = Path(__file__).parents[2]


def a_job(number: int) -> str:
    return str(uuid.UUID(int=number + 1))


def text_of(tokens: int) -> bytes:
    return b"".join(token_frame(f" {index}", index) for index in range(tokens))


def reopened(path: Path, slots: int = 1) -> dict[str, Delivered]:
    table = ProgressTable.open(path, slots)
    found = table.found
    table.close()
    return found


def a_table_left_by_a_crash(path: Path, *tokens: int) -> None:
    """Job k was given `tokens[k]` tokens, one at a time."""
    table = ProgressTable.open(path, 1)
    for number, count in enumerate(tokens):
        track = table.claim(a_job(number), 1, is_fresh=True)
        assert track is not None
        for index in range(count):
            track.advance(index + 1, token_frame(f" {index}", index))
    table.close()


def test_the_next_daemon_finds_what_was_delivered(tmp_path: Path) -> None:
    a_table_left_by_a_crash(tmp_path / "p", 0, 1, 7)

    found = reopened(tmp_path / "p")

    assert found == {
        a_job(number): Delivered(attempt=1, daemons=1, tokens=count, digest=digest_of(text_of(count)))
        for number, count in enumerate((0, 1, 7))
    }
    assert (tmp_path / "p").stat().st_mode & 0o777 == 0o600


def test_the_digest_does_not_depend_on_the_batches(tmp_path: Path) -> None:
    table = ProgressTable.open(tmp_path / "p", 1)
    track = table.claim(a_job(0), 1, is_fresh=True)
    assert track is not None
    track.advance(5, text_of(5))
    table.close()

    assert reopened(tmp_path / "p")[a_job(0)].digest == digest_of(text_of(5))


def test_a_run_that_begins_again_keeps_what_was_delivered_and_counts_daemons(tmp_path: Path) -> None:
    a_table_left_by_a_crash(tmp_path / "p", 3)
    for attempt in (2, 3):
        table = ProgressTable.open(tmp_path / "p", 1)
        table.claim(a_job(0), attempt, is_fresh=False)
        table.close()

    found = reopened(tmp_path / "p")

    assert found[a_job(0)] == Delivered(attempt=3, daemons=3, tokens=3, digest=digest_of(text_of(3)))


def test_what_has_ended_is_forgotten(tmp_path: Path) -> None:
    a_table_left_by_a_crash(tmp_path / "p", 3, 4, 5)
    table = ProgressTable.open(tmp_path / "p", 1)
    table.claim(a_job(0), 2, is_fresh=False)
    table.keep_only({a_job(0), a_job(1)})
    table.release(a_job(0))
    table.release("unknown")
    table.close()

    assert list(reopened(tmp_path / "p")) == [a_job(1)]


def test_records_are_bounded_and_used_again(tmp_path: Path) -> None:
    table = ProgressTable.open(tmp_path / "p", 1)
    size = (tmp_path / "p").stat().st_size
    taken = [table.claim(a_job(number), 1, is_fresh=True) for number in range(RECORDS_MIN)]

    refused = table.claim(a_job(RECORDS_MIN), 1, is_fresh=True)
    table.release(a_job(5))
    again = table.claim(a_job(RECORDS_MIN), 1, is_fresh=True)

    assert all(taken)
    assert refused is None
    assert table.untracked_total == 1
    assert again is not None
    assert size == HEADER + RECORDS_MIN * RECORD
    table.close()


def test_a_stream_that_is_under_way_gets_no_new_record(tmp_path: Path) -> None:
    table = ProgressTable.open(tmp_path / "p", 1)

    assert table.claim(a_job(0), 2, is_fresh=False) is None
    table.close()


def test_a_torn_copy_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "p"
    a_table_left_by_a_crash(path, 6)
    content = path.read_bytes()
    place = next(at for at in range(HEADER, len(content), RECORD) if content[at : at + RECORD].strip(b"\0"))

    for at in range(place, place + RECORD):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        found = reopened(path)[a_job(0)]

        assert found.tokens in (5, 6)
        assert found.digest == digest_of(text_of(found.tokens))


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"\xff" * 10_000, b"orchctl progress" + b"\xff" * 200_000, os.urandom(300_000), b"\0" * 20_000_000],
    ids=["empty", "short", "noise", "magic", "random", "large"],
)
def test_garbage_is_an_empty_table(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "p"
    path.write_bytes(content)

    assert reopened(path) == {}
    a_table_left_by_a_crash(path, 2)
    assert reopened(path)[a_job(0)].tokens == 2
    assert path.stat().st_size < 10_000_000


def test_after_a_reboot_a_count_is_a_lower_bound_and_nothing_delivered_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "p"
    a_table_left_by_a_crash(path, 0, 3)
    with path.open("r+b") as file:
        file.seek(BOOT_ID_AT)
        file.write(uuid.uuid4().bytes)

    found = reopened(path)

    assert list(found) == [a_job(1)]
    assert found[a_job(1)].tokens == 3


def test_where_there_is_no_file_to_be_had_the_daemon_goes_on_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "p").symlink_to(tmp_path / "elsewhere")
    table = ProgressTable.open(tmp_path / "p", 1)
    track = table.claim(a_job(0), 1, is_fresh=True)
    assert track is not None
    track.advance(1, text_of(1))
    table.close()

    assert "not remembered" in caplog.text
    assert not (tmp_path / "elsewhere").exists()


WRITER = """
import sys
from pathlib import Path
from supervisor.runtime.progress import ProgressTable
from supervisor.wire.frames import token_frame
table = ProgressTable.open(Path(sys.argv[1]), 1)
track = table.claim(sys.argv[2], 1, is_fresh=True)
for index in range(10_000_000):
    track.advance(index + 1, token_frame(f" {index}", index))
    sys.stdout.write(f"{index + 1}\\n")
    sys.stdout.flush()
"""


@pytest.mark.parametrize("kill_after", [1, 2, 3, 50, 777])
def test_a_kill_at_any_moment_leaves_no_less_than_was_delivered(tmp_path: Path, kill_after: int) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "p"), a_job(0)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(kill_after)]
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.readlines()
    delivered = [int(line) for line in lines if line.endswith("\n")]

    found = reopened(tmp_path / "p")[a_job(0)]

    assert delivered[-1] <= found.tokens <= delivered[-1] + 1
    assert found.digest == digest_of(text_of(found.tokens))


def test_the_table_of_a_living_daemon_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "p"
    living = ProgressTable.open(path, 1)
    track = living.claim(a_job(0), 1, is_fresh=True)
    assert track is not None
    track.advance(3, text_of(3))

    second = ProgressTable.open(path, 1)
    second.keep_only([])

    assert second.found == {}
    second.close()
    living.close()
    assert reopened(path)[a_job(0)].tokens == 3
