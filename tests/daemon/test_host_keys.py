"""What `reload --dry-run` says of each key of the daemon is what happens: it holds at once, or the file is refused."""

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from supervisor.config.change_effects import HOST_EFFECTS, ChangeEffect
from tests.daemon.conftest import MakeDaemon
from tests.support.certificates import make_certificate
from tests.support.changes import a_fake_config, change, rewrite, settle, share
from tests.support.daemon import Daemon
from tests.support.fake_engine_script import Script
from tests.support.pools import a_fake_pool
from tests.support.waiting import wait_until

OTHER: dict[str, dict[str, Any]] = {
    "listen.host": {"listen": {"host": "127.0.0.2"}},
    "listen.port": {"listen": {"port": 1}},
    "listen.socket": {"listen": {"socket": "FOLDER/other.sock"}},
    "listen.tls": {"listen": {"tls": {"cert_file": "FOLDER/other.crt", "key_file": "FOLDER/other.key"}}},
    "auth.keys_file": {"auth": {"keys_file": "FOLDER/other-keys.json"}},
    "state_dir": {"state_dir": "FOLDER/other-state"},
    "log_dir": {"log_dir": "FOLDER/other-logs"},
    "store.dir": {"store": {"dir": "FOLDER/other-models"}},
    "store.max_bytes": {"store": {"max_bytes": 2**30}},
    "hub.endpoint": {"hub": {"endpoint": "https://hub.example"}},
    "hub.hosts": {"hub": {"hosts": ["files.example"]}},
    "hub.token_file": {"hub": {"token_file": "FOLDER/token"}},
    "hub.model_bytes_max": {"hub": {"model_bytes_max": 2**30}},
    "durability": {"durability": "normal"},
    "mode": {"mode": "compat"},
    "retention.finished_ms": {"retention": {"finished_ms": 7_000}},
    "retention.finished_bytes_max": {"retention": {"finished_bytes_max": 7_000_000}},
    "retention.ids_min": {"retention": {"ids_min": 20_000}},
    "sessions.ttl_ms": {"sessions": {"ttl_ms": 77_000}},
    "sessions.turns_max": {"sessions": {"turns_max": 7}},
    "sessions.max": {"sessions": {"max": 77}},
    "leases.devices_max": {"leases": {"devices_max": 1}},
    "stream.disconnect_grace_ms": {"stream": {"disconnect_grace_ms": 77}},
    "stream.write_stall_ms": {"stream": {"write_stall_ms": 7_000}},
    "shutdown.drain_ms": {"shutdown": {"drain_ms": 7_000}},
    "tenants": {"tenants": {"blue": {"weight": 7}}},
    "policy": {"policy": {"module": "FOLDER/policy.wasm"}},
    "rollout.golden_prompts": {"rollout": {"golden_prompts": ["one", "two"]}},
    "rollout.golden_tokens": {"rollout": {"golden_tokens": 2}},
    "rollout.parity": {"rollout": {"parity": False}},
    "rollout.keep_previous_ms": {"rollout": {"keep_previous_ms": 7_000}},
    "rollout.drain_ms": {"rollout": {"drain_ms": 0}},
    "rollout.judge.min_tasks": {"rollout": {"judge": {"min_tasks": 7}}},
    "rollout.judge.window_ms": {"rollout": {"judge": {"window_ms": 70_000}}},
    "rollout.judge.error_gap_max": {"rollout": {"judge": {"error_gap_max": 0.5}}},
    "rollout.judge.first_token_ms_max": {"rollout": {"judge": {"first_token_ms_max": 700}}},
    "rollout.judge.late_gap_max": {"rollout": {"judge": {"late_gap_max": 0.5}}},
    "rollout.judge.parity_min": {"rollout": {"judge": {"parity_min": 0.5}}},
    "rollout.judge.promote_after_tasks": {"rollout": {"judge": {"promote_after_tasks": 70}}},
}
RESTART = {
    *("listen.host", "listen.port", "listen.socket", "listen.tls", "auth.keys_file", "state_dir", "log_dir"),
    *("store.dir", "durability", "stream.write_stall_ms", "policy"),
}
"""What a daemon has opened, or has handed out, by the time it serves: nothing of it can change under it."""
HOT = [key for key in OTHER if key not in RESTART]


