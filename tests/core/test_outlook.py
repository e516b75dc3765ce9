"""What a change would do is judged as the change itself would be, and leaves everything as it is (ORCH-3031)."""

import pytest

from supervisor.core import events as ev
from supervisor.core.invariants import violations
from supervisor.core.outlook import Foresight, Outlook, Way, looker_for
from supervisor.core.plan import PoolPlan
from supervisor.core.revisions import Role, RolloutKind
from tests.core.builders import make_plan
from tests.core.rollout_stage import NEW_DIGEST, RolloutStage, rollout_stage

pytestmark = pytest.mark.orch("ORCH-3003", "ORCH-3031")

TOTAL = 81_920


def look(plan: PoolPlan, need: int, free: int, host_need: int = 0, *holders: ev.Holder) -> ev.RoomMeasured:
    rooms = (ev.DeviceRoom("GPU-0", TOTAL, free, need, None, holders),)
    return ev.RoomMeasured(plan.pool_id, 0, rooms, 64_000, host_need, 128_000)


def judge(
    stage: RolloutStage,
    key: str,
    *,
    need: int,
    free: int,
    kind: RolloutKind | None = RolloutKind.RELOAD,
    foresight: Foresight | None = None,
    host_need: int = 0,
) -> Outlook:
    """What would become of a plan under that key, where the worker of p0 holds 8,000 MiB."""
    plan = make_plan(key, model_digest=NEW_DIGEST)
    looker, missing = looker_for(stage.core.state, plan, stage.now)
    assert missing is None
    pid = stage.replica("p0").pid
    holders = () if pid is None else (ev.Holder(pid, 8_000),)
    outlook = (foresight or Foresight(stage.core.state)).judge(
        kind, looker, look(plan, need, free, host_need, *holders)
    )
    assert violations(stage.core.state, stage.now) == []
    assert key not in stage.core.state.replicas
    return outlook


@pytest.mark.parametrize(
    ("need", "free", "kind", "way"),
    [
        (8_000, 8_800, RolloutKind.RELOAD, Way.SIDE_BY_SIDE),
        (8_000, 8_799, RolloutKind.RELOAD, Way.STOP_START),
        (8_000, 8_799, RolloutKind.CONFIG, Way.STOP_START),
        (8_000, 8_799, RolloutKind.CANARY, Way.FAILS),
        (8_000, 800, RolloutKind.RELOAD, Way.STOP_START),
        (8_000, 799, RolloutKind.RELOAD, Way.RETURNS),
        (TOTAL, 70_000, RolloutKind.RELOAD, Way.NEVER),
    ],
)
def test_the_way_follows_from_need_reserve_and_what_the_old_one_holds(
    need: int, free: int, kind: RolloutKind, way: Way
) -> None:
    outlook = judge(rollout_stage(), "p0+2", need=need, free=free, kind=kind)

    assert outlook.way is way
    assert (outlook.cause is None) == (way in (Way.SIDE_BY_SIDE, Way.STOP_START))
    assert outlook.takes[0].old_mib == 8_000
    assert outlook.takes[0].need.mib == need


def test_a_new_pool_waits_where_a_revision_would_fail() -> None:
    assert judge(rollout_stage(), "p9", need=8_000, free=800, kind=None).way is Way.WAITS


def test_a_standby_is_counted_as_free_and_named() -> None:
    stage = rollout_stage()
    stage.roll()
    assert stage.role("p0") is Role.STANDBY

    outlook = judge(stage, "p0+3", need=8_000, free=800)

    assert (outlook.way, outlook.gives_way) == (Way.SIDE_BY_SIDE, ("p0",))
    assert outlook.takes[0].free_mib == 8_800


def test_a_pool_that_goes_makes_room_for_one_that_comes() -> None:
    stage = rollout_stage()

    kept = judge(stage, "p9", need=8_000, free=800, kind=None)
    gone = judge(stage, "p9", need=8_000, free=800, kind=None, foresight=Foresight(stage.core.state, ("p0",)))

    assert (kept.way, gone.way, gone.gives_way) == (Way.WAITS, Way.STARTS, ("p0",))


def test_each_change_leaves_less_for_the_next_one() -> None:
    stage = rollout_stage()
    foresight = Foresight(stage.core.state)

    first, second = (judge(stage, key, need=8_000, free=16_000, kind=None, foresight=foresight) for key in ("p8", "p9"))

    assert (first.way, second.way) == (Way.STARTS, Way.WAITS)
    assert "p8 is about to take 8000 MiB" in (second.cause or "")
    assert second.takes[0].owed_mib == 8_000


def test_what_was_learned_counts_for_devices_and_host() -> None:
    stage = rollout_stage()
    plan = make_plan("p0+2", model_digest=NEW_DIGEST)
    stage.core.state.needs.note_vram_oom("r", "b1", (10_000,))
    stage.core.state.needs.note_host_oom("r", "b1", 70_000)
    looker, _ = looker_for(stage.core.state, plan, stage.now)
    measured = ev.RoomMeasured("p0+2", 0, (ev.DeviceRoom("GPU-0", TOTAL, 70_000, 8_000),), 64_000, 1_000, 128_000, "r")

    outlook = Foresight(stage.core.state).judge(RolloutKind.CANARY, looker, measured)

    assert (outlook.way, outlook.takes[0].need.mib, outlook.host_need_mib) == (Way.FAILS, 11_000, 77_000)
    assert "the host has 64000 MiB free" in (outlook.cause or "")


@pytest.mark.parametrize(
    ("given", "why"), [({"devices": (7,)}, "GPU 7 is not there"), ({"unplannable": "no such file"}, "no such file")]
)
def test_what_cannot_begin_says_why(given: dict[str, object], why: str) -> None:
    stage = rollout_stage()

    _, missing = looker_for(stage.core.state, make_plan("p0+2", **given), stage.now)  # type: ignore[arg-type]

    assert why in (missing or "")
