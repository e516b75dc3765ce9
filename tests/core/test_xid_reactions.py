"""Each XID of NVIDIA's catalogue, cell by cell: what becomes of a GPU's worker and its neighbour, what is counted.

The expected values stand here once more, by hand: they are the law, and the table of the core is held against them.
"""

import pytest

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.lifecycle import Phase
from tests.core.builders import make_plan, make_stage, only
from tests.core.test_gpu_faults import WELL, xid

APPLICATION = (13, 31, 32, 39, 40, 41, 69)
IGNORED = (37, 38, 44, 66, 67, 121, 137, 141, 152, 153, 157, 160, 161)
RESET = (46, 62, 109, 110, 119, 120, 136, 143, 155, 156, 158)
READ_AGAIN = (154, 168, 169, 170, 171, 172)

CELLS = [
    # XIDs, what becomes of the worker, the GPU is withheld, kind of memory error, flag
    (APPLICATION, "restarted", False, None, ()),
    ((43,), "probed", False, None, ()),
    (IGNORED, "left", False, None, ()),
    ((45,), "restarted", False, None, ()),
    (RESET, "stopped", True, None, ()),
    ((48,), "stopped", True, "double_bit", ()),
    ((63,), "left", False, "row_remap", ("reset pending",)),
    ((64,), "stopped", True, "row_remap_failure", ("row remapping failed",)),
    ((74,), "left", True, None, ()),
    ((79, 151), "stopped", True, None, ()),
    ((92,), "left", False, "single_bit_storm", ("degraded memory",)),
    ((94,), "restarted", False, "contained", ()),
    ((95, 140), "stopped", True, "uncontained", ()),
    (READ_AGAIN, "left", False, None, ()),
    ((999,), "probed", False, None, ()),
]
ROWS = [(number, *row) for numbers, *row in CELLS for number in numbers]


@pytest.mark.orch("ORCH-3038", "ORCH-3053")
@pytest.mark.parametrize(("number", "fate", "is_withheld", "ecc", "flags"), ROWS)
def test_an_xid_does_to_a_single_gpu_pool_what_the_catalogue_asks_for(
    number: int, fate: str, ecc: str | None, flags: tuple[str, ...], *, is_withheld: bool
) -> None:
    stage = make_stage(make_plan("p0"), make_plan("p1", devices=(1,)))
    stage.give(WELL)
    stage.serve("p0")
    stage.serve("p1")

    stage.give(xid(number, pid=stage.replica("p0").pid))
    stage.pass_ms(6_000)

    (note,) = only(stage.done, ef.NoteFault)
    stopped = [effect.pool_id for effect in only(stage.done, ef.StopEngine)]
    probed = [effect.pool_id for effect in only(stage.done, ef.ProbeEngine)]
    assert stopped == (["p0"] if fate in {"restarted", "stopped"} else [])
    assert probed == (["p0"] if fate == "probed" else [])
    assert ("GPU-0" in stage.core.state.devices.withheld) is is_withheld
    assert note.ecc == ecc
    assert stage.core.state.faults.flags.get("GPU-0", ()) == flags
    assert stage.replica("p1").phase is Phase.READY, "the other GPU's pool"


@pytest.mark.parametrize("number", [74, *RESET, 48, 64, 79, 95, 140, 151])
def test_what_withholds_a_gpu_takes_it_from_pools_that_span_it(number: int) -> None:
    stage = make_stage(make_plan("both", devices=(0, 1)))
    stage.give(WELL)
    stage.serve("both")

    stage.give(xid(number))

    assert stage.replica("both").phase is Phase.STOPPING


@pytest.mark.parametrize("number", RESET)
def test_what_needs_a_reset_is_not_over_while_the_driver_asks_for_one(number: int) -> None:
    stage = make_stage(make_plan("p0"))
    stage.give(WELL)
    stage.serve("p0")
    stage.give(xid(number))
    stage.give(ev.EngineStopped("p0", stage.replica().incarnation))
    stage.pass_ms(3_600_000)

    assert stage.replica().phase is Phase.UNPLACED
