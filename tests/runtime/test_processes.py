"""Engine processes: how they start, what they can see, how they end, and what is left of them. On both event loops."""

import asyncio
import os
import resource
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.runtime.cgroups import NO_WISH, Cgroups, GroupWish, WorkerGroup
from supervisor.runtime.engine_logs import tail
from supervisor.runtime.processes import ProcessBounds, Processes, Stopped
from supervisor.runtime.processes_env import SpawnError, SpawnOrder, SpawnTrouble
from supervisor.runtime.processes_launch import OOM_SCORE_ADJ
from supervisor.runtime.processes_sweep import of_instance
from tests.runtime.processes_story import (
    Exits,
    descriptors_of,
    environ_of,
    is_alive,
    is_there,
    oom_score_of,
    order_of,
    processes,
    python,
    status_of,
)
from tests.support.waiting import until

BOTH_LOOPS = True

TERM = ((signal.SIGTERM, 20.0),)
SLEEPER = ("sleep", "600")
DEAF = python(
    "import signal,sys,time;signal.signal(15,signal.SIG_IGN);print('deaf',flush=True)\nwhile True:time.sleep(60)"
)


def _secrets(count: int) -> dict[str, str]:
    names = ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "DATABASE_URL", "LLAMA_API_KEY", "ORCHCTL_API_KEY", "SSH_AUTH_SOCK")
    every = [*names, *(f"PLANTED_{number}" for number in range(count - len(names)))]
    return {name: f"s3cret-{number}" for number, name in enumerate(every)}


async def test_an_engine_runs_with_the_environment_of_the_allow_list_and_none_of_the_daemons_secrets(
    tmp_path: Path,
) -> None:
    secrets = _secrets(20)
    async with processes(**secrets) as every:
        engine = await every.spawn(order_of(tmp_path, *SLEEPER, env={"LLAMA_ARG_FIT": "off"}), Exits())
        environ = await until(lambda: environ_of(engine), what="the end of its exec")

    assert not {value for value in environ.values() if value.startswith("s3cret")}
    assert not secrets.keys() & environ.keys()
    assert environ["LLAMA_ARG_FIT"] == "off"
    assert environ["CUDA_VISIBLE_DEVICES"].startswith("GPU-")
    assert environ["ORCHCTL_WORKER"] == engine.mark


async def test_an_engine_has_no_file_of_the_daemon_open(tmp_path: Path) -> None:
    secret = os.open(tmp_path / "secret", os.O_CREAT | os.O_RDWR)
    os.set_inheritable(secret, True)  # the worst case: somebody forgot to say close-on-exec
    try:
        async with processes() as every:
            engine = await every.spawn(order_of(tmp_path, *DEAF), Exits())
            await until(lambda: "deaf" in tail(tmp_path / "pool-a.log"), what="the end of its start")
            descriptors = descriptors_of(engine.pid)
    finally:
        os.close(secret)

    log = str(tmp_path / "pool-a.log")
    assert descriptors == {"0": "/dev/null", "1": log, "2": log}


async def test_an_engine_is_confined(tmp_path: Path) -> None:
    async with processes() as every:
        engine = await every.spawn(order_of(tmp_path, *SLEEPER), Exits())
        status = status_of(engine.pid)
        core_limit = resource.prlimit(engine.pid, resource.RLIMIT_CORE)[0]
        session, group = os.getsid(engine.pid), os.getpgid(engine.pid)
        oom_score = oom_score_of(engine.pid)

    assert status["NoNewPrivs"] == "1"
    assert status["Umask"] == "0077"
    assert core_limit == 0
    assert session == group == engine.pid
    assert oom_score == OOM_SCORE_ADJ
    assert status_of(os.getpid())["NoNewPrivs"] == "0", "only the engine has given up its privileges"


async def test_output_goes_to_the_log_under_the_mark_of_its_run(tmp_path: Path) -> None:
    exits = Exits()
    async with processes() as every:
        first = await every.spawn(order_of(tmp_path, "sh", "-c", "echo first; echo words >&2"), exits)
        await first.stop(TERM)
        second = await every.spawn(order_of(tmp_path, "sh", "-c", "echo second"), Exits())
        await until(lambda: "second" in tail(tmp_path / "pool-a.log"))
        await second.stop(TERM)

    assert tail(tmp_path / "pool-a.log", run=f"pool-a {second.mark}") == "second\n"


