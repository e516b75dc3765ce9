"""A canary under judgement that goes bad is rolled back by itself, and no caller of the other revision sees it."""

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.client import NEVER
from tests.support.callers import Seen, keep_calling
from tests.support.changes import a_fake_config, change, rollout, settle, share
from tests.support.daemon import Daemon
from tests.support.fake_engine_script import GOOD, Script
from tests.support.pools import a_scripted_pool
from tests.support.waiting import until, wait_until

CANARY_MODEL = "other.gguf"
SESSIONS = [str(uuid.UUID(int=index * 7919 * 2**90, version=4)) for index in range(40)]
NEVER_PROMOTED = 10_000
LATE_MS, LATE_S = 400, 1.0


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A Ready pool whose engines read their script anew for every request, and a second model for it."""
    daemon = Daemon(tmp_path, a_fake_config(tmp_path, a_scripted_pool(tmp_path / "engine.json", GOOD))).start_ready()
    yield daemon
    daemon.close()


def let_canary(daemon: Daemon, **faults: Any) -> None:
    """From now on the engine of the second model does this; the others are as good as ever."""
    script = Script(by_model={CANARY_MODEL: faults})
    new = daemon.folder / "engine.new"
    new.write_text(script.to_json())
    new.replace(daemon.folder / "engine.json")


def start_judged(daemon: Daemon, percent: float, **terms: Any) -> None:
    judge = {"promote_after_tasks": NEVER_PROMOTED, **terms}
    change(daemon, "canary", {"new_model_ref": "other", "percent": percent, "auto": True, "judge": judge})


def run(daemon: Daemon, session_id: str) -> tuple[str, str]:
    """The worker that a task of this session ran on first, and how the task ended."""
    stream = daemon.read_stream(daemon.accept(session_id=session_id, max_tokens=4))
    return stream.events[0].data["replica_id"].split("/")[0], stream.end.name


def run_while_tried(daemon: Daemon) -> list[tuple[str, str]]:
    """One task of each session in turn, until the canary is gone."""
    runs = []
    for session_id in SESSIONS:
        runs.append(run(daemon, session_id))
        if rollout(daemon)["rollout"] is None:
            return runs
    raise AssertionError(f"the canary is still there: {rollout(daemon)}")


def judged_log(daemon: Daemon) -> list[tuple[str, str]]:
    """What the log says of the end of the trial."""
    return [(line["kind"], line["cause"]) for line in daemon.wait_lines("rollout", outcome="rolled-back")]


@pytest.mark.orch("ORCH-3033")
def test_a_canary_whose_runs_fail_is_rolled_back_with_its_cause(daemon: Daemon) -> None:
    start_judged(daemon, 50, min_tasks=3)
    share(daemon)
    let_canary(daemon, fault="error", fault_at=2)

    runs = run_while_tried(daemon)

    page = rollout(daemon)
    note = page["history"][0]
    assert (page["revision"], page["model_ref"]) == (1, "tiny")
    assert (note["kind"], note["revision"], note["outcome"]) == ("canary", 2, "rolled-back")
    assert note["cause"] == "100.0% of its runs failed, of the current ones 0.0%"
    assert judged_log(daemon) == [("canary", note["cause"])]
    assert {end for worker, end in runs if worker == "tiny"} == {"end"}
    assert {end for worker, end in runs if worker == "tiny+2"} == {"error"}
    assert [run(daemon, session_id) for session_id in SESSIONS[:8]] == [("tiny", "end")] * 8
    wait_until(lambda: len(daemon.engine_pids()) == 1, within_s=20, what="the end of the canary's engine")


@pytest.mark.orch("ORCH-3033")
def test_a_canary_whose_first_tokens_are_late_is_rolled_back_and_fails_nobody(daemon: Daemon) -> None:
    start_judged(daemon, 50, min_tasks=3, first_token_ms_max=LATE_MS)
    share(daemon)
    let_canary(daemon, first_token_s=LATE_S)

    runs = run_while_tried(daemon)

    note = rollout(daemon)["history"][0]
    assert note["outcome"] == "rolled-back"
    assert f"of its first tokens came after {LATE_MS} ms" in note["cause"]
    assert {end for _, end in runs} == {"end"}
    assert run(daemon, SESSIONS[0]) == ("tiny", "end")


@pytest.mark.orch("ORCH-3033")
async def test_a_canary_that_says_other_tokens_is_rolled_back_before_anybody_is_harmed(daemon: Daemon) -> None:
    let_canary(daemon, tokens=["quite", " another", " answer"])
    seen, over = Seen(), asyncio.Event()
    calling = asyncio.create_task(keep_calling(daemon, over, NEVER, seen))
    await until(lambda: seen.ended >= 3, within_s=30, what="callers that are served")

    await asyncio.to_thread(start_judged, daemon, 10, parity_min=1.0)
    page = await asyncio.to_thread(settle, daemon)
    served = seen.ended
    await until(lambda: seen.ended >= served + 3, within_s=30, what="callers that are served afterwards")
    over.set()
    await calling

    note = page["history"][0]
    assert (page["revision"], note["kind"], note["outcome"]) == (1, "canary", "rolled-back")
    assert note["cause"] == "0% of the golden prompts are answered alike, 100% must be"
    assert seen.failed == []


@pytest.mark.orch("ORCH-3033")
def test_a_kill_does_not_bring_a_condemned_canary_back(daemon: Daemon) -> None:
    """Where the kill was faster than the disk, the canary is tried once more, and condemned once more."""
    let_canary(daemon, tokens=["quite", " another", " answer"])
    start_judged(daemon, 50, parity_min=1.0)
    note = settle(daemon)["history"][0]

    daemon.kill()
    daemon.start_ready()

    page = settle(daemon)
    assert (page["revision"], page["model_ref"]) == (1, "tiny")
    assert (page["history"][0]["outcome"], page["history"][0]["cause"]) == ("rolled-back", note["cause"])
