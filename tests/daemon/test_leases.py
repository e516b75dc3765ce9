"""Leases of GPUs with the real daemon and CLI: the pool gives way, the command gets the GPU, the pool comes back."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.change_crashes import reload_config
from tests.support.changes import rewrite
from tests.support.daemon import Daemon
from tests.support.pools import a_fake_pool
from tests.support.waiting import wait_until

ORCHCTL = str(Path(sys.executable).parent / "orchctl")
COMMAND_S_MAX = 60


def lease(daemon: Daemon, *arguments: str) -> "subprocess.Popen[str]":
    """`orchctl lease …`, running."""
    return subprocess.Popen(
        [ORCHCTL, "lease", *arguments],
        env={**os.environ, "ORCHCTL_SOCKET": str(daemon.socket_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def two_gpus(make_daemon: MakeDaemon, **options: Any) -> Daemon:
    """Two pools, each on a GPU of its own."""
    return make_daemon(a_fake_pool("a"), a_fake_pool("b", devices=[1]), simulate="2x8GiB", **options).start_ready()


def leases_of(daemon: Daemon) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = daemon.ask_control("GET", "/v1/leases").json["leases"]
    return found


def uuid_of(daemon: Daemon, index: int) -> str:
    return str(daemon.status()["devices"][index]["uuid"])


def test_a_command_gets_the_gpu_while_the_other_pool_serves_and_the_pool_comes_back(make_daemon: MakeDaemon) -> None:
    daemon = two_gpus(make_daemon)
    script = f"echo $CUDA_VISIBLE_DEVICES; {ORCHCTL} status -o json"

    out, err = lease(daemon, "take", "gpu:0", "--for", "1m", "--", "sh", "-c", script).communicate(
        timeout=COMMAND_S_MAX
    )
    first, _, status = out.partition("\n")
    pools = {pool["pool_id"]: pool for pool in json.loads(status)["pools"]}
    daemon.wait_ready()

    assert first == uuid_of(daemon, 0), err
    assert (pools["a"]["ready"], pools["a"]["pid"], pools["b"]["ready"]) == (False, None, True)
    assert "leased to uid:" in pools["a"]["cause"]
    assert leases_of(daemon) == []


def test_the_exit_code_of_the_command_is_that_of_the_verb(make_daemon: MakeDaemon) -> None:
    daemon = two_gpus(make_daemon)

    process = lease(daemon, "take", "gpu:0", "--for", "1m", "--", "sh", "-c", "exit 7")

    assert process.wait(COMMAND_S_MAX) == 7


def test_a_holder_that_is_killed_gives_the_gpu_back(make_daemon: MakeDaemon) -> None:
    daemon = two_gpus(make_daemon)
    process = lease(daemon, "take", "gpu:0", "--for", "1h", "--", "sleep", "600")
    wait_until(lambda: [each["state"] for each in leases_of(daemon)] == ["held"])

    process.send_signal(signal.SIGKILL)
    process.wait()
    daemon.wait_ready()

    assert leases_of(daemon) == []
    (ended,) = daemon.wait_lines("lease", phase="ended")
    assert (daemon.wait_lines("lease")[-1], ended["cause"]) == (ended, "its holder is gone")


def test_a_lease_and_its_holder_survive_a_restart_of_the_daemon(make_daemon: MakeDaemon) -> None:
    daemon = two_gpus(make_daemon)
    process = lease(daemon, "take", "gpu:0", "--for", "1h", "--", "sleep", "600")
    wait_until(lambda: [each["state"] for each in leases_of(daemon)] == ["held"])

    daemon.kill()
    daemon.start()
    wait_until(lambda: daemon.pool("b")["ready"])
    held = leases_of(daemon)
    process.terminate()
    process.wait(COMMAND_S_MAX)
    daemon.wait_ready()

    assert [(each["state"], each["holder_pid"]) for each in held] == [("held", process.pid)]
    assert leases_of(daemon) == []


def test_a_lease_without_a_command_is_held_until_it_is_returned(make_daemon: MakeDaemon) -> None:
    daemon = two_gpus(make_daemon)
    out, _ = lease(daemon, "take", "gpu:1", "--for", "1h", "-o", "json").communicate(timeout=COMMAND_S_MAX)
    taken = json.loads(out)
    listed, _ = lease(daemon, "list").communicate(timeout=COMMAND_S_MAX)

    refused = lease(daemon, "take", taken["devices"][0], "--for", "1h")
    _, why = refused.communicate(timeout=COMMAND_S_MAX)
    returned = lease(daemon, "return", taken["lease_id"])
    returned.communicate(timeout=COMMAND_S_MAX)
    daemon.wait_ready()

    assert taken["state"] == "held"
    assert taken["lease_id"] in listed
    assert refused.returncode == 75
    assert "is leased to" in why
    assert returned.returncode == 0


def test_a_command_whose_time_is_over_is_told_and_the_pool_comes_back(make_daemon: MakeDaemon) -> None:
    daemon = two_gpus(make_daemon)

    process = lease(daemon, "take", "gpu:0", "--for", "2s", "--", "sleep", "600")
    _, err = process.communicate(timeout=COMMAND_S_MAX)
    daemon.wait_ready()

    assert process.returncode == 128 + signal.SIGTERM
    assert "the lease is over" in err


def test_who_is_told_to_end_before_the_daemon_has_answered_gives_the_gpus_back(make_daemon: MakeDaemon) -> None:
    daemon = two_gpus(make_daemon)
    assert daemon.process is not None
    os.kill(daemon.process.pid, signal.SIGSTOP)
    process = lease(daemon, "take", "gpu:0", "--for", "1h")
    wait_until(lambda: is_held_back(process.pid, signal.SIGINT), within_s=COMMAND_S_MAX, what="a question")

    process.send_signal(signal.SIGINT)
    os.kill(daemon.process.pid, signal.SIGCONT)
    process.communicate(timeout=COMMAND_S_MAX)

    assert process.returncode == 128 + signal.SIGINT
    assert leases_of(daemon) == []
    daemon.wait_ready()


def is_held_back(pid: int, number: signal.Signals) -> bool:
    """Whether a process does not take this signal now."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_who_is_told_to_end_while_pools_drain_gives_the_gpus_back(
    make_daemon: MakeDaemon, number: signal.Signals
) -> None:
    daemon = two_gpus(make_daemon)
    daemon.accept(prompt="[[slow_ms@10]]", max_tokens=400)
    busy = 0 if daemon.pool("a")["metrics"]["slots_busy"] else 1
    process = lease(daemon, "take", f"gpu:{busy}", "--for", "1h", "--drain", "1h")
    wait_until(lambda: [each["state"] for each in leases_of(daemon)] == ["draining"])

    process.send_signal(number)
    process.communicate(timeout=COMMAND_S_MAX)

    assert process.returncode == 128 + number
    assert leases_of(daemon) == []
    daemon.wait_ready()


