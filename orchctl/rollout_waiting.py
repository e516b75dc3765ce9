"""Waits until a rollout is over, and says how it ended. Decides nothing else."""

import time

from orchctl.client import Client
from orchctl.durations import spoken
from orchctl.exits import ExitCode, VerbError
from orchctl.progress import WaitingLine
from orchctl.rollout_text import standing_of
from orchctl.terminal import err_screen, one_line
from supervisor.wire.rollouts import RolloutPage

LOOK_S = 0.2
"""Between two looks at the pool."""


def wait_for_revision(client: Client, pool: str, revision: int, timeout_ms: int) -> RolloutPage:
    """The pool once the revision serves, or a canary of it takes its share. Raises VerbError where it does not."""
    until_s = time.monotonic() + timeout_ms / 1_000
    page = client.rollout(pool)
    words = [_standing(page)]
    with WaitingLine(err_screen(), lambda: f"waiting for {pool}: {words[0]}"):
        while not _is_done(page, revision):
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                cause = f"revision {revision} of {pool} took longer than {spoken(timeout_ms)} ({words[0]})"
                raise VerbError(ExitCode.FAILED, cause, f"look again with `orchctl rollout status {pool}`")
            time.sleep(min(LOOK_S, left_s))
            page = client.rollout(pool)
            words[0] = _standing(page)
    return page


def _is_done(page: RolloutPage, revision: int) -> bool:
    """It serves; or it failed, which is raised."""
    ongoing = page.rollout
    if ongoing is not None and ongoing.to_revision == revision:
        return ongoing.kind == "canary" and ongoing.state == "sharing"
    if page.revision == revision:
        return True
    notes = [note for note in page.history if note.revision == revision]
    if ongoing is None and notes:
        cause = notes[0].cause or "see its history"
        failed = f"revision {revision} of {page.pool_id} {notes[0].outcome}: {one_line(cause)}"
        raise VerbError(
            ExitCode.FAILED,
            f"{failed}; revision {page.revision} serves",
            f"see `orchctl rollout history {page.pool_id}`",
        )
    return False


def _standing(page: RolloutPage) -> str:
    return standing_of(page.rollout) if page.rollout is not None else f"revision {page.revision} serves"
