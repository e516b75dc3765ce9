"""`orchctl selftest`: test the engine of a pool while it serves, step by step."""

from typing import Annotated

import typer

from orchctl.context import client_of
from orchctl.exits import ExitCode, VerbError
from orchctl.render import Output, OutputKind, show
from orchctl.terminal import Screen, Style, out_screen
from supervisor.wire.self_tests import SelfTestReport, SelfTestStep


def selftest(
    ctx: typer.Context,
    pool: Annotated[str, typer.Argument(metavar="POOL", help="The id of the pool.")],
    *,
    output: Output = OutputKind.TABLE,
) -> None:
    """Test the engine of a pool while it serves.

    A real answer, a cancel and the metrics, each a step with its time. It takes one free slot and changes nothing; exit
    1 where a step fails, 75 where no slot is free.
    """
    report = client_of(ctx).self_test(pool)
    show(report, output, lambda: lines_of(report, out_screen()))
    if not report.passed:
        failed = report.steps[-1]
        next_step = f"see what it says with `orchctl logs {pool}`"
        raise VerbError(ExitCode.FAILED, f"{pool} failed its self-test at {failed.name}", next_step)


def lines_of(report: SelfTestReport, screen: Screen) -> list[str]:
    """One line for each step."""
    lines = [_line(step, screen) for step in report.steps]
    return [*lines, f"{report.replica_id} passed its self-test"] if report.passed else lines


def _line(step: SelfTestStep, screen: Screen) -> str:
    sign = screen.signs.passed if step.passed else screen.signs.failed
    painted = screen.paint(sign, Style.GOOD if step.passed else Style.BAD)
    return f"{painted} {step.name:<18} {step.took_ms:>6} ms  {screen.clean(step.detail)}"