def test_the_other_pool_serves_in_place_of_the_one_that_gives_way(make_daemon: MakeDaemon) -> None:
    daemon = two_gpus(make_daemon)
    options = ["--for", "1m", "--drain-to", "b", "-o", "json"]
    taken, _ = lease(daemon, "take", "gpu:0", *options).communicate(timeout=COMMAND_S_MAX)

    stream = daemon.read_stream(daemon.accept(prompt="served elsewhere", max_tokens=4))

    assert json.loads(taken)["drain_to"] == "b"
    assert stream.end.name == "end"


def test_what_one_owner_may_hold_is_bounded_by_the_file_as_it_was_last_taken_up(make_daemon: MakeDaemon) -> None:
    daemon = two_gpus(make_daemon, settings={"leases": {"devices_max": 1}})
    first = lease(daemon, "take", "gpu:0", "--for", "1h", "--", "sleep", "600")
    wait_until(lambda: [each["state"] for each in leases_of(daemon)] == ["held"])

    second = lease(daemon, "take", "gpu:1", "--for", "1m", "--", "true")
    _, refusal = second.communicate(timeout=COMMAND_S_MAX)
    rewrite(daemon, leases={"devices_max": 2})
    reload_config(daemon)
    third = lease(daemon, "take", "gpu:1", "--for", "1m", "--", "true")

    assert third.wait(COMMAND_S_MAX) == 0
    assert second.returncode != 0
    assert "leases.devices_max" in refusal
    first.terminate()
    first.wait()
