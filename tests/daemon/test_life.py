"""The life of the daemon and of its worker: Ready only with proof, crashes, drains, and an end that leaves nothing."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import ROOT, Daemon
from tests.support.fake_nvml import FakeGpu, FakeNvml
from tests.support.pools import a_fake_pool, a_pool
from tests.support.waiting import wait_until

GPU = "GPU-11111111-2222-3333-4444-555555555555"


@pytest.mark.engines
@pytest.mark.orch("ORCH-3001", "ORCH-3002", "ORCH-3037", "ORCH-3049")
def test_a_pool_is_ready_after_every_step_and_shows_each(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon().start()
    early = daemon.submit()
    daemon.wait_ready()
    pool = daemon.pool("tiny")

    assert (early.status, early.json["code"], early.json["reason"]) == (503, "POOL_UNREADY", "loading")
    assert int(early.headers["Retry-After"]) >= 1
    assert [step["name"] for step in pool["steps"]] == [
        "model digest",
        "memory headroom",
        "process up",
        "engine health",
        "engine properties",
        "model in use",
        "residency",
        "minimal_decode",
        "cancel",
        "telemetry",
    ]
    assert {step["state"] for step in pool["steps"]} == {"passed"}
    assert pool["metrics"]["slots_total"] == 1
    assert pool["ctx_per_slot"] == 512
    assert daemon.ask("GET", "/readyz").status == 200


@pytest.mark.fault("F02")
@pytest.mark.orch("ORCH-3053")
def test_a_crashed_worker_is_replaced_and_the_stream_has_no_seam(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    slow = {"prompt": "seam [[slow_ms@10]]", "max_tokens": 100, "seed": 3}
    whole = daemon.read_stream(daemon.accept(**slow))
    task_id = daemon.accept(**slow)
    with daemon.open_stream(task_id) as events:
        seen = [next(events) for _ in range(20)]
        (pid,) = daemon.engine_pids()
        os.kill(pid, signal.SIGKILL)
        seen += list(events)

    text = "".join(event.data["t"] for event in seen if event.name == "token")
    assert seen[-1].name == "end"
    assert text == whole.text
    assert daemon.pool("tiny")["metrics"]["restarts_total"] == 1
    assert len(daemon.wait_lines("worker ready", count=2)) == 2
    (incident,) = daemon.wait_lines("worker serves again")
    assert "SIGKILL" in incident["cause"]
    assert incident["done"] == "started again, 1 time"
    (backoff,) = daemon.wait_lines("worker backoff")
    assert 0 < backoff["retry_in_ms"] < incident["out_ms"] + 100


@pytest.mark.engines
def test_sigterm_leaves_no_process_port_or_socket(daemon: Daemon) -> None:
    engines = daemon.engine_pids()
    code = daemon.stop()

    assert engines
    assert code == 0
    assert daemon.engine_pids() == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in engines)
    assert not daemon.socket_path.exists()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", daemon.port)) != 0
    assert list((daemon.folder / "state").glob("worker-*")) == []


@pytest.mark.fault("F43")
@pytest.mark.engines
def test_sigterm_lets_what_runs_come_to_its_end(daemon: Daemon) -> None:
    task_id = daemon.accept(max_tokens=480)
    with daemon.open_stream(task_id) as events:
        next(events)
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGTERM)
        seen = list(events)

    assert seen[-1].name == "end"
    assert seen[-1].data["tokens_out"] == 480
    assert daemon.process.wait(20) == 0


def test_systemd_is_told(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(20)
        daemon = make_daemon(env={"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "200000"}).start()
        heard = [manager.recv(4096).decode() for _ in range(6)]
        daemon.stop()
        while "STOPPING=1" not in heard[-1]:
            heard.append(manager.recv(4096).decode())

    assert heard[0].startswith("READY=1\nSTATUS=serving on http://127.0.0.1:")
    assert "WATCHDOG=1" in heard
    assert any(text.startswith("STATUS=") for text in heard)


@pytest.mark.orch("ORCH-1101", "ORCH-3018")
def test_without_a_gpu_nothing_is_spawned_and_the_control_plane_runs(make_daemon: MakeDaemon, nvml: FakeNvml) -> None:
    daemon = make_daemon(simulate=None, env=nvml.env()).start()
    wait_until(lambda: daemon.pool("tiny")["state"] == "no-device", what="the verdict")
    refused = daemon.submit()

    assert (refused.status, refused.json["code"], refused.json["reason"]) == (503, "POOL_UNAVAILABLE", "no_gpu")
    assert refused.json["retriable"] is True
    assert daemon.status()["gpu_cause"]
    assert daemon.ask("GET", "/healthz").status == 200
    assert daemon.ask("GET", "/readyz").status == 503
    assert daemon.engine_pids() == []
    assert not list((daemon.folder / "state" / "logs").iterdir())


@pytest.mark.engines
@pytest.mark.orch("ORCH-3001", "ORCH-3011")
def test_a_worker_sees_its_own_devices_and_nothing_of_the_daemons_secrets(
    make_daemon: MakeDaemon, nvml: FakeNvml
) -> None:
    other = "GPU-99999999-2222-3333-4444-555555555555"
    nvml.set(FakeGpu(other), FakeGpu(GPU))
    daemon = make_daemon(a_pool(devices=[1]), simulate=None, env={**nvml.env(), "HF_TOKEN": "a-secret"}).start()
    pid = wait_until(lambda: daemon.pool("tiny")["pid"], what="a process")

    environ = dict(
        entry.split("=", 1) for entry in Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0") if entry
    )
    assert environ["CUDA_VISIBLE_DEVICES"] == GPU
    assert environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert "HF_TOKEN" not in environ
    assert os.getpgid(pid) == pid
    assert daemon.pool("tiny")["devices"] == [GPU]


@pytest.mark.orch("ORCH-1101")
def test_simulation_stands_in_every_log_line_status_and_response(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon().start()
    reply = daemon.ask("GET", "/healthz")

    assert reply.headers["X-Orchctl-Simulated"] == "1x8GiB"
    assert daemon.status()["simulated"] == "1x8GiB"
    assert {line["simulated"] for line in daemon.log_lines()} == {"1x8GiB"}


@pytest.mark.orch("ORCH-1101")
def test_simulation_is_refused_where_a_gpu_is(make_daemon: MakeDaemon, nvml: FakeNvml) -> None:
    nvml.set(FakeGpu(GPU))
    daemon = make_daemon(env=nvml.env()).spawn()

    assert daemon.process is not None
    assert daemon.process.wait(20) == 78
    assert "GPUs cannot be simulated here" in daemon.log_text()


@pytest.mark.orch("ORCH-3030")
def test_a_wrong_configuration_ends_with_78_file_line_and_pointer(tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text("pools:\n  - id: a\n    engine: llamacpp\n    model: m\n    devices: [0]\n    ctxx: 12\n")
    ended = subprocess.run(
        [sys.executable, "-m", "supervisor", "--config", str(config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 78
    assert f"{config}:6:" in ended.stderr
    assert "/pools/0/ctxx" in ended.stderr


@pytest.mark.engines
def test_a_drained_pool_takes_nothing_until_it_is_resumed(daemon: Daemon) -> None:
    drained = daemon.ask_control("POST", "/v1/pools/tiny/drain", {"deadline_ms": 5000})
    refused = daemon.submit()
    health = daemon.pool("tiny")
    resumed = daemon.ask_control("POST", "/v1/pools/tiny/resume")
    daemon.wait_ready()

    assert (drained.status, drained.json["draining"]) == (202, True)
    assert (refused.status, refused.json["code"], refused.json["reason"]) == (503, "POOL_UNREADY", "draining")
    assert health["draining"]
    assert not health["ready"]
    assert (resumed.status, resumed.json["draining"]) == (202, False)
    assert daemon.wait_terminal(daemon.accept())["state"] == "ended"


@pytest.mark.orch("ORCH-3037")
def test_a_model_with_the_wrong_digest_is_never_loaded(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    models = {"models": {"tiny": {"path": str(tmp_path / "tiny.gguf"), "digest": "sha256:" + "0" * 64}}}
    daemon = make_daemon(settings=models).start()
    pool = wait_until(
        lambda: found if (found := daemon.pool("tiny"))["state"] == "backoff" else None, what="the refusal"
    )

    assert "is not the model that is configured" in pool["cause"]
    assert pool["retry_in_ms"] is not None
    assert daemon.engine_pids() == []


def test_a_second_daemon_on_the_same_state_is_refused(make_daemon: MakeDaemon) -> None:
    first = make_daemon().start()
    second = subprocess.run(
        [sys.executable, "-m", "supervisor", "--config", str(first.config_path), "--simulate-gpus", "1x8GiB"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert second.returncode == 75
    assert first.process is not None
    assert str(first.process.pid) in second.stderr
