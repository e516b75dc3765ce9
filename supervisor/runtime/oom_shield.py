"""Keeps the kernel from choosing the daemon when the host is out of memory: engines go first, they can be restarted."""

import contextlib
from pathlib import Path

OOM_SCORE_ADJ = -900
_OWN = Path("/proc/self/oom_score_adj")


def shield_daemon() -> bool:
    """Lower the daemon's own score, where it may (CAP_SYS_RESOURCE); whether it did."""
    with contextlib.suppress(OSError):
        _OWN.write_text(str(OOM_SCORE_ADJ))
        return True
    return False
