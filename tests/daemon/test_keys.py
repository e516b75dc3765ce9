"""Keys, tenants and TLS of a real daemon: who is let in, what a changed file does, and that no key lies about."""

import http.client
import json
import os
import re
import shutil
import signal
import ssl
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from supervisor.config.keys import Issued
from supervisor.wire.codes import Scope
from tests.daemon.conftest import MakeDaemon
from tests.support.certificates import make_certificate
from tests.support.daemon import Daemon, a_request
from tests.support.keys import a_key, bearer, revoke, rotate
from tests.support.pools import a_fake_pool
from tests.support.waiting import wait_until

UNKNOWN = "ok_" + "Z" * 43
LONG = {"prompt": "long [[slow_ms@20]]", "max_tokens": 60, "seed": 7}


def key_file(daemon: Daemon) -> Path:
    return daemon.folder / "state" / "keys.json"


def events(daemon: Daemon, name: str) -> list[dict[str, Any]]:
    return [line for line in daemon.log_lines() if line["event"] == name]


def reread(daemon: Daemon, outcome: str = "file taken up", what: str = "API keys") -> None:
    """SIGHUP, and wait until that file was read again."""

    def outcomes() -> int:
        return sum(line["what"] == what for line in events(daemon, outcome))

    before = outcomes()
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: outcomes() > before, what=f"{what}: {outcome}")


def status_of(daemon: Daemon, key: Issued | str | None, path: str = "/v1/tasks") -> int:
    return daemon.ask("GET", path, headers=bearer(key) if key else {}).status


@pytest.fixture
def keyed(make_daemon: MakeDaemon) -> tuple[Daemon, Issued]:
    """A Ready daemon on the fake engine with one key of the tenant blue, which its requests carry."""
    daemon = make_daemon(a_fake_pool())
    key = a_key(key_file(daemon), tenant="blue")
    daemon.headers = bearer(key)
    return daemon.start_ready(), key


