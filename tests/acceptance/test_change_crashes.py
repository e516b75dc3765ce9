"""A kill at every durable step of a change leaves what was before or what was asked for, whole, and loses no task."""

from pathlib import Path

import pytest

from tests.support.change_crashes import CHANGES, crashed, moments, undisturbed
from tests.support.pools import ROOT
from tests.support.small_disks import build_preload

pytestmark = [pytest.mark.accept, pytest.mark.timeout(1_200)]


@pytest.mark.orch("ORCH-3031", "ORCH-3033")
@pytest.mark.parametrize("name", CHANGES)
def test_a_kill_at_any_write_of_a_change_leaves_the_old_or_the_new(tmp_path: Path, name: str) -> None:
    library = build_preload(ROOT / "tests" / "support" / "crash_point.c", tmp_path / "crash.so")
    what = CHANGES[name]
    before, after = undisturbed(tmp_path / "undisturbed", library, what)
    met = set[str]()

    for number, kind in enumerate(moments(what.files)):
        for moment in kind:
            crash = crashed(tmp_path / f"{number}-{moment.number}", library, what, moment)
            if not crash.was_met:
                break
            met.add(moment.file)
            is_promised = crash.is_answered and what.is_done_at_once
            assert crash.stands in ([after] if is_promised else [before, after]), (moment, crash)
            assert crash.stands_later == crash.stands, (moment, crash)
            assert crash.ends == ["end", "end"], (moment, crash)

    assert met == set(what.files)
