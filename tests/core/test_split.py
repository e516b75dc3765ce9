"""A canary's share of an alias: sticky by session, and never a reason to refuse what the other side could serve."""

import uuid

import pytest

from supervisor.core import events as ev
from supervisor.core.split import BUCKETS, Split
from supervisor.runtime.task_codec import bucket_of
from supervisor.wire.codes import Engine
from tests.core.builders import Stage, make_plan, make_task, ready_stage, started

pytestmark = pytest.mark.orch("ORCH-3033")
STABLE, CANARY = "stable", "zz-canary"


def two_sides(buckets: int) -> Stage:
    """The same alias on two models, one of which is the canary's."""
    other = "sha256:" + "b" * 64
    stage = ready_stage(make_plan(STABLE, slots=9), make_plan(CANARY, model_digest=other, slots=9), slots=9)
    stage.give(ev.SplitRequested(Engine.LLAMACPP, "m", Split(frozenset({CANARY}), buckets)))
    return stage


def pool_of(stage: Stage, name: str, bucket: int) -> str:
    ((_, pool_id),) = started(stage.submit(make_task(name, strict=False, bucket=bucket)))
    return pool_id


@pytest.mark.parametrize(
    ("buckets", "bucket", "pool_id"),
    [(500, 0, CANARY), (500, 499, CANARY), (500, 500, STABLE), (0, 0, STABLE), (BUCKETS, BUCKETS - 1, CANARY)],
)
def test_a_session_goes_to_the_side_of_its_bucket(buckets: int, bucket: int, pool_id: str) -> None:
    stage = two_sides(buckets)

    assert [pool_of(stage, name, bucket) for name in "abc"] == [pool_id] * 3


def test_a_share_that_grows_moves_nobody_back() -> None:
    buckets = [bucket_of(str(uuid.UUID(int=number))) for number in range(2_000)]
    sides = [{bucket for bucket in buckets if bucket < share} for share in (100, 2_500, 5_000)]

    assert sides[0] <= sides[1] <= sides[2]
    assert 0.2 < len(sides[1]) / len(buckets) < 0.3


def test_a_side_that_does_not_serve_leaves_the_task_to_the_other() -> None:
    stage = two_sides(BUCKETS)
    stage.lose(CANARY)

    assert pool_of(stage, "t", 0) == STABLE


def test_without_a_split_the_emptier_side_takes_it() -> None:
    stage = two_sides(0)
    assert pool_of(stage, "first", 0) == STABLE
    stage.give(ev.SplitRequested(Engine.LLAMACPP, "m", None))

    assert pool_of(stage, "second", 0) == CANARY
