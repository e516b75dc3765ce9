"""A daemon that is killed at a chosen write of what a change leaves on disk, and what may stand afterwards."""

import contextlib
import http.client
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.changes import a_fake_config, change, pool_in_file, rewrite, rollout, settle, share
from tests.support.crash_points import Call, How
from tests.support.daemon import Daemon
from tests.support.waiting import wait_until

Step = Callable[[Daemon], object]
INTENT, CONFIG = "intent.json", "config.json"
DIED = (http.client.HTTPException, OSError)
"""How a question ends whose daemon died over it."""
WRITES_MAX = 8


@dataclass(frozen=True)
class Change:
    """`prepare` brings a Ready daemon to where `ask` begins; `finish` waits until what was asked for is over.

    `is_done_at_once`: its answer says that it is done, and not that it was begun.
    """

    prepare: Step
    ask: Step
    finish: Step = settle
    files: tuple[str, ...] = (INTENT,)
    is_done_at_once: bool = False
    admits_after: bool = True
    """Whether tasks are admitted once it is prepared."""


@dataclass(frozen=True)
class Moment:
    """A kill at the `number`-th such call on what is to take the place of a file of the state folder."""

    file: str
    how: How
    call: Call
    number: int

    def cue(self, daemon: Daemon) -> str:
        """The line that crash_point.c reads."""
        return f"{int(self.how)} {int(self.call)} {self.number} {daemon.folder}/state/.{self.file}"


def moments(files: tuple[str, ...]) -> Iterator[Iterator[Moment]]:
    """For each end of each file: at its first successor, at the second, and so on. Half a write is tried once."""
    for file in files:
        yield iter([Moment(file, How.HALF, Call.WRITE, 1)])
        for how in (How.BEFORE, How.AFTER):
            yield (Moment(file, how, Call.RENAME, number) for number in range(1, WRITES_MAX))


def nothing(_: Daemon) -> None:
    """There is nothing to prepare, or to wait for."""


def start_canary(daemon: Daemon) -> object:
    return change(daemon, "canary", {"new_model_ref": "other", "percent": 10})


def share_canary(daemon: Daemon) -> None:
    start_canary(daemon)
    share(daemon)


def reload_model(daemon: Daemon) -> object:
    return change(daemon, "reload", {"new_model_ref": "other"})


def reload_config(daemon: Daemon, **body: object) -> Any:
    reply = daemon.ask_control("POST", "/v1/config/reload", body)
    assert reply.status == 200, reply.body
    return reply.json


def put_pool(daemon: Daemon, **fields: Any) -> None:
    """Other fields for the pool in the file."""
    rewrite(daemon, pools=[{**pool_in_file(daemon, "tiny"), **fields}])


def put_worker(daemon: Daemon) -> None:
    """Another worker of the same kind: its tasks may go on where they were."""
    launch = pool_in_file(daemon, "tiny")["launch"]
    put_pool(daemon, launch={**launch, "env": {**launch["env"], "TURN": "2"}})


def put_other_queue(daemon: Daemon) -> None:
    """And take it up: the configuration before it is there to go back to."""
    put_pool(daemon, queue={"capacity": 9})
    reload_config(daemon)


def drained(daemon: Daemon) -> object:
    return change(daemon, "drain", {"deadline_ms": 600_000})


def to_other(daemon: Daemon) -> None:
    reload_model(daemon)
    settle(daemon)


CHANGES = {
    "reload": Change(nothing, reload_model),
    "canary": Change(nothing, start_canary, share),
    "share": Change(
        share_canary, lambda daemon: change(daemon, "rollout/share", {"percent": 70}), nothing, is_done_at_once=True
    ),
    "promote": Change(share_canary, lambda daemon: change(daemon, "rollout/promote"), is_done_at_once=True),
    "abort": Change(share_canary, lambda daemon: change(daemon, "rollout/abort"), is_done_at_once=True),
    "rollback": Change(to_other, lambda daemon: change(daemon, "rollback"), is_done_at_once=True),
    "drain": Change(nothing, drained, nothing, is_done_at_once=True),
    "resume": Change(
        drained, lambda daemon: change(daemon, "resume"), nothing, is_done_at_once=True, admits_after=False
    ),
    "hot config": Change(
        lambda daemon: put_pool(daemon, queue={"capacity": 9}),
        reload_config,
        nothing,
        (CONFIG, INTENT),
        is_done_at_once=True,
    ),
    "config revert": Change(
        put_other_queue,
        lambda daemon: reload_config(daemon, revert=True),
        nothing,
        (CONFIG, INTENT),
        is_done_at_once=True,
    ),
    "config with a new worker": Change(put_worker, reload_config, settle, (CONFIG, INTENT)),
}


