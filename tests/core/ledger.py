"""What callers were promised and saw, over all daemons; and how a broken promise is said."""

from dataclasses import dataclass, field

from supervisor.core.tasks import Outcome


class BrokenPromiseError(AssertionError):
    """The core did what it must never do."""


def demand(*, that: bool, sentence: str) -> None:
    """Raise BrokenPromiseError with this sentence unless it is so."""
    if not that:
        raise BrokenPromiseError(sentence)


@dataclass
class Ledger:
    """Acks and terminal frames. It outlives daemons.

    `acked` maps task ids to the job ids of their acks. `unproven` are jobs whose end was shown while the disk could not
    take it: only these may end again, under another daemon.
    """

    acked: dict[str, str] = field(default_factory=dict)
    ends: dict[str, Outcome] = field(default_factory=dict)
    unproven: set[str] = field(default_factory=set)

    def ack(self, task_id: str, job_id: str) -> None:
        first = self.acked.setdefault(task_id, job_id)
        demand(that=first == job_id, sentence=f"{task_id} was acked as {first} and as {job_id}")

    def end(self, job_id: str, outcome: Outcome) -> None:
        is_first = job_id not in self.ends or job_id in self.unproven
        demand(that=is_first, sentence=f"{job_id} ended twice: {self.ends.get(job_id)} and {outcome}")
        self.ends[job_id] = outcome

    def forget(self, job_ids: tuple[str, ...]) -> None:
        """Their ids may be used again."""
        for job_id in job_ids:
            demand(that=job_id in self.ends, sentence=f"{job_id} is forgotten and never ended")
        self.acked = {task_id: job_id for task_id, job_id in self.acked.items() if job_id not in job_ids}

    def unended(self) -> list[str]:
        return [job_id for job_id in self.acked.values() if job_id not in self.ends]
