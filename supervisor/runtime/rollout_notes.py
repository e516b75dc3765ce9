"""What the log says about revisions of pools: one line for each step. Decides nothing."""

import logging

from supervisor.core.effects import ForgetWorker, MeasureParity, NoteRollout

log = logging.getLogger("orchctl")


def note_rollout(effect: NoteRollout) -> None:
    """A revision came further (ORCH-3031, ORCH-3033)."""
    fields = {
        "pool_id": effect.pool_id,
        "revision": effect.revision,
        "kind": effect.kind,
        "outcome": effect.outcome,
        "cause": effect.cause,
    }
    log.info("rollout", extra=fields)


def note_forgotten(effect: ForgetWorker) -> None:
    """A worker is gone for good."""
    log.info("worker forgotten", extra={"worker": effect.key})


def note_parity(effect: MeasureParity) -> None:
    """Two revisions are to be compared."""
    log.info("parity asked for", extra={"pool_id": effect.pool_id, "old": effect.old_key, "new": effect.new_key})
