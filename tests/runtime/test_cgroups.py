"""Control groups of workers: real ones of this host, and what is read of other hosts."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.runtime.cgroup_layout import Hierarchy, read_hierarchies
from supervisor.runtime.cgroups import NONE, CgroupError, Cgroups, GroupWish, WorkerGroup, choose, open_cgroups
from supervisor.runtime.processes import Processes, Stopped
from tests.runtime.processes_story import PATIENT, Exits, is_alive, order_of, python
from tests.support.waiting import until

MIB = 1 << 20
UNIFIED = Path("/sys/fs/cgroup/unified")
GREEDY = python("x = bytearray()\nwhile True: x += b'x' * 2**24")
ESCAPE = python(
    "import os,sys\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork(): os._exit(0)\n"
    "    print('stray', os.getpid(), flush=True)\n"
    "    os.execve('/bin/sleep', ['sleep', '600'], {'NOTHING': 'left'})\n"
    "os.wait()\n"
    "import time; time.sleep(600)"
)

V1 = """\
9:name=systemd:/system.slice/orchctl.service
4:memory:/system.slice/orchctl.service
2:cpu,cpuacct:/system.slice
0::/
"""
V1_MOUNTS = """\
30 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
33 30 0:29 / /sys/fs/cgroup/memory rw,relatime shared:11 - cgroup cgroup rw,memory
34 30 0:30 /system.slice /mnt/my\\040cpu rw - cgroup cgroup rw,cpu,cpuacct
"""


@pytest.fixture
def groups() -> Iterator[Cgroups]:
    """Those of this host; skips aloud where it gives none that counts."""
    found = open_cgroups(f"test-{os.getpid()}")
    if "memory" not in found.roots and "memory" not in found.controllers:
        pytest.skip(f"NO CONTROL GROUP WITH A COUNTER CAN BE MADE HERE: {found.summary}")
    yield found
    for group in found.leftovers():
        group.kill()
        group.remove()
    found.close()


def run_inside(group: WorkerGroup, argv: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run a program as an engine is started; wait for its end."""
    done: list[subprocess.CompletedProcess[str]] = []

    def work() -> None:
        with group.inside():
            done.append(subprocess.run(group.entering(argv), capture_output=True, text=True, check=False))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return done[0]


def test_the_hierarchies_are_found_where_they_are_mounted() -> None:
    found = read_hierarchies(V1, V1_MOUNTS)

    assert found == (
        Hierarchy(1, frozenset({"memory"}), Path("/sys/fs/cgroup/memory/system.slice/orchctl.service")),
        Hierarchy(1, frozenset({"cpu", "cpuacct"}), Path("/mnt/my cpu")),
        Hierarchy(2, frozenset(), Path("/sys/fs/cgroup/unified")),
    )


@pytest.mark.parametrize(
    "mounts", ["", "nonsense - ", "1 2 3 / /x rw - cgroup2", "\n\n", V1_MOUNTS.replace("/ /", "/a /")]
)
def test_what_is_not_mounted_or_not_readable_is_left_out(mounts: str) -> None:
    assert [each for each in read_hierarchies(V1, mounts) if each.version == 2] == []


def test_without_control_groups_there_are_none_and_that_is_said(tmp_path: Path) -> None:
    nothing = choose("i", (Hierarchy(1, frozenset({"memory"}), tmp_path / "missing"),))

    assert nothing.summary == NONE
    assert nothing.make("i.1") is None
    assert nothing.leftovers() == ()
    with pytest.raises(CgroupError, match="a limit of memory is configured"):
        nothing.make("i.1", GroupWish(memory_max=MIB))


def test_a_child_is_born_inside_and_the_daemon_stays_outside(groups: Cgroups) -> None:
    group = groups.make("mark.1")
    assert group is not None
    said = run_inside(group, ("cat", "/proc/self/cgroup")).stdout

    assert "/mark.1" in said
    assert "/mark.1" not in Path("/proc/self/cgroup").read_text()
    assert group.pids() == frozenset()
    assert group.remove()


def test_the_thread_that_starts_an_engine_leaves_the_group_again(groups: Cgroups) -> None:
    group = groups.make("mark.1")
    assert group is not None
    seen: list[bool] = []

    def work() -> None:
        with group.inside():
            seen.append("/mark.1" in Path("/proc/thread-self/cgroup").read_text())
        seen.append("/mark.1" in Path("/proc/thread-self/cgroup").read_text())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert seen == ["" not in group.folders, False]


