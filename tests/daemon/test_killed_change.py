"""What an operator was told is done is done after a kill; `make accept` tries every moment of every change."""

from pathlib import Path

import pytest

from tests.support.change_crashes import CHANGES, CONFIG, INTENT, Moment, crashed, undisturbed
from tests.support.crash_points import Call, How
from tests.support.pools import ROOT
from tests.support.small_disks import build_preload


@pytest.mark.orch("ORCH-3031", "ORCH-3033")
@pytest.mark.parametrize(("name", "file"), [("promote", INTENT), ("hot config", CONFIG), ("config revert", CONFIG)])
def test_a_kill_before_the_write_counts_is_no_answer_and_the_old_or_the_new_stands(
    tmp_path: Path, name: str, file: str
) -> None:
    library = build_preload(ROOT / "tests" / "support" / "crash_point.c", tmp_path / "crash.so")
    before, after = undisturbed(tmp_path / "undisturbed", library, CHANGES[name])

    crash = crashed(tmp_path / "killed", library, CHANGES[name], Moment(file, How.BEFORE, Call.RENAME, 1))

    assert (crash.was_met, crash.is_answered) == (True, False)
    assert crash.stands in (before, after)
    assert (crash.stands_later, crash.ends) == (crash.stands, ["end", "end"])
