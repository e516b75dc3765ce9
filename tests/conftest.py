"""What all tests share: the ORCH marks become properties of the reports, so that `make conformance` can count them."""

from collections.abc import Iterator

import pytest

from tests.support.fault_catalogue import FAULTS
from tests.support.orch_ids import LEVELS
from tests.support.sweeper import watch_over

pytest_plugins = ["tests.support.fault_rounds"]


@pytest.fixture(scope="session", autouse=True)
def _nothing_outlives_the_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Daemons and engines are ended by their fixtures; by this one where the run itself is killed."""
    sweeper = watch_over(tmp_path_factory.getbasetemp().resolve())
    yield
    assert sweeper.stdin is not None
    sweeper.stdin.close()
    sweeper.wait()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A mark that names an id which the spec does not have is a mistake."""
    for item in items:
        for mark in item.iter_markers("orch"):
            for orch_id in mark.args:
                if orch_id not in LEVELS:
                    raise pytest.UsageError(f"{item.nodeid}: {orch_id} is not an id of the spec")
                item.user_properties.append(("orch", orch_id))
        for mark in item.iter_markers("fault"):
            for fault in mark.args:
                if fault not in FAULTS:
                    raise pytest.UsageError(f"{item.nodeid}: {fault} is not in the catalogue of faults")
                item.user_properties.append(("fault", fault))
