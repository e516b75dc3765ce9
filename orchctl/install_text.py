"""A plan as a person reads it before saying yes."""

import shlex
import sys

import typer

from orchctl.exits import ExitCode, VerbError, usage
from orchctl.install_plan import Plan
from orchctl.render import OutputKind, show


def lines_of(plan: Plan) -> list[str]:
    """The steps in their order, a replaced file with its diff."""
    if plan.is_empty:
        return ["nothing to do: everything is as it should be", *(f"note: {each}" for each in plan.remarks)]
    lines = [f"run     {shlex.join(command)}" for command in plan.before]
    for step in plan.files:
        lines.append(f"{step.action:<7} {step.path}")
        if step.action == "replace":
            lines += [f"        {line}" for line in step.diff.splitlines()]
    lines += [f"run     {shlex.join(command)}" for command in plan.after]
    return [*lines, *(f"note: {each}" for each in plan.remarks)]


def is_confirmed(plan: Plan, output: OutputKind, *, is_dry: bool, yes: bool) -> bool:
    """Show the plan, and ask where somebody can be asked. Raises VerbError after a no."""
    show(plan, output, lambda: lines_of(plan))
    if is_dry or plan.is_empty:
        return False
    if yes:
        return True
    if not sys.stdin.isatty():
        raise usage("this changes the host, and nobody can be asked", "look with `--dry-run`, then say `--yes`")
    if not typer.confirm("Do this?", err=True):
        raise VerbError(ExitCode.FAILED, "nothing was changed", "look at the plan with `--dry-run`")
    return True
