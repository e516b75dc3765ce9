"""What the plan says of a change is what the change then does (ORCH-3003, ORCH-3031)."""

from typing import Any

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.changes import change, pool_in_file, rewrite, rollout, settle
from tests.support.daemon import Daemon
from tests.support.pools import a_fake_pool, a_model
from tests.support.waiting import wait_until

pytestmark = pytest.mark.orch("ORCH-3003", "ORCH-3031")

LONG: dict[str, Any] = {"ctx": 131_072, "slots": 1}
"""With this context the KV cache of the wide model takes 2 GiB, that of the huge one more than 6."""


Models = dict[str, Any]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Many layers, small ones: the KV cache is what is large of them."""
    folder = tmp_path_factory.mktemp("models")
    shapes = {"small": 2, "wide": 64, "wider": 66, "huge": 200}
    return {
        key: entry
        for name, layers in shapes.items()
        for key, entry in a_model(folder, name, layers=layers, embd=64, ff=32).items()
    }


def a_daemon(make: MakeDaemon, models: Models, *pools: dict[str, Any], gpus: str) -> Daemon:
    return make(*pools, simulate=gpus, settings={"models": models}).start_ready()


def ask(daemon: Daemon, **body: object) -> dict[str, Any]:
    reply = daemon.ask_control("POST", "/v1/plan", body)
    assert reply.status == 200, reply.body
    found: dict[str, Any] = reply.json
    return found


def one(daemon: Daemon, **body: object) -> dict[str, Any]:
    (pool,) = ask(daemon, **body)["pools"]
    found: dict[str, Any] = pool
    return found


def was_stopped_first(daemon: Daemon) -> bool:
    """Whether the worker that served made way for another one, as the log tells."""
    return any(line["event"] == "worker resting" for line in daemon.log_lines())


def test_a_model_that_fits_beside_the_old_one_is_loaded_beside_it(make_daemon: MakeDaemon, models: Models) -> None:
    daemon = a_daemon(make_daemon, models, a_fake_pool(model="wide", **LONG), gpus="1x8GiB")

    said = one(daemon, pool_id="tiny", new_model_ref="wider")
    change(daemon, "reload", {"new_model_ref": "wider"})
    page = settle(daemon)

    share = said["shares"][0]
    assert (said["way"], said["gives_way"], said["tasks_wait"]) == ("side-by-side", [], False)
    assert share["need_mib"] + share["reserve_mib"] <= share["free_mib"]
    assert share["old_mib"] > 2_048
    assert (page["model_ref"], page["standby"]) == ("wider", 1)
    assert not was_stopped_first(daemon)


def test_where_both_do_not_fit_the_old_one_goes_first(make_daemon: MakeDaemon, models: Models) -> None:
    daemon = a_daemon(make_daemon, models, a_fake_pool(model="wide", **LONG), gpus="1x4GiB")

    said = one(daemon, pool_id="tiny", new_model_ref="wider")
    change(daemon, "reload", {"new_model_ref": "wider"})
    page = settle(daemon)

    assert (said["way"], said["tasks_wait"]) == ("stop-start", True)
    assert said["gives_way"] == [{"pool_id": "tiny", "revision": 1, "role": "current"}]
    assert (page["model_ref"], page["standby"]) == ("wider", None)
    assert daemon.wait_lines("worker resting")


def test_what_never_fits_leaves_the_old_one_alone(make_daemon: MakeDaemon, models: Models) -> None:
    daemon = a_daemon(make_daemon, models, a_fake_pool(model="wide", **LONG), gpus="1x4GiB")

    said = one(daemon, pool_id="tiny", new_model_ref="huge")
    change(daemon, "reload", {"new_model_ref": "huge"})
    page = settle(daemon)

    assert (said["way"], said["gives_way"]) == ("never", [])
    assert page["history"][0]["outcome"] == "failed"
    assert page["history"][0]["cause"] == said["cause"]
    assert page["model_ref"] == "wide"
    assert not was_stopped_first(daemon)


def test_a_stop_that_would_be_for_nothing_is_foreseen(make_daemon: MakeDaemon, models: Models) -> None:
    pools = [a_fake_pool(model="small", **LONG), a_fake_pool("side", model="wide", **LONG)]
    daemon = a_daemon(make_daemon, models, *pools, gpus="1x5GiB")

    said = one(daemon, pool_id="tiny", new_model_ref="wider")
    change(daemon, "reload", {"new_model_ref": "wider"})
    page = settle(daemon)

    assert said["way"] == "returns"
    assert (page["model_ref"], page["history"][0]["outcome"]) == ("small", "failed")
    assert daemon.wait_lines("worker resting")


@pytest.mark.orch("ORCH-3033")
def test_a_canary_never_puts_itself_in_the_place_of_what_serves(make_daemon: MakeDaemon, models: Models) -> None:
    daemon = a_daemon(make_daemon, models, a_fake_pool(model="wide", **LONG), gpus="1x4GiB")

    said = one(daemon, pool_id="tiny", new_model_ref="wider", canary=True)
    change(daemon, "canary", {"new_model_ref": "wider", "percent": 10})
    page = settle(daemon)

    assert said["way"] == "fails"
    assert page["history"][0]["outcome"] == "failed"
    assert not was_stopped_first(daemon)


def test_a_standby_gives_way_before_the_one_that_serves(make_daemon: MakeDaemon, models: Models) -> None:
    daemon = a_daemon(make_daemon, models, a_fake_pool(model="wide", **LONG), gpus="1x7GiB")
    change(daemon, "reload", {"new_model_ref": "wider"})
    assert settle(daemon)["standby"] == 1

    said = one(daemon, pool_id="tiny", new_model_ref="wide")
    change(daemon, "reload", {"new_model_ref": "wide"})
    page = settle(daemon)

    assert said["way"] == "side-by-side"
    assert said["gives_way"] == [{"pool_id": "tiny", "revision": 1, "role": "standby"}]
    assert said["load_ms"] is not None
    assert (page["revision"], page["standby"]) == (3, 2)
    assert not was_stopped_first(daemon)


def test_a_config_is_judged_pool_by_pool_and_nothing_is_changed(make_daemon: MakeDaemon, models: Models) -> None:
    pools = [a_fake_pool(model="small", ctx=512), a_fake_pool("side", model="small"), a_fake_pool("old", model="small")]
    daemon = a_daemon(make_daemon, models, *pools, gpus="1x8GiB")
    hot = {**pool_in_file(daemon, "side"), "timeouts": {"wall_ms": 7_000}}
    late = a_fake_pool("late", model="wide", **LONG)
    rewrite(daemon, pools=[{**pool_in_file(daemon, "tiny"), "ctx": 256}, hot, late])

    said = ask(daemon)

    ways = {pool["pool_id"]: (pool["effect"], pool["way"]) for pool in said["pools"]}
    assert ways == {
        "late": ("new_pool", "starts"), "tiny": ("replace", "side-by-side"), "side": ("hot", "stays"),
        "old": ("removed_pool", "stops"),
    }  # fmt: skip
    assert (said["generation"], daemon.status()["config_generation"]) == (2, 1)
    assert rollout(daemon)["rollout"] is None

    assert daemon.ask_control("POST", "/v1/config/reload", {}).status == 200
    wait_until(lambda: daemon.pool("late")["ready"], what="the new pool", within_s=20)
    assert settle(daemon)["revision"] == 2


def test_two_new_pools_are_judged_one_after_the_other(make_daemon: MakeDaemon, models: Models) -> None:
    daemon = a_daemon(make_daemon, models, a_fake_pool(model="wide", **LONG), gpus="1x7GiB")
    more = [a_fake_pool(name, model="wide", **LONG) for name in ("one", "other")]
    rewrite(daemon, pools=[pool_in_file(daemon, "tiny"), *more])

    said = ask(daemon)
    assert daemon.ask_control("POST", "/v1/config/reload", {}).status == 200

    assert {pool["pool_id"]: pool["way"] for pool in said["pools"]} == {"one": "starts", "other": "never"}
    assert "do not fit together" in said["pools"][1]["cause"]
    wait_until(lambda: daemon.pool("one")["ready"], what="the first one", within_s=20)
    assert not daemon.pool("other")["ready"]


def test_a_key_that_needs_a_restart_refuses_the_whole(make_daemon: MakeDaemon, models: Models) -> None:
    daemon = a_daemon(make_daemon, models, a_fake_pool(model="small"), gpus="1x8GiB")
    text = daemon.config_path.read_text()

    said = ask(daemon, config=text.replace("models:", "durability: normal\nmodels:"))

    assert "durability" in said["refused"]
    assert (said["pools"], [each["effect"] for each in said["changes"]]) == ([], ["restart"])


@pytest.mark.parametrize(
    "body", [{"pool_id": "tiny"}, {"new_model_ref": "wide"}, {"canary": True}, {"pool_id": "tiny", "ctx": 1}]
)
def test_half_a_question_is_refused(make_daemon: MakeDaemon, models: Models, body: dict[str, object]) -> None:
    daemon = make_daemon(a_fake_pool(model="small"), settings={"models": models}).start()

    assert daemon.ask_control("POST", "/v1/plan", body).status == 400
