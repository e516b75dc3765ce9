"""Files that are followed: taken up when they change, once; a bad one leaves a cause and is tried until it is good."""

import errno
import logging
from pathlib import Path

import pytest

from supervisor.runtime.followed_files import FollowedFiles, Source


class Words:
    """What a file says; a file with the word `bad` cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.word = ""
        self.reads = 0
        self.failures = 0

    def take_up(self) -> None:
        self.reads += 1
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "no descriptor")
        text = self.path.read_text()
        if text == "bad":
            raise ValueError("it is bad")
        self.word = text


@pytest.fixture
def words(tmp_path: Path) -> Words:
    words = Words(tmp_path / "word")
    words.path.write_text("one")
    return words


def follow(words: Words) -> FollowedFiles:
    return FollowedFiles([Source("words", (words.path,), words.take_up, (ValueError, OSError))])


@pytest.fixture
async def files(words: Words) -> FollowedFiles:
    """The first look is over."""
    files = follow(words)
    await files.look()
    return files


async def test_what_changed_after_it_was_read_and_before_it_was_followed_is_noticed(words: Words) -> None:
    words.take_up()
    words.path.write_text("revoked")
    await follow(words).look()

    assert words.word == "revoked"


async def test_a_file_is_read_again_when_it_changed_and_only_then(words: Words, files: FollowedFiles) -> None:
    await files.look()
    words.path.write_text("two")
    await files.look()
    await files.look()

    assert (words.word, words.reads) == ("two", 2)


async def test_a_bad_file_is_one_line_and_a_cause_until_it_is_mended(
    words: Words, files: FollowedFiles, caplog: pytest.LogCaptureFixture
) -> None:
    words.path.write_text("bad")
    with caplog.at_level(logging.INFO, "orchctl"):
        for _ in range(3):
            await files.look()
        while_bad = (words.word, files.causes)
        words.path.write_text("three")
        await files.look()

    assert while_bad == ("one", ("words: the former stays in force, because it is bad",))
    assert (words.word, files.causes) == ("three", ())
    assert [(line.levelname, line.getMessage()) for line in caplog.records] == [
        ("ERROR", "file not taken up"),
        ("INFO", "file taken up"),
    ]


async def test_a_file_that_could_not_be_read_for_a_moment_is_taken_up_though_it_did_not_change(
    words: Words, files: FollowedFiles
) -> None:
    words.path.write_text("revoked")
    words.failures = 1
    await files.look()
    meanwhile = (words.word, len(files.causes))
    await files.look()

    assert meanwhile == ("one", 1)
    assert (words.word, files.causes) == ("revoked", ())


async def test_a_file_that_goes_and_comes_back_is_noticed_both_times(words: Words, files: FollowedFiles) -> None:
    words.path.unlink()
    await files.look()
    gone = files.causes
    words.path.write_text("back")
    await files.look()

    assert len(gone) == 1
    assert (words.word, files.causes) == ("back", ())


async def test_a_change_of_the_mode_alone_is_a_change(words: Words, files: FollowedFiles) -> None:
    words.path.chmod(0o600)
    await files.look()

    assert words.reads == 2


async def test_a_forced_look_reads_what_did_not_change(words: Words, files: FollowedFiles) -> None:
    await files.look(is_forced=True)

    assert words.reads == 2


async def test_a_link_that_is_turned_to_another_file_is_a_change(words: Words, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(words.path)
    seen = Words(link)
    files = FollowedFiles([Source("words", (link,), seen.take_up, (OSError,))])
    (tmp_path / "other").write_text("other")
    await files.look()

    link.unlink()
    link.symlink_to(tmp_path / "other")
    await files.look()

    assert seen.word == "other"
