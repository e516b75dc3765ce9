"""What is counted of GPUs where an operator looks for it: in the line of a task, and on the page of metrics."""

from dataclasses import replace

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import TASK_LINES, Daemon
from tests.support.fake_nvml import EVENTS, RECOVERY_FIELD, FakeGpu, FakeMig, FakeNvml
from tests.support.pools import a_fake_pool
from tests.support.waiting import wait_until

GPU = FakeGpu("GPU-11111111-2222-3333-4444-555555555555", facts={"events": EVENTS}, fields={3: 7, RECOVERY_FIELD: 0})
PART = "MIG-77777777-2222-3333-4444-555555555555"
DRIVER_BEGAN_ANEW = replace(GPU, fields={3: 0, RECOVERY_FIELD: 0})
"""Its count of errors since the driver was loaded is smaller than it was."""


def run_one(daemon: Daemon) -> dict[str, object]:
    """The line of one task that ended."""
    task_id = daemon.accept()
    daemon.read_stream(task_id)
    return daemon.wait_lines(*TASK_LINES, task_id=task_id)[0]


def withheld(daemon: Daemon) -> dict[tuple[str, str], float]:
    """The metric, by device and reason."""
    rows = {}
    for labels, value in daemon.series("gpu_withheld").items():
        cells = dict(cell.split("=") for cell in labels.strip("{}").split(","))
        rows[cells["device"].strip('"'), cells["why"].strip('"')] = value
    return rows


@pytest.mark.orch("ORCH-3027", "ORCH-3053")
def test_the_line_of_a_task_counts_resets_of_the_driver_and_ends_for_want_of_memory(
    make_daemon: MakeDaemon, nvml: FakeNvml
) -> None:
    nvml.set(GPU)
    daemon = make_daemon(a_fake_pool(determinism="best_effort"), simulate=None, env=nvml.env()).start_ready()
    before = run_one(daemon)
    nvml.set(DRIVER_BEGAN_ANEW)
    wait_until(lambda: sum(daemon.series("driver_reset_events_total").values()) == 1, what="the reset")
    daemon.read_stream(daemon.accept(prompt="x [[abort@3]]", determinism="best_effort"))
    daemon.wait_ready()
    after = run_one(daemon)

    assert (before["driver_reset_events"], before["oom_events"]) == (0, 0)
    assert (after["driver_reset_events"], after["oom_events"]) == (1, 1)


@pytest.mark.orch("ORCH-3028", "ORCH-3053")
def test_the_page_of_metrics_says_which_gpus_are_withheld_and_why(make_daemon: MakeDaemon, nvml: FakeNvml) -> None:
    whole = replace(GPU, facts={**GPU.facts, "mig": 1}, migs=(FakeMig(PART),))
    nvml.set(whole)
    daemon = make_daemon(a_fake_pool(devices=[PART]), simulate=None, env=nvml.env()).start_ready()
    before = withheld(daemon)
    nvml.raise_event(GPU.uuid, 79)
    wait_until(lambda: not daemon.pool("tiny")["ready"], what="a GPU that is withheld")

    names = [(uuid, why) for uuid in (GPU.uuid, PART) for why in ("fault", "link", "lease")]
    assert before == dict.fromkeys(names, 0)
    assert withheld(daemon) == {(uuid, why): float(why == "fault") for uuid, why in names}
