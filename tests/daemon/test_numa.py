"""Where a worker runs: on the processors next to its GPU, from what the driver says down to the kernel (ORCH-3013)."""

import os
import subprocess
from pathlib import Path

import pytest

from supervisor.runtime.cgroups import GroupWish, open_cgroups
from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import Daemon
from tests.support.fake_nvml import FakeGpu, FakeNvml
from tests.support.pools import a_fake_pool

LEFT, RIGHT = "GPU-11111111-2222-3333-4444-555555555555", "GPU-99999999-2222-3333-4444-555555555555"
WITHOUT_CPUSET = (
    *("unshare", "--mount", "--propagation", "private", "sh", "-c"),
    'umount -l /sys/fs/cgroup/cpuset && exec "$0" "$@"',
)
"""A program in whose view of the files there is no hierarchy of control groups for processors."""

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor: nothing can be pinned")


def mask_of(*cpus: int) -> str:
    """Processors as the fake driver's script has them."""
    return f"{sum(1 << cpu for cpu in cpus):x}"


def own_cpus() -> list[int]:
    """Those that the daemon of a test may use."""
    return sorted(cpu for cpu in os.sched_getaffinity(0) if cpu < 64)


def a_host(nvml: FakeNvml, left: str, right: str) -> None:
    """Two GPUs with these processors next to them."""
    nvml.set(FakeGpu(LEFT, facts={"cpus": left}), FakeGpu(RIGHT, facts={"cpus": right}))


def cpus_of(pid: int) -> str:
    """The processors that the kernel lets a process run on."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith("Cpus_allowed_list"))


def worker_of(daemon: Daemon) -> int:
    """The process of its one pool."""
    pid: int = daemon.pool("tiny")["pid"]
    return pid


def set_group_of(daemon: Daemon) -> str:
    """The control group for processors that the worker is in."""
    lines = Path(f"/proc/{worker_of(daemon)}/cgroup").read_text().splitlines()
    return next((line.rpartition(":")[2] for line in lines if line.split(":")[1] == "cpuset"), "")


def require_cpuset() -> None:
    """Skips where no group of ours can keep a worker on some processors."""
    groups = open_cgroups(f"can-{Path(__file__).stem}")
    group = groups.make("probe", GroupWish(pinned=frozenset(own_cpus()[-1:])))
    try:
        if group is None or not group.is_pinned:
            pytest.skip("NO CPUSET IS TESTED HERE: no control group for processors can be made")
    finally:
        if group is not None:
            group.remove()
        groups.close()


def require_no_cpuset_possible() -> None:
    """Skips where a test may not take the hierarchy away from a daemon of its own."""
    tried = subprocess.run([*WITHOUT_CPUSET, "true"], capture_output=True, check=False, timeout=30)
    if tried.returncode:
        pytest.skip("THE FALLBACK OF PINNING IS NOT TESTED HERE: no mount namespace can be made")


@pytest.mark.orch("ORCH-3013")
def test_a_worker_runs_in_a_group_with_the_processors_next_to_its_gpu(make_daemon: MakeDaemon, nvml: FakeNvml) -> None:
    require_cpuset()
    last = own_cpus()[-1]
    a_host(nvml, mask_of(own_cpus()[0]), mask_of(last))
    daemon = make_daemon(a_fake_pool(devices=[1]), simulate=None, env=nvml.env()).start_ready()

    assert cpus_of(worker_of(daemon)) == str(last)
    assert "orchctl-" in set_group_of(daemon)


@pytest.mark.orch("ORCH-3013")
def test_where_no_such_group_can_be_made_the_worker_is_bound_by_itself(make_daemon: MakeDaemon, nvml: FakeNvml) -> None:
    require_no_cpuset_possible()
    first = own_cpus()[0]
    a_host(nvml, mask_of(first), mask_of(own_cpus()[-1]))
    daemon = make_daemon(a_fake_pool(), simulate=None, env=nvml.env()).spawn(by=WITHOUT_CPUSET).wait_serving()
    daemon.wait_ready()

    assert cpus_of(worker_of(daemon)) == str(first)
    assert "orchctl-" not in set_group_of(daemon)
    assert cpus_of(daemon.status()["pid"]) == cpus_of(os.getpid()), "the daemon itself is bound to nothing"


@pytest.mark.orch("ORCH-3013")
def test_a_worker_on_two_gpus_runs_on_the_processors_of_both(make_daemon: MakeDaemon, nvml: FakeNvml) -> None:
    first, last = own_cpus()[0], own_cpus()[-1]
    a_host(nvml, mask_of(first), mask_of(last))
    daemon = make_daemon(a_fake_pool(devices=[0, 1]), simulate=None, env=nvml.env()).start_ready()

    assert os.sched_getaffinity(worker_of(daemon)) == {first, last}


@pytest.mark.parametrize("numa", ["off", "auto"])
def test_a_hint_that_is_not_wanted_or_that_leaves_nothing_binds_nothing(
    make_daemon: MakeDaemon, nvml: FakeNvml, numa: str
) -> None:
    """`off` where there would be a hint, `auto` where the GPU is next to processors that the daemon may not use."""
    a_host(nvml, mask_of(own_cpus()[0] if numa == "off" else 63), mask_of(0))
    pool = a_fake_pool()
    pool["launch"]["numa"] = numa
    daemon = make_daemon(pool, simulate=None, env=nvml.env()).start_ready()

    assert cpus_of(worker_of(daemon)) == cpus_of(os.getpid())
