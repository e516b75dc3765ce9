"""What a change of the configuration costs, as a dry run says it and a reload does it."""

import pytest

from supervisor.config.change_effects import ChangeEffect
from supervisor.config.costs import Cost, list_costs
from supervisor.config.diff import PoolAdded, PoolChanged, PoolRemoved


@pytest.mark.orch("ORCH-3031")
def test_a_hot_key_alone_holds_at_once() -> None:
    costs = list_costs([PoolChanged("a", ("queue.capacity", "timeouts.wall_ms"))])

    assert {cost.effect for cost in costs} == {ChangeEffect.HOT}


@pytest.mark.orch("ORCH-3031")
def test_a_hot_key_beside_one_that_wants_a_new_worker_comes_with_that_worker() -> None:
    costs = list_costs([PoolChanged("a", ("ctx", "queue.capacity")), PoolChanged("b", ("queue.capacity",))])

    assert costs == (
        Cost("a", "ctx", ChangeEffect.REPLACE),
        Cost("a", "queue.capacity", ChangeEffect.REPLACE),
        Cost("b", "queue.capacity", ChangeEffect.HOT),
    )


def test_a_pool_that_comes_or_goes_is_one_change() -> None:
    assert list_costs([PoolRemoved("old"), PoolAdded("new")]) == (
        Cost("old", None, ChangeEffect.REMOVED_POOL),
        Cost("new", None, ChangeEffect.NEW_POOL),
    )
