"""A journal as a kill -9 left it, byte by byte: what stood on disk after each commit, to damage it anywhere and check.

It keeps its own memory of what was written, and judges what a restart restores by that alone.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from random import Random

from supervisor.runtime.journal.records import AcceptRecord, Durability, FinishRecord, Record, Restored
from supervisor.runtime.journal.store import Store
from tests.support.journals import a_finish, an_accept, an_attempt, finished_ids, unfinished_ids, what_is_left

COMMITS = 14
IN_FILE = 4
"""So many commits are in the file itself; the others are in the log alone."""
BODY_BYTES_MAX = 3_000
HEADER_BYTES = 32
FRAME_BYTES = 24 + 4096


@dataclass(frozen=True)
class Commit:
    """The length of the log after a commit, and the jobs that are accepted and those that have ended by then."""

    log_end: int
    accepted: frozenset[str]
    ended: frozenset[str]


class CrashedJournal:
    """Made once; each `restore_damaged` works on a copy."""

    def __init__(self, folder: Path) -> None:
        self.accepts: dict[str, AcceptRecord] = {}
        self.finishes: dict[str, FinishRecord] = {}
        self.commits: list[Commit] = []
        self._ended: set[str] = set()
        folder.mkdir(mode=0o700)
        path = folder / "journal"
        store, _ = Store.open(path, Durability.NORMAL)
        chance = Random(11)
        for number in range(COMMITS):
            store.commit(self._batch(chance, number))
            if number + 1 == IN_FILE:
                store.tidy()
            log_end = path.with_name("journal-wal").stat().st_size
            self.commits.append(Commit(log_end, frozenset(self.accepts), frozenset(self._ended)))
        self.file = path.read_bytes()
        self.log = path.with_name("journal-wal").read_bytes()
        store.close()

    def _batch(self, chance: Random, number: int) -> list[Record]:
        names = [f"job-{number}-{each}" for each in range(2)]
        batch: list[Record] = []
        for name in names:
            self.accepts[name] = an_accept(name, chance.randbytes(chance.randrange(BODY_BYTES_MAX)))
            batch += [self.accepts[name], an_attempt(name, 1)]
        if number % 2:
            old = f"job-{number - 1}-0"
            self.finishes[old] = a_finish(old, frames=chance.randbytes(500))
            self._ended.add(old)
            batch.append(self.finishes[old])
        return batch

    @property
    def last_commit_at(self) -> int:
        """Where the last commit begins in the log."""
        return self.commits[-2].log_end

    def restore_damaged(self, scratch: Path, *, file: bytes | None = None, log: bytes | None = None) -> Restored:
        """What a restart makes of it with this file or log in place of its own, twice: the second finds it mended."""
        scratch.mkdir(mode=0o700)
        (scratch / "journal").write_bytes(self.file if file is None else file)
        (scratch / "journal-wal").write_bytes(self.log if log is None else log)
        restored = what_is_left(scratch)
        again = what_is_left(scratch)
        assert again.damage is None
        assert unfinished_ids(again) == unfinished_ids(restored)
        assert finished_ids(again) == finished_ids(restored)
        if restored.damage is not None:
            assert (scratch / restored.damage.quarantined).exists()
        shutil.rmtree(scratch)
        return restored

    def check_log_damage(self, restored: Restored, at: int, *, is_cut: bool) -> None:
        """Nothing is lost before the damage at byte `at` of the log, nothing made up, and a loss is not silent.

        What the last commit loses cannot be told from a kill in the middle of it; nor can a log that was cut.
        """
        self.check_intact(restored)
        unfinished, finished = set(unfinished_ids(restored)), set(finished_ids(restored))
        before = [commit for commit in self.commits if commit.log_end <= at or commit is self.commits[IN_FILE - 1]]
        assert before[-1].accepted <= unfinished | finished, at
        assert before[-1].ended <= finished, at
        is_all_there = self.commits[-1].accepted <= unfinished | finished and self.commits[-1].ended <= finished
        assert is_all_there or is_cut or at >= self.last_commit_at or restored.damage is not None, at

    def check_intact(self, restored: Restored) -> None:
        """Each task once, as it was written."""
        ids = unfinished_ids(restored) + finished_ids(restored)
        assert len(ids) == len(set(ids))
        assert all(task.accept == self.accepts[task.accept.job_id] for task in restored.unfinished)
        assert all(task.finish == self.finishes[task.finish.job_id] for task in restored.finished)


def flipped(content: bytes, at: int) -> bytes:
    """One byte of it changed."""
    return content[:at] + bytes([content[at] ^ 0x5A]) + content[at + 1 :]
