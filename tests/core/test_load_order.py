"""The order by load agrees with looking at every member, whatever changes and however often."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.load_order import LoadOrder


@dataclass
class Member:
    pool_id: str
    slots: int
    load: int = 0


def naive(members: list[Member], barred: set[str]) -> Member | None:
    able = [member for member in members if member.load < member.slots and member.pool_id not in barred]
    return min(able, key=lambda member: (member.load / member.slots, member.pool_id), default=None)


@pytest.mark.orch("ORCH-3008")
@given(
    slots=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    changes=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4), st.sets(st.integers(0, 5))), max_size=120),
)
def test_the_first_is_the_least_loaded_that_can(slots: list[int], changes: list[tuple[int, int, set[int]]]) -> None:
    members = [Member(f"p{place}", count) for place, count in enumerate(slots)]
    order: LoadOrder[Member] = LoadOrder()
    order.rebuild(members)

    for place, load, barred_places in changes:
        member = members[place % len(members)]
        member.load = min(load, member.slots)
        order.note(member)
        barred = {f"p{each}" for each in barred_places}

        assert order.first(lambda each: each.load < each.slots and each.pool_id not in barred) is naive(  # noqa: B023
            members, barred
        )


def test_one_that_does_not_serve_is_not_in_it() -> None:
    order: LoadOrder[Member] = LoadOrder()
    order.rebuild([])
    order.note(Member("gone", 1))

    assert order.first(lambda _: True) is None
