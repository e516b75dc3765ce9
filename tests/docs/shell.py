"""One bash that an author's reader could have open: what one block sets, the next one finds."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

_MARK = "--- that was it ---"


class Shell:
    """Runs blocks one after the other. A block that fails to be run at all shows in what it prints."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environ,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, block: str) -> str:
        """Type the block; gives what came on both outputs."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # In braces, or a curl that reads its standard input would read the rest of the script.
        typed = f"{{\n{block}\n}} < /dev/null\nprintf '\\n%s\\n' '{_MARK}'\n"
        self._process.stdin.write(typed.encode())
        self._process.stdin.flush()
        lines: list[bytes] = []
        for line in self._process.stdout:
            if line.rstrip() == _MARK.encode():
                return b"".join(lines).decode()
            lines.append(line)
        raise AssertionError(f"the shell ended: {b''.join(lines)[-500:]!r}")
