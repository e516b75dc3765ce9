"""What is said about revisions, canaries and configurations. Pure; every word of the daemon goes through `one_line`."""

from collections.abc import Sequence

from orchctl.spans import spoken
from orchctl.table import Column, lay_out
from orchctl.terminal import Screen, Style, one_line
from supervisor.wire.rollouts import ConfigChange, ConfigReloaded, JudgementView, RevisionView, RolloutPage, RolloutView

_COSTS = {
    "hot": "at once",
    "replace": "new worker, then drain",
    "new_pool": "new pool",
    "removed_pool": "drain, then stop",
    "restart": "restart of the daemon",
}
_BAD = ("failed", "aborted")


def rollout_lines(page: RolloutPage, screen: Screen) -> list[str]:
    """A pool's revision, and what is under way."""
    head = f"{screen.paint(one_line(page.pool_id), Style.BOLD)}  revision {page.revision}, {one_line(page.model_ref)}"
    if page.standby is not None:
        head += f"; revision {page.standby} is loaded for a rollback"
    lines = [head]
    if page.rollout is None:
        return [*lines, "nothing is under way"]
    return [*lines, *progress_lines(page.rollout, screen)]


def progress_lines(rollout: RolloutView, screen: Screen) -> list[str]:
    """How far a rollout came: the new model, its steps, its figures."""
    lines = [f"{standing_of(rollout)} for {spoken(rollout.since_ms)}"]
    if rollout.cause is not None:
        lines.append(screen.paint(f"  {screen.signs.hook} {one_line(rollout.cause)}", Style.WARN))
    for step in rollout.steps:
        took = f"  {spoken(step.took_ms)}" if step.took_ms is not None else ""
        lines.append(f"  {one_line(step.state)}  {one_line(step.name)}{took}")
    for name, side in (("canary", rollout.canary), ("current", rollout.current)):
        if side is not None:
            lines.append(f"  {name:<8}{_figures(side)}")
    if rollout.parity is not None:
        lines.append(f"  parity  {rollout.parity.share:.0%} of the golden prompts alike")
    return lines


def standing_of(rollout: RolloutView) -> str:
    """A rollout in half a line."""
    share = f" with {rollout.percent:g} % of the sessions" if rollout.percent is not None else ""
    judged = ", judged" if rollout.judged else ""
    return one_line(
        f"{rollout.kind} to revision {rollout.to_revision}, {rollout.to_model}: {rollout.state}{share}{judged}"
    )


def history_lines(history: Sequence[RevisionView], screen: Screen) -> list[str]:
    """The newest first."""
    if not history:
        return ["no revision was ever changed here"]

    def style(row: int) -> tuple[Style, ...]:
        return (Style.BAD,) if history[row].outcome in _BAD else ()

    columns = [
        Column("REVISION", [str(each.revision) for each in history], is_number=True),
        Column("MODEL", [one_line(each.model_ref) for each in history], rank=2, may_shrink=True),
        Column("KIND", [one_line(each.kind) for each in history], rank=3),
        Column("OUTCOME", [one_line(each.outcome) for each in history], paint=style),
        Column("AGO", [spoken(each.age_ms) for each in history], rank=1),
        Column("CAUSE", [one_line(each.cause or "-") for each in history], rank=4, may_shrink=True),
    ]
    return lay_out(columns, screen)


def config_lines(reloaded: ConfigReloaded, screen: Screen) -> list[str]:
    """What changed, or would."""
    lines = [f"warning: {one_line(warning)}" for warning in reloaded.warnings]
    if not reloaded.changes:
        return [*lines, f"nothing differs: generation {reloaded.generation} stays in force"]
    columns = [
        Column("POOL", [one_line(change.pool_id or "-") for change in reloaded.changes], may_shrink=True),
        Column("KEY", [one_line(change.key or "-") for change in reloaded.changes]),
        Column("EFFECT", [_cost(change) for change in reloaded.changes]),
    ]
    verdict = "would be" if reloaded.dry_run else "is"
    return [*lines, *lay_out(columns, screen), f"generation {reloaded.generation} {verdict} in force"]


def _cost(change: ConfigChange) -> str:
    return _COSTS.get(change.effect, one_line(change.effect))


def _figures(side: JudgementView) -> str:
    return f"{side.tasks} tasks, {side.errors} failed, {side.late} late"
