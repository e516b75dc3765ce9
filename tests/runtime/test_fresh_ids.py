"""Ids are UUIDs like those of the standard library, and none comes twice."""

import uuid

from supervisor.runtime.fresh_ids import FreshIds


def test_they_are_version_4_and_all_different() -> None:
    ids = FreshIds()

    made = [ids.take() for _ in range(2_000)]

    assert len(set(made)) == len(made)
    assert all(str(uuid.UUID(each)) == each for each in made)
    assert {uuid.UUID(each).version for each in made} == {4}
    assert {uuid.UUID(each).variant for each in made} == {uuid.RFC_4122}
    assert {each[19] for each in made} == set("89ab")
