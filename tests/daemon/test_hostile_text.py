"""Whatever a model says and whatever a client asks, the text comes through exactly and nothing else does."""

import json
from pathlib import Path

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import Daemon
from tests.support.fake_engine_script import Script
from tests.support.hostile_text import hostile_strings, read_event_stream
from tests.support.pools import a_fake_pool

STRINGS = 600
PER_TASK = 200


def make_daemon_that_says(make_daemon: MakeDaemon, script_path: Path) -> Daemon:
    """Its engine reads the script anew for every request, so each task can be told other tokens."""
    pool = a_fake_pool(ctx=8192, queue={"capacity": 1000})
    pool["launch"]["env"]["FAKE_ENGINE"] = str(script_path)
    script_path.write_text(Script().to_json())
    return make_daemon(pool).start_ready()


def say(daemon: Daemon, script_path: Path, tokens: list[str], prompt: str) -> None:
    """One task whose engine says these tokens; a reader by the letter of the standard gets exactly them."""
    script_path.write_text(Script(tokens=tuple(tokens)).to_json())
    task_id = daemon.accept(prompt=prompt, max_tokens=len(tokens), ctx=8192)
    events = read_event_stream(daemon.ask("GET", f"/v1/tasks/{task_id}/stream").body)

    lasting = [event for event in events if event[1] != "metrics"]
    texts = [data["t"] for _, name, data in lasting if name == "token"]
    assert "".join(texts) == "".join(tokens)
    assert [name for _, name, _ in lasting] == ["started", *["token"] * len(texts), "end"]
    assert [int(number) for number, _, _ in lasting] == list(range(1, len(lasting) + 1))
    result = daemon.ask("GET", f"/v1/tasks/{task_id}").json["result"]
    assert json.dumps(result["text"]) == json.dumps("".join(tokens))


@pytest.mark.orch("ORCH-2002")
def test_hostile_tokens_and_prompts_come_through_exactly(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    script_path = tmp_path / "script.json"
    daemon = make_daemon_that_says(make_daemon, script_path)
    texts = hostile_strings(STRINGS, seed=1)

    for at in range(0, len(texts), PER_TASK):
        say(daemon, script_path, texts[at : at + PER_TASK], prompt=texts[at])

    assert "Traceback" not in daemon.log_text()
    for line in daemon.log_text().splitlines():
        json.loads(line)