def standing(daemon: Daemon) -> dict[str, Any]:
    """What an operator sees of the pool and of the configuration, but for numbers of revisions.

    `differs`: what the file has that is not in force.
    """
    page, pool = rollout(daemon), daemon.pool("tiny")
    ongoing = page["rollout"]
    return {
        "model": (page["model_ref"], pool["model_ref"]),
        "ctx": pool["ctx"],
        "canary": None if ongoing is None else (ongoing["kind"], ongoing["to_model"], ongoing["percent"]),
        "draining": pool["draining"],
        "generation": daemon.status()["config_generation"],
        "differs": reload_config(daemon, dry_run=True)["changes"],
    }


@dataclass
class Crash:
    """What came of one change that was killed at one moment."""

    was_met: bool
    is_answered: bool
    stands: dict[str, Any] = field(default_factory=dict)
    stands_later: dict[str, Any] = field(default_factory=dict)
    """The same after one more restart."""
    ends: list[str] = field(default_factory=list)
    """How the tasks ended that were accepted before."""
    engines: int = 0


def a_daemon(folder: Path, library: Path) -> Daemon:
    """A Ready one that can be killed by a cue."""
    folder.mkdir()
    env = {"LD_PRELOAD": str(library), "CRASH_CUE": str(folder / "cue")}
    return Daemon(folder, a_fake_config(folder), env=env).start_ready()


def undisturbed(folder: Path, library: Path, what: Change) -> list[dict[str, Any]]:
    """What stands before the change, and after it."""
    daemon = a_daemon(folder, library)
    try:
        what.prepare(daemon)
        before = standing(daemon)
        what.ask(daemon)
        what.finish(daemon)
        return [before, standing(daemon)]
    finally:
        daemon.close()


def crashed(folder: Path, library: Path, what: Change, moment: Moment) -> Crash:
    """Begin a change, be killed at the moment, start again, and look."""
    daemon = a_daemon(folder, library)
    try:
        if what.admits_after:
            what.prepare(daemon)
        tasks = [daemon.accept(prompt=f"{number} [[slow_ms@30]]", seed=number) for number in range(2)]
        if not what.admits_after:
            what.prepare(daemon)
        (folder / "new").write_text(moment.cue(daemon))
        (folder / "new").rename(folder / "cue")
        crash = _ask(daemon, what)
        (folder / "cue").unlink()
        if crash.was_met:
            _look(daemon, tasks, crash)
        return crash
    finally:
        daemon.close()


def _ask(daemon: Daemon, what: Change) -> Crash:
    is_answered = False
    with contextlib.suppress(*DIED):
        what.ask(daemon)
        is_answered = True
        what.finish(daemon)
        daemon.ask_control("GET", "/healthz")
    assert daemon.process is not None
    with contextlib.suppress(AssertionError):
        wait_until(lambda: daemon.process is None or daemon.process.poll() is not None, within_s=0.5)
    return Crash(daemon.process.poll() is not None, is_answered)


def _look(daemon: Daemon, tasks: list[str], crash: Crash) -> None:
    _start(daemon)
    crash.stands = standing(daemon)
    daemon.kill()
    _start(daemon)
    crash.stands_later = standing(daemon)
    change(daemon, "resume")
    crash.ends = [daemon.read_stream(task_id).end.name for task_id in tasks]
    wait_until(lambda: len(daemon.engine_pids()) == _workers(daemon), within_s=30, what="no engine too many")
    crash.engines = len(daemon.engine_pids())


def _start(daemon: Daemon) -> None:
    """And wait until nothing is on its way: a canary that goes on takes its share."""
    daemon.start()
    wait_until(lambda: daemon.pool("tiny")["state"] == "ready", within_s=40, what="the worker")

    def is_over() -> bool:
        ongoing = rollout(daemon)["rollout"]
        return ongoing is None or ongoing["state"] == "sharing"

    wait_until(is_over, within_s=40, what="the end of what was under way")


def _workers(daemon: Daemon) -> int:
    page = rollout(daemon)
    return 1 + bool(page["standby"]) + bool(page["rollout"])
