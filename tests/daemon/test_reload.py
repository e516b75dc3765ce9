"""Another model, another configuration: taken up while the daemon serves, whole or not at all (ORCH-3031)."""

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.changes import (
    a_fake_config,
    change,
    pool_in_file,
    rewrite,
    rollout,
    served_by,
    settle,
)
from tests.support.daemon import Daemon
from tests.support.fake_engine_script import GOOD
from tests.support.pools import a_fake_pool
from tests.support.waiting import wait_until


@pytest.fixture
def daemon(make_daemon: MakeDaemon, tmp_path: Path) -> Daemon:
    """Two Ready pools on fake engines, and a second model."""
    config = a_fake_config(tmp_path, a_fake_pool(), a_fake_pool("side", ctx=256))
    return make_daemon(settings=config).start_ready()


def pids(daemon: Daemon) -> dict[str, int]:
    return {pool["pool_id"]: pool["pid"] for pool in daemon.status()["pools"]}


def taken_up(daemon: Daemon) -> list[dict[str, Any]]:
    """The lines of reloads that changed something hot."""
    return wait_until(
        lambda: [line for line in daemon.wait_lines("configuration in force") if line["hot"]], what="a line of a reload"
    )


def forgotten(daemon: Daemon) -> list[str]:
    """The workers that are gone for good."""
    return [line["worker"] for line in daemon.log_lines() if line["event"] == "worker forgotten"]


def reload_config(daemon: Daemon, **body: object) -> dict[str, object]:
    reply = daemon.ask_control("POST", "/v1/config/reload", body)
    assert reply.status == 200, reply.body
    found: dict[str, object] = reply.json
    return found


def refused_reload(daemon: Daemon, status: int = 400, **body: object) -> dict[str, object]:
    reply = daemon.ask_control("POST", "/v1/config/reload", body)
    assert reply.status == status, reply.body
    found: dict[str, object] = reply.json
    return found


@pytest.mark.orch("ORCH-3031")
def test_a_reload_puts_another_model_behind_the_same_name(daemon: Daemon) -> None:
    before = served_by(daemon)

    started = change(daemon, "reload", {"new_model_ref": "other"})
    page = settle(daemon)

    after = served_by(daemon)
    assert (started["revision"], page["revision"], page["model_ref"], page["standby"]) == (2, 2, "other", 1)
    assert [(note["kind"], note["outcome"]) for note in page["history"]] == [("reload", "switched")]
    assert (before["pool_id"], after["pool_id"]) == ("tiny", "tiny")
    assert (before["replica_id"], after["replica_id"]) == ("tiny/1", "tiny+2/3")
    assert before["model_digest"] != after["model_digest"]
    assert {label for series in daemon.series("slots_total") for label in series.split('"') if "+" in label} == set()


@pytest.mark.fault("F41")
@pytest.mark.orch("ORCH-3031")
def test_a_model_that_cannot_be_loaded_leaves_the_old_one_serving_and_says_why(daemon: Daemon) -> None:
    served = pids(daemon)["tiny"]
    (daemon.folder / "other.gguf").write_bytes(b"not what its digest says")

    change(daemon, "reload", {"new_model_ref": "other"})
    page = settle(daemon)

    assert (page["revision"], page["model_ref"]) == (1, "tiny")
    assert page["history"][0]["outcome"] == "failed"
    assert "digest" in page["history"][0]["cause"]
    assert pids(daemon)["tiny"] == served
    assert served_by(daemon)["replica_id"] == "tiny/1"


@pytest.mark.fault("F41")
def test_a_model_that_nobody_declared_is_refused_at_once(daemon: Daemon) -> None:
    reply = daemon.ask_control("POST", "/v1/pools/tiny/reload", {"new_model_ref": "unheard-of"})

    assert (reply.status, reply.json["reason"]) == (400, "model")
    assert "unheard-of" in reply.json["message"]
    assert rollout(daemon)["history"] == []


def test_a_dry_run_of_a_reload_changes_nothing(daemon: Daemon) -> None:
    planned = change(daemon, "reload", {"new_model_ref": "other", "dry_run": True})

    assert planned == {"pool_id": "tiny", "revision": 2, "dry_run": True}
    assert rollout(daemon)["rollout"] is None


def test_a_second_rollout_while_one_runs_is_busy(daemon: Daemon) -> None:
    change(daemon, "reload", {"new_model_ref": "other"})

    reply = daemon.ask_control("POST", "/v1/pools/tiny/reload", {"new_model_ref": "other"})

    assert (reply.status, reply.json["code"], reply.json["reason"]) == (409, "ADMISSION_REJECT", "busy")
    assert reply.json["retriable"]


