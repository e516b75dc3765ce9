"""Waits until a rollout is over, and says how it ended. Decides nothing else."""

from orchctl.client import Client
from orchctl.exits import ExitCode, VerbError
from orchctl.render import OutputKind, show
from orchctl.rollout_text import rollout_lines, standing_of
from orchctl.terminal import one_line, out_screen
from orchctl.waiting import wait_until_done
from supervisor.wire.rollouts import RolloutPage, RolloutStarted


def wait_for_revision(client: Client, pool: str, revision: int, timeout_ms: int) -> RolloutPage:
    """The pool once the revision serves, or a canary of it takes its share. Raises VerbError where it does not."""
    return wait_until_done(
        lambda: client.rollout(pool),
        lambda page: _is_done(page, revision),
        _standing,
        awaited=pool,
        late=lambda span: f"revision {revision} of {pool} took longer than {span}",
        again=f"look again with `orchctl rollout status {pool}`",
        timeout_ms=timeout_ms,
    )


def show_revision(client: Client, started: RolloutStarted, timeout_ms: int, output: OutputKind) -> None:
    """Wait for what was started, and show what the pool has come to."""
    page = wait_for_revision(client, started.pool_id, started.revision, timeout_ms)
    show(page, output, lambda: rollout_lines(page, out_screen()))


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
