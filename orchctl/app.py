"""The edge of the process: standard streams, exit code, and the promise that nobody ever sees a traceback.

Imports next to nothing, so that even a Ctrl-C while the rest is being loaded ends in a code and not in a stack.
"""

import os
import sys
from collections.abc import Sequence
from typing import TextIO


def run(argv: Sequence[str] | None = None) -> int:
    """The console script. `argv` is without the program's name. Gives the exit code."""
    _fill_closed_streams()
    _choose_encodings()
    try:
        code = _run_verb(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 128 + 2
    except BrokenPipeError:
        _silence(sys.stdout)
        return 128 + 13
    except OSError as error:
        if error.filename is not None:  # a write to a stream names no file
            _complain(f"{os.fsdecode(error.filename)} cannot be used ({error.strerror}); look at its rights")
            return 77 if isinstance(error, PermissionError) else 1
        _silence(sys.stdout)
        _complain(f"cannot write to standard output ({error.strerror})")
        return 1
    except Exception as error:  # noqa: BLE001  (the root of the program: a bug must not become a stack trace)
        _complain(f"this is a bug in orchctl ({type(error).__name__}: {error}); please report it")
        return 1


def _run_verb(argv: list[str]) -> int:
    from orchctl import verbs  # noqa: PLC0415  (inside the try of `run`)
    from orchctl.exits import PipeClosedError, VerbError  # noqa: PLC0415  (as above)

    try:
        return verbs.invoke(argv)
    except PipeClosedError:
        raise BrokenPipeError from None
    except VerbError as error:
        # What was already printed comes first, and a reader that has left matters more than the error.
        sys.stdout.flush()
        _complain(str(error))
        return int(error.code)


def _complain(sentence: str) -> None:
    """One line to standard error, harmless to a terminal; nobody can be told where even that is gone."""
    from orchctl.terminal import one_line  # noqa: PLC0415  (as above)

    try:
        sys.stderr.write(f"orchctl: {one_line(sentence)}\n")
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr)


def _fill_closed_streams() -> None:
    """Give a closed standard stream (`>&-`) the null device, or the next socket would become standard output."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  (as long as we live)


def _choose_encodings() -> None:
    """Text for a program is UTF-8 whatever the locale; a terminal gets what it can show, `?` for the rest."""
    for stream in (sys.stdout, sys.stderr):
        if not stream.isatty():
            _reconfigure(stream, encoding="utf-8", errors="backslashreplace")
        else:
            _reconfigure(stream, encoding=None, errors="replace")


def _reconfigure(stream: TextIO, *, encoding: str | None, errors: str) -> None:
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(encoding=encoding, errors=errors)


def _silence(stream: TextIO) -> None:
    """Point a broken stream at the null device: the interpreter flushes it once more on its way out."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