@pytest.mark.orch("ORCH-3031")
def test_a_hot_key_of_the_config_holds_at_once_and_no_process_is_touched(daemon: Daemon) -> None:
    before = pids(daemon)
    side = {**pool_in_file(daemon, "side"), "timeouts": {"wall_ms": 7_000}}
    rewrite(daemon, pools=[pool_in_file(daemon, "tiny"), side])

    reloaded = reload_config(daemon)

    keys = {(each["pool_id"], each["key"], each["effect"]) for each in reloaded["changes"]}  # type: ignore[attr-defined]
    assert keys == {("side", "timeouts.wall_ms", "hot"), ("side", "timeouts.idle_ms", "hot")}
    assert reloaded["generation"] == 2
    assert pids(daemon) == before
    assert daemon.status()["config_generation"] == 2
    assert set(daemon.series("config_generation").values()) == {2.0}


@pytest.mark.orch("ORCH-3031")
def test_only_the_pool_whose_worker_must_change_gets_another_one(daemon: Daemon) -> None:
    before = pids(daemon)
    side = {**pool_in_file(daemon, "side"), "ctx": 128}
    rewrite(daemon, pools=[pool_in_file(daemon, "tiny"), side])

    reloaded = reload_config(daemon)
    page = settle(daemon, "side")

    assert [each["effect"] for each in reloaded["changes"]] == ["replace"]  # type: ignore[attr-defined]
    assert (page["revision"], page["history"][0]["kind"]) == (2, "config")
    after = pids(daemon)
    assert after["tiny"] == before["tiny"]
    assert after["side"] != before["side"]
    assert daemon.pool("side")["ctx"] == 128


@pytest.mark.orch("ORCH-3031")
def test_pools_come_and_go_with_the_config(daemon: Daemon) -> None:
    before = pids(daemon)
    rewrite(daemon, pools=[pool_in_file(daemon, "tiny"), a_fake_pool("late", ctx=64)])

    reload_config(daemon)
    daemon.wait_ready()

    assert list(pids(daemon)) == ["tiny", "late"]
    assert pids(daemon)["tiny"] == before["tiny"]
    assert daemon.ask("GET", "/v1/pools/side/health").status == 404
    assert served_by(daemon, ctx=64)["pool_id"] in {"tiny", "late"}
    wait_until(lambda: before["side"] not in daemon.engine_pids(), within_s=20, what="the end of the pool that went")


@pytest.mark.orch("ORCH-3031")
def test_a_pool_that_is_still_on_its_way_out_cannot_come_back_yet_and_a_plan_says_so(daemon: Daemon) -> None:
    side = pool_in_file(daemon, "side")
    task = daemon.accept(model_ref="tiny", ctx=256, prompt="[[hang@1]]")
    with daemon.open_stream(task) as events:
        assert next(events).data["pool_id"] == "side"
        rewrite(daemon, pools=[pool_in_file(daemon, "tiny")])
        reload_config(daemon)
        rewrite(daemon, pools=[pool_in_file(daemon, "tiny"), side])

        planned = daemon.ask_control("POST", "/v1/plan", {}).json
        refused = refused_reload(daemon, 409)
        assert daemon.ask("POST", f"/v1/tasks/{task}/cancel", {}).status == 204

    message = "The former pool side is still on its way out."
    assert (refused["reason"], refused["message"], planned["refused"]) == ("busy", message, message)
    wait_until(lambda: "side" in forgotten(daemon), within_s=20, what="the end of the pool that went")
    assert reload_config(daemon)["generation"] == 3


@pytest.mark.orch("ORCH-3031")
def test_a_config_with_more_slots_makes_as_much_room_for_streams_as_a_start_with_it(daemon: Daemon) -> None:
    table = daemon.folder / "c.sock.progress"
    rewrite(
        daemon, pools=[pool_in_file(daemon, "tiny"), a_fake_pool("late", ctx=64, slots=128, determinism="best_effort")]
    )

    reload_config(daemon)

    grown = table.stat().st_size
    daemon.stop()
    table.unlink()
    daemon.start()
    assert grown >= table.stat().st_size


