"""What a check says: ok, a warning or a failure, one sentence, and the command that mends it."""

from enum import StrEnum

from msgspec import Struct


class Level(StrEnum):
    """How bad it is. A failure keeps tasks from being served, or will; a warning does harm in some cases."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


class Finding(Struct, frozen=True, kw_only=True):
    """One line. `sentence` says the cause, `fix` is a command or an act."""

    check: str
    level: Level
    sentence: str
    fix: str | None = None


class Examination(Struct, frozen=True, kw_only=True):
    """What `-o json` prints. `healthy`: no finding is a failure."""

    healthy: bool
    findings: list[Finding]


def ok(check: str, sentence: str) -> Finding:
    """All is well."""
    return Finding(check=check, level=Level.OK, sentence=sentence)


def warning(check: str, sentence: str, fix: str | None) -> Finding:
    """It works, and may not for long or not for everything."""
    return Finding(check=check, level=Level.WARNING, sentence=sentence, fix=fix)


def failure(check: str, sentence: str, fix: str | None) -> Finding:
    """It does not work."""
    return Finding(check=check, level=Level.FAILURE, sentence=sentence, fix=fix)
