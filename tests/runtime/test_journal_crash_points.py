from pathlib import Path

import pytest

from tests.support.crash_sweep import sweep


@pytest.mark.fault("F08", "F53")
def test_any_kind_of_call_may_be_the_last_or_fail(tmp_path: Path) -> None:
    sweep(tmp_path, times=2, timeout_s=200)