@pytest.mark.fault("F41")
@pytest.mark.orch("ORCH-3031")
def test_one_mistake_in_the_file_changes_nothing_and_is_named_with_its_place(daemon: Daemon) -> None:
    before = pids(daemon)
    broken = {**pool_in_file(daemon, "side"), "queue": {"capacty": 3}}
    rewrite(daemon, pools=[{**pool_in_file(daemon, "tiny"), "ctx": 64}, broken])

    refused = refused_reload(daemon)

    assert refused["reason"] == "config"
    assert "pools.yaml:" in str(refused["message"])
    assert "/pools/1/queue/capacty: unknown key; did you mean 'capacity'?" in str(refused["message"])
    assert str(daemon.folder) not in str(refused["message"])
    assert (pids(daemon), daemon.status()["config_generation"]) == (before, 1)


@pytest.mark.fault("F41")
def test_a_key_that_needs_a_restart_refuses_the_whole_file_by_name(daemon: Daemon) -> None:
    rewrite(daemon, durability="normal", pools=[{**pool_in_file(daemon, "tiny"), "ctx": 64}])

    refused = refused_reload(daemon)

    assert refused["reason"] == "restart"
    assert "durability" in str(refused["message"])
    assert len(pids(daemon)) == 2
    assert rollout(daemon)["rollout"] is None


@pytest.mark.orch("ORCH-3031")
def test_a_revert_brings_back_the_config_before(daemon: Daemon) -> None:
    rewrite(daemon, pools=[pool_in_file(daemon, "tiny")])
    reload_config(daemon)
    wait_until(lambda: "side" in forgotten(daemon), within_s=20, what="the end of the pool that went")

    reverted = reload_config(daemon, revert=True)
    daemon.wait_ready()

    assert [(each["pool_id"], each["effect"]) for each in reverted["changes"]] == [("side", "new_pool")]  # type: ignore[attr-defined]
    assert set(pids(daemon)) == {"tiny", "side"}
    assert (daemon.status()["config_generation"], len(daemon.status()["causes"])) == (3, 1)


def test_the_generation_outlives_a_kill(daemon: Daemon) -> None:
    rewrite(daemon, retention={"finished_ms": 5_000})
    reload_config(daemon)

    daemon.kill()
    daemon.start_ready()

    assert daemon.status()["config_generation"] == 2


@pytest.mark.fault("F44")
@pytest.mark.orch("ORCH-3031")
def test_a_storm_of_hangups_is_a_few_reloads_one_after_the_other(daemon: Daemon) -> None:
    rewrite(daemon, pools=[pool_in_file(daemon, "tiny"), {**pool_in_file(daemon, "side"), "queue": {"capacity": 9}}])
    before = pids(daemon)
    assert daemon.process is not None

    for _ in range(100):
        os.kill(daemon.process.pid, signal.SIGHUP)

    wait_until(lambda: daemon.status()["config_generation"] == 2, within_s=10, what="the reload")
    assert pids(daemon) == before
    assert [(line["generation"], line["hot"]) for line in taken_up(daemon)] == [(2, 1)]
    assert served_by(daemon)["pool_id"] == "tiny"


@pytest.mark.orch("ORCH-3031")
def test_a_reload_outlives_a_kill(daemon: Daemon) -> None:
    change(daemon, "reload", {"new_model_ref": "other"})
    settle(daemon)
    wait_until(lambda: b'"other"' in (daemon.folder / "state" / "intent.json").read_bytes(), what="the wish on disk")

    daemon.kill()
    daemon.start_ready()

    page = rollout(daemon)
    assert (page["revision"], page["model_ref"], page["history"][0]["outcome"]) == (2, "other", "switched")
    assert (
        json.loads((daemon.folder / "state" / "intent.json").read_bytes())["intent"]["pools"]["tiny"]["next_revision"]
        == 3
    )


@pytest.mark.orch("ORCH-3031")
def test_what_runs_when_the_model_changes_ends_where_it_runs(tmp_path: Path) -> None:
    slow = a_fake_pool(script=dataclasses.replace(GOOD, token_s=0.02))
    daemon = Daemon(tmp_path, a_fake_config(tmp_path, slow)).start_ready()
    try:
        task = daemon.accept(max_tokens=64)
        with daemon.open_stream(task) as events:
            first = next(events)
            change(daemon, "reload", {"new_model_ref": "other"})
            names = [event.name for event in events]
        assert (first.data["replica_id"], names[-1]) == ("tiny/1", "end")
        settle(daemon)
        assert served_by(daemon)["replica_id"].startswith("tiny+2/")
    finally:
        daemon.close()
