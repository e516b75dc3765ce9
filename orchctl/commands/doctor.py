"""`orchctl doctor`: look at this host with the eyes of somebody who has seen it go wrong."""

from pathlib import Path
from typing import Annotated

import typer

from orchctl.context import client_of
from orchctl.doctor.findings import Examination, Finding, Level
from orchctl.exits import ExitCode, VerbError
from orchctl.render import Output, OutputKind, show
from orchctl.terminal import Screen, Style, out_screen


def doctor(
    ctx: typer.Context,
    *,
    config: Annotated[
        Path | None,
        typer.Option("-c", "--config", metavar="FILE", readable=False, help="Without it: that of the service."),
    ] = None,
    output: Output = OutputKind.TABLE,
) -> None:
    """Look for what keeps engines from running on this host.

    Driver, devices, ports, limits, disks, clock, files, the service. With or without a daemon; changes nothing. Each
    finding has a cause and what mends it. Exit 1 where one is a failure.
    """
    from orchctl.doctor.gather import gather  # noqa: PLC0415  (config and NVML: `orchctl --help` must not wait)
    from orchctl.doctor.judge import examine  # noqa: PLC0415  (as above)

    examination = examine(gather(config, client_of(ctx)))
    show(examination, output, lambda: lines_of(examination, out_screen()))
    if not examination.healthy:
        raise VerbError(ExitCode.FAILED, _count(examination), "mend them from the top, then the same again")


def lines_of(examination: Examination, screen: Screen) -> list[str]:
    """One line for each finding, and one for what mends it."""
    return [line for finding in examination.findings for line in _lines(finding, screen)]


def _lines(finding: Finding, screen: Screen) -> list[str]:
    signs = {Level.OK: screen.signs.passed, Level.WARNING: "!", Level.FAILURE: screen.signs.failed}
    styles = {Level.OK: Style.GOOD, Level.WARNING: Style.WARN, Level.FAILURE: Style.BAD}
    sign = screen.paint(signs[finding.level], styles[finding.level])
    lines = [f"{sign} {finding.check:<13} {screen.clean(finding.sentence)}"]
    return lines if finding.fix is None else [*lines, f"  {'':<13} {screen.paint(f'fix: {finding.fix}', Style.DIM)}"]


def _count(examination: Examination) -> str:
    failures = sum(finding.level is Level.FAILURE for finding in examination.findings)
    return "1 check failed" if failures == 1 else f"{failures} checks failed"
