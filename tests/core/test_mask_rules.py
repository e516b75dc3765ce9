"""Pools that can never work on the GPUs that are there are refused before anything is begun."""

import pytest
from msgspec import structs

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.conductor import Conductor
from supervisor.core.lifecycle import Phase
from supervisor.core.mask_rules import find_refusals
from supervisor.core.memory_need import DeviceNeed, PoolNeed
from supervisor.core.plan import PoolPlan
from supervisor.core.revisions import RolloutOutcome
from tests.core.builders import BOTH, make_plan, make_stage, only
from tests.core.rollout_stage import RolloutStage, rollout_stage


def a_pool(pool_id: str, *needs_mib: int, split: tuple[float, ...] | None = None) -> PoolPlan:
    """A pool on the first GPUs, one for each need."""
    plan = make_plan(pool_id, devices=tuple(range(len(needs_mib))))
    need = PoolNeed("r", tuple(DeviceNeed(mib, 0, 0, 0) for mib in needs_mib), 0)
    return structs.replace(plan, need=need, tensor_split=split)


def gpus(*totals_mib: int, kinds: tuple[tuple[int, int], ...] = ()) -> tuple[ev.DeviceSeen, ...]:
    return tuple(
        ev.DeviceSeen(f"GPU-{at}", at, "fake", mib, mib, compute_capability=kinds[at] if kinds else (8, 9))
        for at, mib in enumerate(totals_mib)
    )


@pytest.mark.orch("ORCH-3012")
@pytest.mark.parametrize("totals", [(24_576, 8_192), (24_576, 23_000)])
def test_gpus_of_other_sizes_need_ratios(totals: tuple[int, int]) -> None:
    refused = find_refusals([a_pool("a", 100, 100)], gpus(*totals))

    assert "tensor_split" in refused["a"]
    assert not find_refusals([a_pool("a", 100, 100, split=(0.7, 0.3))], gpus(*totals))


@pytest.mark.orch("ORCH-3012")
def test_gpus_of_nearly_one_size_do_not() -> None:
    assert not find_refusals([a_pool("a", 100, 100)], gpus(24_576, 23_600))


@pytest.mark.orch("ORCH-3012")
def test_gpus_of_another_compute_capability_need_ratios() -> None:
    refused = find_refusals([a_pool("a", 100, 100)], gpus(24_576, 24_576, kinds=((8, 6), (8, 9))))

    assert "8.6 and 8.9" in refused["a"]


@pytest.mark.orch("ORCH-3052")
def test_a_share_larger_than_its_gpu_is_refused() -> None:
    refused = find_refusals([a_pool("a", 5_000, 9_000, split=(0.4, 0.6))], gpus(24_576, 8_192))

    assert "9000 MiB of GPU 1, which has 8192" in refused["a"]


def test_pools_that_share_a_gpu_and_exceed_it_are_refused_and_both_are_named() -> None:
    refused = find_refusals([a_pool("a", 14_000), a_pool("b", 12_000)], gpus(24_576))

    assert list(refused) == ["b"]
    assert "b (12000 MiB) and a (14000 MiB) do not fit together on GPU 0" in refused["b"]


def test_pools_that_fit_together_with_a_reserve_are_not() -> None:
    assert not find_refusals([a_pool("a", 12_000), a_pool("b", 11_400)], gpus(24_576))
    assert find_refusals([a_pool("a", 12_000), a_pool("b", 11_600)], gpus(24_576))


def test_a_revision_beside_the_one_that_serves_is_not_judged_by_size() -> None:
    assert not find_refusals([a_pool("a", 14_000)], gpus(24_576), [a_pool("a+2", 14_000)])


@pytest.mark.orch("ORCH-3012")
def test_a_revision_is_judged_by_equal_gpus_whether_it_serves_or_stands_beside() -> None:
    unequal = gpus(24_576, 8_192)

    assert "tensor_split" in find_refusals([a_pool("a+2", 100, 100)], unequal)["a+2"]
    assert "tensor_split" in find_refusals([], unequal, [a_pool("a+2", 100, 100)])["a+2"]


def test_a_pool_whose_later_revision_serves_is_judged_by_that_one() -> None:
    stage = rollout_stage(a_pool("p0", 60_000))
    stage.begin(need=a_pool("p0", 10_000).need)
    stage.come_up("p0+2")
    stage.give(ev.PoolsChanged(ticket="t", generation=2, added=(a_pool("p9", 50_000),)))

    stage.give(BOTH)

    assert stage.replica("p9").unfit is None


@pytest.mark.orch("ORCH-3012")
def test_a_revision_that_can_never_work_on_its_gpus_is_refused_before_its_model_is_read() -> None:
    stage = RolloutStage(Conductor((make_plan(),)))
    stage.give(ev.DevicesSeen(gpus(81_920, 24_576)))
    stage.serve("p0")

    effects = stage.begin(devices=(0, 1))

    assert only(effects, ef.VerifyModel) == []
    assert stage.pool().history[-1].outcome is RolloutOutcome.FAILED
    assert "tensor_split" in (stage.pool().history[-1].cause or "")


def test_a_mask_that_is_not_there_is_not_judged_by_size() -> None:
    assert not find_refusals([a_pool("a", 14_000, 99_000)], gpus(24_576))


@pytest.mark.orch("ORCH-3012")
def test_a_refused_pool_is_never_begun_and_the_other_one_is() -> None:
    stage = make_stage(a_pool("a", 14_000), a_pool("b", 12_000))

    effects = stage.give(ev.DevicesSeen(gpus(24_576)))

    assert [effect.pool_id for effect in only(effects, ef.VerifyModel)] == ["a"]
    assert stage.replica("b").phase is Phase.BROKEN
    assert "do not fit together" in (stage.replica("b").cause or "")


def test_it_is_begun_once_the_gpus_are_other_ones() -> None:
    stage = make_stage(a_pool("a", 14_000), a_pool("b", 12_000))
    stage.give(ev.DevicesSeen(gpus(24_576)))

    effects = stage.give(ev.DevicesSeen(gpus(49_152)))

    assert [effect.pool_id for effect in only(effects, ef.VerifyModel)] == ["b"]