@pytest.mark.parametrize(("code", "returncode"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", -9), ("kill -6 $$", -6)])
async def test_an_exit_is_noticed_with_its_status_and_told_once(tmp_path: Path, code: str, returncode: int) -> None:
    exits = Exits()
    async with processes() as every:
        engine = await every.spawn(order_of(tmp_path, "sh", "-c", code), exits)
        told = await exits.first()
        stopped = await engine.stop(TERM)
        again = await engine.stop(TERM)

    assert told == (engine.pid, returncode)
    assert exits.seen == [told]
    assert stopped == again == Stopped(returncode, ())
    assert not is_there(engine.pid), "it was waited for: no zombie"


async def test_an_idle_engine_killed_from_outside_is_noticed(tmp_path: Path) -> None:
    exits = Exits()
    async with processes() as every:
        engine = await every.spawn(order_of(tmp_path, *SLEEPER), exits)
        os.kill(engine.pid, signal.SIGKILL)
        told = await exits.first()

    assert told == (engine.pid, -9)


async def test_stopping_asks_politely_first(tmp_path: Path) -> None:
    polite = python(
        "import signal,sys,time;signal.signal(15,lambda *_:sys.exit(0));print('up',flush=True);time.sleep(600)"
    )
    async with processes() as every:
        engine = await every.spawn(order_of(tmp_path, *polite), Exits())
        await until(lambda: "up" in tail(tmp_path / "pool-a.log"))
        stopped = await engine.stop(TERM)

    assert stopped == Stopped(0, ())


async def test_an_engine_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    async with processes() as every:
        engine = await every.spawn(order_of(tmp_path, *DEAF), Exits())
        await until(lambda: "deaf" in tail(tmp_path / "pool-a.log"))
        stopped = await engine.stop(((signal.SIGTERM, 0.05), (signal.SIGTERM, 0.05)))

    assert stopped == Stopped(-9, ())


async def test_a_frozen_engine_is_killed(tmp_path: Path) -> None:
    async with processes() as every:
        engine = await every.spawn(order_of(tmp_path, *SLEEPER), Exits())
        os.kill(engine.pid, signal.SIGSTOP)
        await until(lambda: status_of(engine.pid)["State"].startswith("T"))
        stopped = await engine.stop(((signal.SIGTERM, 0.05),))

    assert stopped == Stopped(-9, ())


async def test_a_second_impatient_stop_cuts_the_first_one_short(tmp_path: Path) -> None:
    async with processes() as every:
        engine = await every.spawn(order_of(tmp_path, *DEAF), Exits())
        await until(lambda: "deaf" in tail(tmp_path / "pool-a.log"))
        patient = asyncio.create_task(engine.stop(((signal.SIGTERM, 3600.0),)))
        impatient = await engine.stop()
        async with asyncio.timeout(20):
            outcome = await patient

    assert outcome == impatient == Stopped(-9, ())


STRAYS = """
import os, signal, sys, time
told, tell = os.pipe()
def stray(own_session):
    if os.fork() == 0:
        if own_session: os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print("stray", os.getpid(), flush=True)
            os.write(tell, b".")  # its parent may go, and it may be swept, once its pid is in the log
            environ = os.environ if own_session else {}  # it is known by the one or by the other, never by both
            os.execvpe("sleep", ["sleep", "600"], environ)
        os._exit(0)
    os.wait()
stray(False)
os.read(told, 1)
stray(True)
os.read(told, 1)
print("up", flush=True)
if len(sys.argv) > 1: os._exit(1)
time.sleep(600)
"""


async def _strays(log: Path) -> set[int]:
    def written() -> list[int]:
        lines = [line.split() for line in tail(log).splitlines()]
        return [int(words[1]) for words in lines if words[:1] == ["stray"]]

    await until(lambda: len(written()) == 2, what="two strays")
    return set(written())


async def test_grandchildren_with_and_without_a_session_of_their_own_go_with_the_engine(tmp_path: Path) -> None:
    async with processes() as every:
        engine = await every.spawn(order_of(tmp_path, *python(STRAYS)), Exits())
        strays = await _strays(tmp_path / "pool-a.log")
        alive_before = {pid for pid in strays if is_alive(pid)}
        stopped = await engine.stop(TERM)

    assert alive_before == strays
    assert stopped == Stopped(-15, ())
    assert not {pid for pid in strays if is_alive(pid)}


async def test_what_a_crashed_engine_left_behind_goes_without_being_asked(tmp_path: Path) -> None:
    exits = Exits()
    async with processes() as every:
        engine = await every.spawn(order_of(tmp_path, *python(STRAYS), "crash"), exits)
        strays = await _strays(tmp_path / "pool-a.log")
        await until(lambda: engine.is_gone)

    assert exits.seen == [(engine.pid, 1)]
    assert not {pid for pid in strays if is_alive(pid)}


async def test_stopping_one_engine_leaves_the_others_alone(tmp_path: Path) -> None:
    async with processes() as every:
        one = await every.spawn(order_of(tmp_path, *SLEEPER), Exits())
        other = await every.spawn(order_of(tmp_path, *SLEEPER), Exits())
        await one.stop(TERM)
        is_other_alive = is_alive(other.pid)

    assert is_other_alive


async def test_closing_ends_every_engine(tmp_path: Path) -> None:
    async with processes() as every:
        engines = [await every.spawn(order_of(tmp_path, *DEAF), Exits()) for _ in range(3)]

    assert not [engine.pid for engine in engines if is_alive(engine.pid)]


async def test_a_daemon_ends_what_its_predecessor_left_and_nobody_elses(tmp_path: Path) -> None:
    theirs = Processes(instance=f"gone-{os.getpid()}", environ=os.environ)
    foreign = Processes(instance=f"gone-{os.getpid()}x", environ=os.environ)
    exits = Exits()
    orphan = await theirs.spawn(order_of(tmp_path, *DEAF), exits)
    bystander = await foreign.spawn(order_of(tmp_path, *SLEEPER), Exits())

    stuck = await Processes(instance=f"gone-{os.getpid()}", environ={}).end_leftovers()

    assert stuck == ()
    assert await exits.first() == (orphan.pid, -9)
    assert is_alive(bystander.pid)
    await theirs.close()
    await foreign.close()


@pytest.mark.parametrize(
    ("argv", "kind", "cause"),
    [
        (("no-such-llama-server",), SpawnTrouble.BINARY_MISSING, "no-such-llama-server was not found"),
        (("/etc/hostname",), SpawnTrouble.NOT_EXECUTABLE, "hostname cannot be executed"),
        (("sleep", "1\0"), SpawnTrouble.REFUSED, "cannot be passed"),
        ((), SpawnTrouble.REFUSED, "cannot be passed"),
        (("sleep", "x" * 4_000_000), SpawnTrouble.OTHER, "was not started"),
    ],
)
async def test_what_cannot_be_started_is_one_sentence(
    tmp_path: Path, argv: tuple[str, ...], kind: SpawnTrouble, cause: str
) -> None:
    exits = Exits()
    async with processes() as every:
        with pytest.raises(SpawnError) as failed:
            await every.spawn(order_of(tmp_path, *argv), exits)

    assert failed.value.kind is kind
    assert cause in str(failed.value)
    assert str(tmp_path) not in str(failed.value)
    assert exits.seen == []


async def test_a_folder_that_is_gone_is_not_taken_for_a_missing_program(tmp_path: Path) -> None:
    order = order_of(tmp_path / "gone", *SLEEPER)
    async with processes() as every:
        with pytest.raises(SpawnError) as no_log:
            await every.spawn(order, Exits())
        with pytest.raises(SpawnError) as no_folder:
            await every.spawn(_with_log(order, tmp_path / "a.log"), Exits())

    assert no_log.value.kind is SpawnTrouble.LOG
    assert no_folder.value.kind is SpawnTrouble.FOLDER_MISSING


def _with_log(order: SpawnOrder, log: Path) -> SpawnOrder:
    return replace(order, log_path=log)


class _HeldBack(Cgroups):
    """Control groups whose making waits, as a host that stalls lets it, until `go` is set."""

    def __init__(self, instance: str) -> None:
        super().__init__(instance)
        self.go = threading.Event()

    def make(self, mark: str, wish: GroupWish = NO_WISH) -> WorkerGroup | None:
        assert self.go.wait(20), "never let go"
        return super().make(mark, wish)


@pytest.mark.parametrize("caller_leaves", [False, True])
async def test_a_start_that_nobody_waits_for_any_more_is_ended_when_it_comes(
    tmp_path: Path, caller_leaves: bool
) -> None:
    instance = f"late-{os.getpid()}-{caller_leaves}"
    groups = _HeldBack(instance)
    bounds = ProcessBounds(spawn_s=20 if caller_leaves else 0)
    every = Processes(instance=instance, environ=os.environ, bounds=bounds, groups=groups)
    exits = Exits()
    with pytest.raises(TimeoutError if caller_leaves else SpawnError):
        async with asyncio.timeout(0 if caller_leaves else 20):
            await every.spawn(order_of(tmp_path, *DEAF), exits)
    groups.go.set()
    await until(lambda: not _is_spawning(), what="the late start")
    await until(lambda: not _alive_of(instance), what="the end of it")

    assert "engine run" in tail(tmp_path / "pool-a.log"), "it did start"
    assert exits.seen == []


def _is_spawning() -> bool:
    return any(thread.name == "spawn" for thread in threading.enumerate())


def _alive_of(instance: str) -> list[int]:
    is_ours = of_instance(instance)
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if is_ours(pid) and is_alive(pid)]
