"""Tenants of a config: quotas and weights, what may stand there, and what a change of them is called."""

import pytest

from supervisor.config.diff import DaemonChanged, PoolChanged, diff
from supervisor.config.schema import known_keys
from supervisor.core.plan import TenantPlan
from supervisor.runtime.blueprint import draw_host, draw_pools
from supervisor.wire.codes import Priority, QueueOrder
from tests.config.texts import MODELS, SOURCE, a_config, a_pool, config_of, problems_of

ACME = (
    "tenants:\n  acme: { quota: { concurrent_jobs: 4, waiting_tasks: 3, memory_bytes: 1024 }, weight: 2 }\n  b.c: {}\n"
)


@pytest.mark.orch("ORCH-3036")
def test_a_tenant_has_quotas_and_a_weight_or_neither() -> None:
    host = draw_host(config_of(a_config(tail=ACME)))

    assert host.tenants == {
        "acme": TenantPlan(concurrent_jobs=4, waiting_tasks=3, memory_bytes=1024, weight=2),
        "b.c": TenantPlan(),
    }


@pytest.mark.parametrize(
    ("line", "pointer", "message"),
    [
        (
            "acme: { quota: { concurrent_jobs: 0 } }",
            "/tenants/acme/quota/concurrent_jobs",
            "greater than or equal to 1",
        ),
        ("acme: { quota: { waiting_tasks: 2.5 } }", "/tenants/acme/quota/waiting_tasks", "a whole number"),
        ("acme: { quota: { memory_bytes: 1GiB } }", "/tenants/acme/quota/memory_bytes", "a whole number, not '1GiB'"),
        ("acme: { weight: 1001 }", "/tenants/acme/weight", "less than or equal to 1000"),
        ("acme: { weight: yes }", "/tenants/acme/weight", "a whole number"),
        ("acme: { quota: { jobs: 3 } }", "/tenants/acme/quota/jobs", "unknown key"),
        ("acme: { qouta: {} }", "/tenants/acme/qouta", "did you mean 'quota'?"),
        ("Acme: {}", "/tenants/Acme", "'Acme' is not the name of a tenant"),
        ("acme: 7", "/tenants/acme", "should be a mapping"),
    ],
)
def test_what_may_not_stand_there_is_named_with_its_line(line: str, pointer: str, message: str) -> None:
    (problem,) = problems_of(a_config(tail=f"tenants:\n  {line}\n"))

    assert (problem.line, problem.pointer) == (7, pointer)
    assert message in problem.message


def test_the_schema_knows_the_keys_of_a_tenant() -> None:
    assert set(known_keys(("tenants", "acme"))) == {"quota", "weight"}
    assert set(known_keys(("tenants", "acme", "quota"))) == {"concurrent_jobs", "waiting_tasks", "memory_bytes"}


def test_another_quota_is_a_change_of_the_daemon_and_another_order_of_its_pool() -> None:
    old = config_of(a_config(tail=ACME))
    new = config_of(a_config(a_pool("queue: { order: fair }"), tail=ACME.replace("jobs: 4", "jobs: 5")))

    assert diff(old, new) == (PoolChanged("a", ("queue.order",)), DaemonChanged(("tenants",)))


def test_pools_of_one_set_agree_on_the_order_of_their_queue() -> None:
    pools = (a_pool("queue: { order: fair }"), a_pool(id="b"))

    (problem,) = problems_of(a_config(*pools, tail=MODELS))

    assert problem.pointer == "/pools/1/queue/order"
    assert "the same as in pool a" in problem.message


@pytest.mark.orch("ORCH-3006")
def test_order_and_rates_of_a_pool_reach_its_plan() -> None:
    limits = (
        "admission: { priorities: [{ name: batch, rate_limit_rps: 0.5 }, { name: interactive, rate_limit_rps: 8 }] }"
    )
    config = config_of(a_config(a_pool("queue: { order: fair, capacity: 9 }", limits)))

    plan = draw_pools(config, SOURCE)["a"].plan

    assert plan.queue_order is QueueOrder.FAIR
    bounds = [plan.classes[priority] for priority in (Priority.INTERACTIVE, Priority.BATCH)]
    assert [(each.capacity, each.rate_limit_rps, each.burst) for each in bounds] == [(9, 8.0, 8.0), (9, 0.5, 1.0)]


def test_a_class_without_a_rate_has_none_in_its_plan() -> None:
    plan = draw_pools(config_of(a_config()), SOURCE)["a"].plan

    assert [bounds.rate_limit_rps for bounds in plan.classes.values()] == [None, None]
