"""What all tests share: the ORCH marks become properties of the reports, so that `make conformance` can count them."""

import pytest

from tests.support.fault_catalogue import FAULTS
from tests.support.orch_ids import LEVELS

pytest_plugins = ["tests.support.fault_rounds"]


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