def test_every_key_of_the_daemon_is_tried_and_has_the_effect_that_the_daemon_can_give_it() -> None:
    effects = {key: ChangeEffect.RESTART if key in RESTART else ChangeEffect.HOT for key in OTHER}

    assert effects == HOST_EFFECTS


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all the questions; each leaves it as it was."""
    folder = tmp_path_factory.mktemp("asked")
    make_certificate(folder, "other")
    daemon = Daemon(folder, a_fake_config(folder)).start_ready()
    (folder / "before").write_text(daemon.config_path.read_text())
    yield daemon
    daemon.close()


def put(daemon: Daemon, key: str) -> None:
    """Another value for this key alone, beside all that the file had."""
    config = yaml.safe_load((daemon.folder / "before").read_text())
    for section, value in OTHER[key].items():
        filled = yaml.safe_load(yaml.safe_dump(value).replace("FOLDER", str(daemon.folder)))
        config[section] = {**config.get(section, {}), **filled} if isinstance(filled, dict) else filled
    daemon.config_path.write_text(yaml.safe_dump(config))


def reload(daemon: Daemon, **body: object) -> tuple[int, Any]:
    reply = daemon.ask_control("POST", "/v1/config/reload", body)
    return reply.status, reply.json


@pytest.mark.orch("ORCH-3031")
@pytest.mark.parametrize("key", HOT)
def test_a_hot_key_is_announced_and_taken_up(asked: Daemon, key: str) -> None:
    put(asked, key)
    generation = asked.status()["config_generation"]

    _, planned = reload(asked, dry_run=True)
    between = asked.status()["config_generation"]
    _, done = reload(asked)
    _, again = reload(asked, dry_run=True)

    own = [(each["key"], each["effect"]) for each in planned["changes"] if each.get("pool_id") is None]
    assert (key, "hot") in own
    assert {effect for _, effect in own} == {"hot"}
    assert (between, done["generation"], done["changes"]) == (generation, generation + 1, planned["changes"])
    assert again["changes"] == []


@pytest.mark.orch("ORCH-3031")
@pytest.mark.parametrize("key", sorted(RESTART))
def test_a_key_that_needs_a_restart_is_refused_by_name_planned_or_not(asked: Daemon, key: str) -> None:
    asked.config_path.write_text((asked.folder / "before").read_text())
    reload(asked)
    put(asked, key)
    generation = asked.status()["config_generation"]

    planned, done = reload(asked, dry_run=True), reload(asked)

    assert planned[0] == done[0] == 400
    for _, refused in (planned, done):
        assert (refused["reason"], f"A change of {key} needs a restart" in refused["message"]) == ("restart", True)
    assert asked.status()["config_generation"] == generation


# What is said to hold does --------------------------------------------------------------------------------------


@pytest.fixture
def daemon(make_daemon: MakeDaemon, tmp_path: Path) -> Daemon:
    """A Ready pool whose second model continues otherwise from the third token on."""
    script = Script(tokens=("a", "b", "c"), by_model={"other.gguf": {"tokens": ["a", "b", "d"]}})
    return make_daemon(settings=a_fake_config(tmp_path, a_fake_pool(script=script))).start_ready()


def take_up(daemon: Daemon, **sections: Any) -> None:
    rewrite(daemon, **sections)
    status, answer = reload(daemon)
    assert status == 200, answer


def compared(daemon: Daemon, **terms: Any) -> dict[str, Any]:
    """What the log says of the golden prompts of a canary; the terms that are not given are those of the file."""
    change(daemon, "canary", {"new_model_ref": "other", "percent": 0, "auto": True, "judge": terms})
    return daemon.wait_lines("golden prompts compared", within_s=30)[0]


def test_other_golden_prompts_are_those_that_the_next_canary_is_asked(daemon: Daemon) -> None:
    take_up(daemon, rollout={"golden_prompts": ["one", "two"], "golden_tokens": 3, "judge": {"parity_min": 0.0}})

    line = compared(daemon)

    assert (line["matched"], line["total"]) == (0, 2)
    assert "differs from token 3 on" in line["cause"]


def test_fewer_golden_tokens_do_not_come_to_where_they_differ(daemon: Daemon) -> None:
    take_up(daemon, rollout={"golden_prompts": ["one"], "golden_tokens": 2, "judge": {"parity_min": 1.0}})

    line = compared(daemon)

    assert (line["matched"], line["total"]) == (1, 1)
    assert share(daemon)["rollout"]["judged"]


def test_no_parity_is_measured_where_the_file_says_not_to(daemon: Daemon) -> None:
    take_up(daemon, rollout={"parity": False})

    line = compared(daemon, parity_min=1.0)

    assert (line["total"], line["cause"]) == (0, "the configuration says not to compare")


def test_the_terms_of_the_file_condemn_the_next_canary(daemon: Daemon) -> None:
    take_up(daemon, rollout={"judge": {"parity_min": 0.5}})
    change(daemon, "canary", {"new_model_ref": "other", "percent": 0, "auto": True})

    note = settle(daemon)["history"][0]

    assert (note["outcome"], note["cause"]) == (
        "rolled-back",
        "0% of the golden prompts are answered alike, 50% must be",
    )


def test_another_drain_of_rollouts_is_what_an_aborted_canary_gets(daemon: Daemon) -> None:
    take_up(daemon, rollout={"drain_ms": 0})
    change(daemon, "canary", {"new_model_ref": "other", "percent": 100})
    share(daemon)
    task = daemon.accept(prompt="[[hang@1]]", session_id=str(uuid.uuid4()), max_tokens=3)
    with daemon.open_stream(task) as events:
        next(events), next(events)

        change(daemon, "rollout/abort")

        names = [event.name for event in events]
    assert names[-1] in {"error", "end"}
    assert settle(daemon)["revision"] == 1
    wait_until(lambda: len(daemon.engine_pids()) == 1, within_s=10, what="the end of the canary's engine")


def test_another_drain_of_the_stop_is_what_the_next_stop_gets(daemon: Daemon) -> None:
    take_up(daemon, shutdown={"drain_ms": 1_234})

    daemon.stop()

    assert [line["drain_ms"] for line in daemon.log_lines() if line["event"] == "daemon stops"] == [1_234]


def test_another_grace_of_all_streams_holds_for_the_next_reader_who_leaves(daemon: Daemon) -> None:
    take_up(daemon, stream={"disconnect_grace_ms": 0})
    task = daemon.accept(prompt="[[slow_ms@900]]", max_tokens=3)
    with daemon.open_stream(task) as events:
        next(events)

    end = daemon.read_stream(daemon.wait_terminal(task)["task_id"]).end

    assert end.data["finish_reason"] == "canceled"


def test_a_mode_of_the_file_is_what_the_file_is_read_by(daemon: Daemon) -> None:
    rewrite(daemon, mode="compat", unheard_of=1)

    status, answer = reload(daemon)

    assert (status, answer["generation"]) == (200, 2)
    assert ["unheard_of" in warning for warning in answer["warnings"]] == [True]


def test_a_hangup_takes_up_a_key_of_the_daemon_too(daemon: Daemon) -> None:
    rewrite(daemon, shutdown={"drain_ms": 2_345})
    assert daemon.process is not None

    os.kill(daemon.process.pid, signal.SIGHUP)
    wait_until(lambda: daemon.status()["config_generation"] == 2, what="the reload")
    daemon.stop()

    assert [line["drain_ms"] for line in daemon.log_lines() if line["event"] == "daemon stops"] == [2_345]