def test_the_kernel_kills_at_the_limit_and_the_counter_of_this_group_alone_says_so(groups: Cgroups) -> None:
    group, other = groups.make("mark.1", GroupWish(memory_max=64 * MIB)), groups.make("mark.2")
    assert group is not None
    assert other is not None
    ended = run_inside(group, GREEDY)

    assert ended.returncode == -signal.SIGKILL
    assert ((group.oom_kills() or 0) > 0, other.oom_kills()) == (True, 0)


def test_processors_and_their_time_are_bounded(groups: Cgroups) -> None:
    if "cpuset" not in groups.roots:
        pytest.skip("NO CPUSET OF VERSION 1 HERE")
    group = groups.make("mark.1", GroupWish(cpus=0.5, pinned=frozenset({0})))
    assert group is not None
    said = run_inside(group, (sys.executable, "-c", "import os; print(os.sched_getaffinity(0))")).stdout

    assert said.strip() == "{0}"
    assert (group.folders["cpu"] / "cpu.cfs_quota_us").read_text().strip() == "50000"


def test_a_limit_that_the_kernel_refuses_leaves_nothing(groups: Cgroups) -> None:
    with pytest.raises(CgroupError, match="cannot be set"):
        groups.make("mark.1", GroupWish(memory_max=-5))

    assert groups.leftovers() == ()


async def test_a_stray_that_left_its_session_and_its_environment_is_caught(groups: Cgroups, tmp_path: Path) -> None:
    every = Processes(instance=groups.instance, environ=os.environ, bounds=PATIENT, groups=groups)
    engine = await every.spawn(order_of(tmp_path, *ESCAPE), Exits())
    log = tmp_path / "pool-a.log"
    await until(lambda: "stray" in log.read_text(), what="the stray")
    stray = int(log.read_text().split("stray ")[1].split()[0])
    await until(lambda: b"NOTHING" in Path(f"/proc/{stray}/environ").read_bytes(), what="its new environment")
    seen = engine.pids()
    stopped = await engine.stop()
    await every.close()

    assert seen == {engine.pid, stray}
    assert (is_alive(stray), stopped.leftovers) == (False, ())
    assert groups.leftovers() == ()


async def test_a_stray_of_an_earlier_daemon_is_caught_by_the_next_one(groups: Cgroups) -> None:
    group = groups.make(f"{groups.instance}.dead")
    assert group is not None
    strays: list[subprocess.Popen[bytes]] = []

    def work() -> None:
        with group.inside():
            strays.append(subprocess.Popen(group.entering(("/bin/sleep", "600")), env={}, start_new_session=True))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    following = Processes(instance=groups.instance, environ=os.environ, bounds=PATIENT, groups=groups)
    left = await following.end_leftovers()

    assert (strays[0].wait(20), left) == (-signal.SIGKILL, ())
    assert groups.leftovers() == ()


def test_version_2_enters_by_itself_and_is_killed_in_one_step() -> None:
    if not os.access(UNIFIED / "cgroup.procs", os.W_OK):
        pytest.skip("NO WRITABLE HIERARCHY OF VERSION 2 IS MOUNTED HERE")
    groups = Cgroups(f"test2-{os.getpid()}", {"": UNIFIED})
    group = groups.make("mark.1")
    assert group is not None
    script = "sleep 600 & sleep 600 & cat /proc/self/cgroup; wait"
    argv = group.entering(("sh", "-c", script))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = next(line for line in child.stdout if line.startswith("0::"))
        inside = group.pids()
        group.kill()
        child.wait()

    assert said.strip().endswith("/mark.1")
    assert child.pid in inside
    assert len(inside) >= 3
    assert group.remove()
    groups.close()
    assert "without controllers" in groups.summary


async def test_version_2_an_engine_that_was_told_to_end_leaves_nothing_at_once(tmp_path: Path) -> None:
    if not os.access(UNIFIED / "cgroup.procs", os.W_OK):
        pytest.skip("NO WRITABLE HIERARCHY OF VERSION 2 IS MOUNTED HERE")
    instance = f"test3-{os.getpid()}"
    groups = Cgroups(instance, {"": UNIFIED})
    every = Processes(instance=instance, environ=os.environ, bounds=PATIENT, groups=groups)
    engine = await every.spawn(order_of(tmp_path, "sleep", "600"), Exits())
    await until(lambda: engine.pid in engine.pids() and groups.find(engine.mark), what="its group")
    stopped = await asyncio.wait_for(engine.stop(), PATIENT.sweep_s / 2)
    await every.close()

    assert stopped == Stopped(-signal.SIGKILL, ())