def test_the_first_key_closes_the_door_of_a_daemon_that_runs(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon().start()
    before = [status_of(daemon, None), status_of(daemon, None, "/metrics")]

    key = a_key(key_file(daemon))

    wait_until(lambda: status_of(daemon, None) == 401, what="the key's being asked for")
    assert before == [200, 200]
    assert status_of(daemon, key) == 200
    assert daemon.ask_control("GET", "/v1/tasks").status == 200


def test_without_any_key_tcp_has_no_control_plane(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start()

    drained = daemon.ask("POST", "/v1/pools/tiny/drain", {"deadline_ms": 1})

    assert (drained.status, drained.json["reason"]) == (403, "scope")
    assert not daemon.pool("tiny")["draining"]


@pytest.mark.orch("ORCH-3035")
def test_a_rotation_drops_no_stream_and_ends_the_old_key(keyed: tuple[Daemon, Issued]) -> None:
    daemon, key = keyed
    other = a_key(key_file(daemon), tenant="blue")
    reread(daemon)
    statuses = [status_of(daemon, other)]
    task_id = daemon.accept(**LONG)
    with daemon.open_stream(task_id) as stream:
        seen = [next(stream) for _ in range(5)]
        successor = rotate(key_file(daemon), other, grace_s=0)
        reread(daemon)
        statuses += [status_of(daemon, other), status_of(daemon, successor), status_of(daemon, key)]
        seen += list(stream)

    assert statuses == [200, 401, 200, 200]
    assert seen[-1].name == "end"
    assert seen[-1].data["tokens_out"] == 60
    assert [event.data["i"] for event in seen if event.name == "token"] == list(range(60))


def test_a_rotated_key_opens_until_its_grace_is_over_and_a_revoked_one_no_more(keyed: tuple[Daemon, Issued]) -> None:
    daemon, key = keyed
    brief = a_key(key_file(daemon), lifetime=timedelta(seconds=1.5))
    successor = rotate(key_file(daemon), key, grace_s=600)
    reread(daemon)
    in_grace = [status_of(daemon, key), status_of(daemon, successor)]

    wait_until(lambda: status_of(daemon, brief) == 401, what="the end of a brief key")
    revoke(key_file(daemon), key)
    reread(daemon)

    assert in_grace == [200, 200]
    assert [status_of(daemon, key), status_of(daemon, successor)] == [401, 200]


def test_a_bad_key_file_leaves_the_old_keys_in_force_and_says_so(keyed: tuple[Daemon, Issued]) -> None:
    daemon, key = keyed
    path = key_file(daemon)
    good = path.read_bytes()

    found = []
    for spoil in (lambda: path.write_bytes(good[:50]), lambda: path.chmod(0o644), path.unlink):
        spoil()
        reread(daemon, "file not taken up")
        found.append((status_of(daemon, key), status_of(daemon, UNKNOWN), daemon.status()["causes"]))
    path.write_bytes(good)
    path.chmod(0o600)
    reread(daemon)

    assert [each[:2] for each in found] == [(200, 401)] * 3
    assert [len(causes) for _, _, causes in found] == [1, 1, 1]
    assert "API keys: the former stays in force, because " in found[0][2][0]
    assert "keys.json is gone" in found[2][2][0]
    assert daemon.status()["causes"] == []


@pytest.mark.orch("ORCH-3035")
def test_another_tenants_task_is_as_unknown_as_one_that_never_was(keyed: tuple[Daemon, Issued]) -> None:
    daemon, _ = keyed
    red = a_key(key_file(daemon), tenant="red")
    reread(daemon)
    mine = daemon.accept(**LONG)
    never = "00000000-0000-4000-8000-000000000000"

    def ask(task_id: str) -> list[tuple[int, dict[str, Any]]]:
        asked = (("GET", ""), ("GET", "/stream"), ("POST", "/cancel"))
        replies = [daemon.ask(method, f"/v1/tasks/{task_id}{tail}", headers=bearer(red)) for method, tail in asked]
        return [(reply.status, {**reply.json, "correlation_id": ""}) for reply in replies]

    foreign, unknown = ask(mine), ask(never)
    none_listed = daemon.ask("GET", "/v1/tasks", headers=bearer(red)).json["tasks"]
    same_id = daemon.ask("POST", "/v1/tasks", a_request(task_id=mine), headers=bearer(red))

    assert foreign == unknown
    assert {status for status, _ in foreign} == {404}
    assert none_listed == []
    assert same_id.status == 202
    assert same_id.json["job_id"] != daemon.ask("GET", f"/v1/tasks/{mine}").json["job_id"]
    assert daemon.wait_terminal(mine)["state"] == "ended", "a stranger's cancel changed nothing"


def test_no_key_lies_about_after_use(keyed: tuple[Daemon, Issued]) -> None:
    daemon, key = keyed
    successor = rotate(key_file(daemon), key, grace_s=60)
    reread(daemon)
    daemon.read_stream(daemon.accept())
    daemon.ask("GET", "/v1/tasks", headers=bearer(successor))
    daemon.ask("GET", f"/{successor.secret}", headers=bearer(UNKNOWN))
    assert daemon.process is not None
    pids = [daemon.process.pid, *daemon.engine_pids()]
    about = b"".join(
        Path(f"/proc/{pid}/{name}").read_bytes() for pid in pids for name in ("cmdline", "environ")
    ) + b"".join(path.read_bytes() for path in daemon.folder.rglob("*") if path.is_file())
    daemon.stop()
    about += b"".join(path.read_bytes() for path in daemon.folder.rglob("*") if path.is_file())

    assert len(pids) == 2
    assert not re.search(rb"ok_[A-Za-z0-9_-]{43}", about)
    for secret in (key.secret, successor.secret, UNKNOWN):
        assert secret.removeprefix("ok_").encode() not in about


def test_the_log_names_the_key_that_failed_and_who_changed_a_pool(keyed: tuple[Daemon, Issued]) -> None:
    daemon, key = keyed
    control = a_key(key_file(daemon), Scope.CONTROL)
    reread(daemon)
    daemon.ask("POST", "/v1/pools/tiny/drain", {"deadline_ms": 1}, headers=bearer(control))
    daemon.ask("POST", "/v1/pools/tiny/drain", {"deadline_ms": 1})
    daemon.ask_control("POST", "/v1/pools/tiny/resume")
    daemon.ask("GET", "/v1/tasks", headers=bearer(UNKNOWN))

    actions = [
        (line["actor"], line["action"], line["target"], line["status"]) for line in daemon.wait_lines("control action")
    ]
    assert actions == [
        (control.key.id, "drain", "tiny", 202),
        (f"uid:{os.geteuid()}", "resume", "tiny", 202),
    ]
    assert [line["actor"] for line in daemon.wait_lines("request not permitted")] == [key.key.id]
    assert [(line["reason"], line["peer"]) for line in daemon.wait_lines("request not authenticated")] == [
        ("unknown", "127.0.0.1")
    ]
    daemon.headers = bearer(a_key(key_file(daemon), Scope.METRICS))
    reread(daemon)
    assert {name: value for name, value in daemon.series("auth_failures_total").items() if value} == {
        '{engine="none",engine_version="none",reason="scope"}': 1.0,
        '{engine="none",engine_version="none",reason="unknown"}': 1.0,
    }


def test_beyond_the_loopback_a_key_is_needed_to_start_at_all(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    listen = {"listen": {"host": "0.0.0.0", "port": 0, "socket": str(tmp_path / "c.sock")}}
    daemon = make_daemon(settings=listen).spawn()
    assert daemon.process is not None
    code = daemon.process.wait(20)
    refusal = daemon.log_text()

    key = a_key(key_file(daemon))
    daemon.start()

    assert code == 78
    assert (
        f"there is no API key in {key_file(daemon)}; run: orchctl keys create --config {daemon.config_path}" in refusal
    )
    assert "warning" in refusal
    assert "listen.tls" in refusal
    assert [status_of(daemon, None), status_of(daemon, key)] == [401, 200]


@pytest.mark.parametrize("mode", [0o644, 0o640])
def test_a_key_file_that_others_may_read_ends_the_start(make_daemon: MakeDaemon, mode: int) -> None:
    daemon = make_daemon()
    a_key(key_file(daemon))
    key_file(daemon).chmod(mode)

    daemon.spawn()

    assert daemon.process is not None
    assert daemon.process.wait(20) == 78
    assert f"others may read {key_file(daemon)} (mode {mode:04o}); run: chmod 600" in daemon.log_text()


def test_keys_may_come_as_a_credential_of_systemd(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    key = a_key(credentials / "keys.json")
    (credentials / "keys.json").chmod(0o440)

    daemon = make_daemon(env={"CREDENTIALS_DIRECTORY": str(credentials)}).start()

    assert [status_of(daemon, None), status_of(daemon, key)] == [401, 200]
    assert daemon.status()["keys_file"] == str(credentials / "keys.json")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl program makes the certificates")
def test_tls_is_renewed_under_way_and_a_bad_pair_changes_nothing(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    certs = [make_certificate(tmp_path, name) for name in ("first", "second")]
    cert, key = shutil.copy(certs[0][0], tmp_path / "c.pem"), shutil.copy(certs[0][1], tmp_path / "k.pem")
    listen = {"port": 0, "socket": str(tmp_path / "c.sock"), "tls": {"cert_file": "c.pem", "key_file": "k.pem"}}
    daemon = make_daemon(settings={"listen": listen}).start()

    first = _subject(daemon, certs[0][0])
    shutil.copy(certs[1][0], cert)
    reread(daemon, "file not taken up", what="TLS certificate")
    kept, causes = _subject(daemon, certs[0][0]), daemon.status()["causes"]
    shutil.copy(certs[1][1], key)
    reread(daemon, what="TLS certificate")
    second = _subject(daemon, certs[1][0])

    assert [first, kept, second] == ["first", "first", "second"]
    assert len(causes) == 1
    assert causes[0].startswith("TLS certificate: the former stays in force, because ")
    assert daemon.status()["causes"] == []
    assert events(daemon, "daemon serves")[0]["listen"].startswith("https://")
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        daemon.ask("GET", "/healthz")


def _subject(daemon: Daemon, trusted: Path) -> str:
    """Whose certificate it is, after a request that must succeed."""
    context = ssl.create_default_context(cafile=trusted)
    connection = http.client.HTTPSConnection("localhost", daemon.port, timeout=10, context=context)
    try:
        connection.request("GET", "/healthz")
        assert json.loads(connection.getresponse().read()) == {"status": "live"}
        peer: Any = connection.sock.getpeercert()
        return str(peer["subject"][0][0][1])
    finally:
        connection.close()
