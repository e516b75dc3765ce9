"""The log files of revisions that are gone: the newest few stay for whoever asks why one failed. Blocks."""

import contextlib
import re
from pathlib import Path

from supervisor.core.plan import REVISION_MARK

REVISIONS_KEPT = 5
"""Of one pool, those that run included. A revision that runs is among the newest."""


def keep_newest_revisions(log_dir: Path, pool_id: str) -> None:
    """Remove the logs of older revisions of a pool; that of its first one stays, for it has the pool's own name."""
    own = re.compile(rf"{re.escape(pool_id + REVISION_MARK)}(\d+)\.log(\.\d+|\.new)?")
    found = [(int(match[1]), path) for path in log_dir.iterdir() if (match := own.fullmatch(path.name))]
    newest = sorted({number for number, _ in found})[-REVISIONS_KEPT:]
    for number, path in found:
        if number not in newest:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
