"""`orchctl validate`: read a config as the daemon would, and say what is wrong with it and where."""

import os
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct

from orchctl.exits import ExitCode, VerbError, usage
from orchctl.offline_plan import plan_offline
from orchctl.render import Output, OutputKind, say, show


class ProblemView(Struct, kw_only=True):
    """One thing to fix. `line` and `column` count from 1, 0 stands for the whole file; `pointer` is a JSON pointer."""

    file: str
    line: int
    column: int
    pointer: str
    message: str


class Verdict(Struct, kw_only=True):
    """What `-o json` prints."""

    file: str
    valid: bool
    problems: list[ProblemView]
    warnings: list[str]


def validate(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", readable=False, help="The config.")] = None,
    *,
    config: Annotated[
        Path | None, typer.Option("-c", "--config", metavar="FILE", readable=False, help="The same, as `serve` has it.")
    ] = None,
    devices: Annotated[
        str | None, typer.Option(metavar="NxSIZE", help="Check masks and memory for these GPUs too: 2x24GiB.")
    ] = None,
    output: Output = OutputKind.TABLE,
) -> None:
    """Check a config and start nothing.

    Exit 78 where it cannot be used, with each problem and its place.
    """
    if file is not None and config is not None:
        raise usage("two configs are named", "check one at a time")
    named = file or config
    if named is None:
        raise usage("a config is missing", "write `orchctl validate FILE`")
    check(named, output, devices)


def check(file: Path, output: OutputKind, devices: str | None = None) -> None:
    """Print the verdict on a config, for these GPUs where some are named. Raises VerbError where it cannot be used."""
    verdict, lines = judge(file)
    if verdict.valid and devices is not None:
        verdict, lines = judge_masks(verdict, file, devices)
    if not output.is_for_programs:
        for line in [*verdict.warnings, *lines]:
            say(line)
    if verdict.valid or output.is_for_programs:
        show(verdict, output, lambda: [_praise(verdict)])
    if not verdict.valid:
        raise VerbError(ExitCode.CONFIG, f"{file} cannot be used", f"mend it, then `orchctl validate {file}`")


def judge(file: Path) -> tuple[Verdict, list[str]]:
    """The verdict, and its problems as lines for a person."""
    from supervisor.config.known_models import load_known  # noqa: PLC0415  (pydantic: `--help` must not wait for it)
    from supervisor.config.problems import ConfigError  # noqa: PLC0415  (as above)

    try:
        loaded = load_known(file, os.environ, os.geteuid())
    except ConfigError as error:
        problems = [
            ProblemView(file=one.file, line=one.line, column=one.column, pointer=one.pointer, message=one.message)
            for one in error.problems
        ]
        return Verdict(file=str(file), valid=False, problems=problems, warnings=[]), str(error).splitlines()
    return Verdict(file=str(file), valid=True, problems=[], warnings=list(loaded.warnings)), []


def judge_masks(verdict: Verdict, file: Path, devices: str) -> tuple[Verdict, list[str]]:
    """The verdict on a valid config, with what can never work on these GPUs."""
    refused = [pool for pool in plan_offline(file, devices).pools if pool.verdict == "never"]
    problems = [
        ProblemView(file=str(file), line=0, column=0, pointer="/pools", message=f"{pool.pool_id}: {pool.cause}")
        for pool in refused
    ]
    judged = Verdict(file=verdict.file, valid=not refused, problems=problems, warnings=verdict.warnings)
    return judged, [f"{file}: {problem.message}" for problem in problems]


def _praise(verdict: Verdict) -> str:
    return f"{verdict.file} is valid" + (f", with {len(verdict.warnings)} warnings" if verdict.warnings else "")
