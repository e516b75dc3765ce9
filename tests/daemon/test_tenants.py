"""Tenants of a real daemon, told apart by their keys: quotas that a kill does not change, rates, and turns."""

from time import monotonic
from typing import Any

import pytest

from supervisor.config.keys import Issued
from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import Daemon, Reply, a_request
from tests.support.keys import a_key, bearer
from tests.support.pools import a_fake_pool
from tests.support.waiting import wait_until

JOBS = 3
SLOW = {"prompt": "long [[slow_ms@50]]", "max_tokens": 400}


class Tenant:
    """One tenant and its key at a daemon."""

    def __init__(self, daemon: Daemon, name: str) -> None:
        self.daemon, self.name = daemon, name
        self.key: Issued = a_key(daemon.folder / "state" / "keys.json", tenant=name)

    def ask(self, method: str, path: str, body: object = None) -> Reply:
        return self.daemon.ask(method, path, body, bearer(self.key))

    def submit(self, **fields: object) -> Reply:
        return self.ask("POST", "/v1/tasks", a_request(**fields))

    def accept(self, **fields: object) -> str:
        reply = self.submit(**fields)
        assert reply.status == 202, reply.body
        task_id: str = reply.json["task_id"]
        return task_id

    def usage(self) -> dict[str, Any]:
        """What the status of the host says of it."""
        found: dict[str, Any] = next(view for view in self.daemon.status()["tenants"] if view["tenant"] == self.name)
        return found


def check_429(reply: Reply, reason: str) -> int:
    """A complete answer of backpressure; gives its hint in ms."""
    assert reply.status == 429, reply.body
    assert (reply.json["code"], reply.json["reason"], reply.json["retriable"]) == ("ADMISSION_REJECT", reason, True)
    hint = int(reply.headers["X-Backoff-Ms"])
    assert reply.json["retry_after_ms"] == hint
    assert int(reply.headers["Retry-After"]) == max(-(-hint // 1_000), 1)
    return hint


@pytest.mark.orch("ORCH-3036", "ORCH-3029")
def test_a_quota_holds_for_its_tenant_alone_and_exactly_after_a_kill(make_daemon: MakeDaemon) -> None:
    tenants = {"acme": {"quota": {"concurrent_jobs": JOBS}}}
    daemon = make_daemon(a_fake_pool(disconnect_grace_ms=-1), settings={"tenants": tenants})
    acme, globex = Tenant(daemon, "acme"), Tenant(daemon, "globex")
    daemon.start_ready()
    accepted = [acme.accept(**SLOW) for _ in range(JOBS)]
    before = [acme.submit(**SLOW), globex.submit(**SLOW), acme.submit(**{**SLOW, "task_id": accepted[0]})]
    used = acme.usage()

    daemon.kill()
    daemon.start_ready()

    check_429(before[0], "quota")
    assert before[1].status == 202
    assert before[2].status == 400, "a known task with another body is a conflict, not a matter of quota"
    assert (used["jobs"], used["jobs_max"], used["waiting"]) == (JOBS, JOBS, JOBS - 1)
    assert (acme.usage()["jobs"], acme.usage()["memory_bytes"]) == (JOBS, used["memory_bytes"])
    check_429(acme.submit(**SLOW), "quota")
    assert acme.ask("POST", f"/v1/tasks/{accepted[1]}/cancel").status == 204
    acme.accept(**SLOW)
    check_429(acme.submit(**SLOW), "quota")


@pytest.mark.orch("ORCH-3006")
def test_a_key_may_submit_so_fast_and_the_hint_of_a_refusal_is_kept(make_daemon: MakeDaemon) -> None:
    limits = {"priorities": [{"name": "interactive", "rate_limit_rps": 1, "burst": 2}]}
    daemon = make_daemon(a_fake_pool(admission=limits))
    acme, globex = Tenant(daemon, "acme"), Tenant(daemon, "globex")
    daemon.start_ready()
    first = a_request()
    passed = [acme.ask("POST", "/v1/tasks", first).status, acme.submit().status]
    repeat = acme.ask("POST", "/v1/tasks", first)
    refused = a_request()
    hint_ms = check_429(acme.ask("POST", "/v1/tasks", refused), "rate_limit")
    others = [globex.submit().status, acme.submit(priority="batch").status]
    began = monotonic()

    wait_until(lambda: acme.ask("POST", "/v1/tasks", refused).status == 202, within_s=10, what="the token")

    assert passed == [202, 202]
    assert repeat.status == 202
    assert others == [202, 202]
    assert hint_ms <= 1_000
    assert (monotonic() - began) * 1_000 >= hint_ms - 500


@pytest.mark.orch("ORCH-3036")
def test_a_flood_of_one_tenant_does_not_keep_another_waiting(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool(queue={"order": "fair"}, disconnect_grace_ms=-1))
    flood, calm = Tenant(daemon, "flood"), Tenant(daemon, "calm")
    daemon.start_ready()
    flooded = [flood.accept(prompt="one [[slow_ms@2]]", max_tokens=100) for _ in range(40)]

    reply = calm.submit(prompt="mine", max_tokens=100)

    task_id = reply.json["task_id"]
    assert reply.json["queue_position"] <= 4
    wait_until(lambda: calm.ask("GET", f"/v1/tasks/{task_id}").json["state"] == "ended", what="the calm one's end")
    assert flood.ask("GET", f"/v1/tasks/{flooded[-1]}").json["state"] == "waiting"


@pytest.mark.orch("ORCH-3028")
def test_no_tenant_and_no_key_is_in_the_metrics(make_daemon: MakeDaemon) -> None:
    tenants = {"acme-corp": {"quota": {"concurrent_jobs": 1}}}
    daemon = make_daemon(a_fake_pool(disconnect_grace_ms=-1), settings={"tenants": tenants})
    acme = Tenant(daemon, "acme-corp")
    daemon.start_ready()
    acme.accept(**SLOW)
    check_429(acme.submit(), "quota")

    page = daemon.ask_control("GET", "/metrics").body.decode()

    assert "tasks_rejected_total{" in page
    assert 'reason="quota"' in page
    assert "acme" not in page
    assert acme.key.key.id not in page
