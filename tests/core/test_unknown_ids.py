"""Reports and wishes about what is not there, or not any more: whatever they name, they break nothing (ORCH-3053)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import pytest
from msgspec import structs

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.intent import CanaryIntent, Intent, LeaseNote, PoolIntent
from supervisor.core.lifecycle import Phase
from supervisor.core.needs import LearnedNeed
from supervisor.core.plan import HostPlan
from supervisor.core.replicas import FoundEngine
from supervisor.core.revisions import Revision, Role, RolloutKind
from supervisor.core.split import Split
from supervisor.core.tasks import WAITING
from supervisor.wire.codes import Engine, FinishReason
from tests.core.builders import BOTH, CTX, DIGEST, GPU0, GPU1, make_plan, make_task, only
from tests.core.rollout_stage import DRAIN_MS, NEW_DIGEST, RolloutStage, refusals, rollout_stage, share

pytestmark = pytest.mark.orch("ORCH-3053")
HOST = HostPlan(keep_previous_ms=20_000)
OTHER = make_plan("p1", model_ref="x", model_refs=frozenset({"x"}), model_digest="sha256:" + "c" * 64, devices=(1,))


@dataclass(frozen=True)
class Ids:
    """What an event names: a pool and one of its workers, a run and a task that are over, a lease, a GPU."""

    pool: str = "p9"
    key: str = "p9"
    incarnation: int = 5
    run: int = 777
    job: str = "nobody"
    lease: str = "l9"
    gpu: str = "GPU-9"


def intent_of(ids: Ids) -> Intent:
    """Wishes of an earlier daemon about it, of every kind."""
    revision = Revision(number=7, model_ref="x")
    wish = PoolIntent(
        current=revision, next_revision=9, previous=revision, canary=CanaryIntent(revision=revision, plan=share(500))
    )
    return Intent(drained={ids.pool: 5_000.0}, leases=(lease_of(ids),), pools={ids.pool: wish})


def lease_of(ids: Ids) -> LeaseNote:
    return LeaseNote(lease_id=ids.lease, devices=(ids.gpu,), owner="o", purpose="", expires_ms=1e7, drain_to=ids.pool)


def reports(ids: Ids) -> list[ev.Event]:
    """Late words of engines, devices and the disk."""
    worker = (ids.key, ids.incarnation)
    room = ev.DeviceRoom(ids.gpu, 81_920, 80_000, 8_000, holders=(ev.Holder(99, 500),))
    return [
        ev.TokensCounted(ids.job, 5),
        ev.TokensCounted(ids.job, None),
        ev.AcceptsCommitted((ids.job,)),
        ev.AcceptsFailed((ids.job,)),
        ev.FinishesCommitted((ids.job,), (10,)),
        ev.JournalChanged(is_writable=True, cause=None),
        ev.FirstTokenCame(ids.run),
        ev.RunFinished(ids.run, FinishReason.STOP, 1, 2, 2, 1.0),
        ev.RunFailed(ids.run, "engine", "late", 2, is_worker_lost=True),
        ev.RunStalled(ids.run, "idle"),
        ev.RunAborted(ids.run, None, 2, 2, 1.0),
        ev.SlotsSeenIdle(*worker, (ids.run,)),
        ev.SlotStuck(*worker, ids.run),
        ev.DevicesSeen((GPU1,), ((ids.gpu, "it fell off"),)),
        ev.DevicesUnknown("the driver does not answer"),
        ev.DeviceFaulted(ids.gpu, 79, "nvml", 99, ids.gpu),
        ev.DeviceFaulted(ids.gpu, 31, "kernel log", 99),
        ev.DriverWasReset((ids.gpu,), "a reset"),
        ev.EngineProbed(*worker, "it is silent"),
        ev.ModelVerified(*worker, DIGEST),
        ev.RoomMeasured(*worker, (room,), 64_000, 1_000),
        ev.HostSeen(64_000),
        ev.MemoryHeld(((ids.gpu, (ev.Holder(99, 8_000),)),)),
        ev.NeedsRestored((LearnedNeed("r9", "b9", (1_000,)),)),
        ev.EnginesFound((FoundEngine(ids.key, 99, 9_000, (ids.gpu,)),)),
        ev.ReleaseVerified(ids.lease, None),
        ev.ReleaseVerified(ids.lease, "it is busy"),
        ev.EngineSpawned(*worker, 99, 9_000),
        ev.EngineHealthy(*worker),
        ev.EngineInspected(*worker, "b9", 1, CTX),
        ev.StepPassed(*worker, "late", 1.0),
        ev.EngineTested(*worker),
        ev.StepFailed(*worker, "late"),
        ev.EngineExited(*worker, "oom_vram", "late"),
        ev.EngineStopped(*worker),
        ev.IdleEngineProbed(*worker, ids.run, "it is silent"),
        ev.EngineMisplaced(*worker, "it holds another GPU"),
        ev.SelfTestOver(*worker, ids.run),
        ev.ParityMeasured(ids.pool, 7, 0, 10),
        ev.TasksRestored((make_task(ids.job, model_ref="x", phase=WAITING),), ()),
        ev.TimePassed(),
    ]


def wishes(ids: Ids) -> list[ev.Event]:
    """What callers and operators may ask about it."""
    plan = make_plan(f"{ids.pool}+77", model_digest=NEW_DIGEST)
    return [
        ev.TaskSubmitted(make_task("new", model_ref="nothing")),
        ev.CancelRequested("c", ids.job),
        ev.ReadersLeft(ids.job),
        ev.ReadersCame(ids.job),
        ev.SessionEndRequested("nobody", b"s"),
        ev.IntentRestored(intent_of(ids), -1_000.0),
        ev.LeaseRequested("t", structs.replace(lease_of(ids), lease_id="l10"), 0.0),
        ev.LeaseEnded(ids.lease, "late"),
        ev.SelfTestRequested("t", ids.pool),
        ev.DrainRequested(ids.pool, 0.0),
        ev.ResumeRequested(ids.pool),
        ev.SplitRequested(Engine.LLAMACPP, "nothing", Split(frozenset({ids.key}), 500)),
        ev.SplitRequested(Engine.LLAMACPP, "nothing", None),
        ev.RolloutRequested(ticket="t", pool_id=ids.pool, plan=plan, kind=RolloutKind.RELOAD, drain_ms=0.0),
        ev.RolloutPromoted("t", ids.pool),
        ev.RolloutAborted("t", ids.pool, "late"),
        ev.RollbackRequested("t", ids.pool),
        ev.CanaryShared("t", ids.pool, 500),
        ev.PoolsChanged(ticket="t", generation=3, removed=(ids.pool,)),
        ev.PoolsChanged(ticket="t", generation=3, tuned=(make_plan(ids.key),)),
        ev.QuiesceRequested(0.0),
        ev.QuiesceEnded(),
        ev.HaltRequested(0.0),
    ]


# What may be gone


def nothing_of_the_kind() -> tuple[RolloutStage, Ids]:
    """There never was anything of these names."""
    stage = rollout_stage(make_plan(), OTHER, host=HOST)
    stage.submit(make_task("t"), make_task("waits"))
    return stage, Ids()


def busy_pools() -> tuple[RolloutStage, Ids]:
    """Both run a task of a session; a run and a task of p1 are over."""
    stage = rollout_stage(make_plan(), OTHER, host=HOST)
    stage.submit(make_task("over", model_ref="x"))
    ids = Ids("p1", "p1", stage.replica("p1").incarnation, stage.run_of("over"), gpu="GPU-1")
    stage.finish("over")
    stage.settle()
    for name, model in (("a", "m"), ("b", "m"), ("c", "x"), ("d", "x")):
        stage.submit(make_task(name, model_ref=model, strict=False, session=model.encode()))
    return stage, ids


def removed_pool() -> tuple[RolloutStage, Ids]:
    """A pool that was removed a moment ago, and still ends what it has."""
    stage, ids = busy_pools()
    stage.give(ev.PoolsChanged(ticket="t", generation=2, removed=("p1",), drain_ms=DRAIN_MS))
    return stage, ids


def removed_pool_that_stops() -> tuple[RolloutStage, Ids]:
    """The same, once it has nothing left."""
    stage, ids = removed_pool()
    for name in "cd":
        stage.finish(name)
    assert stage.replica("p1").phase is Phase.STOPPING
    return stage, ids


def forgotten_pool() -> tuple[RolloutStage, Ids]:
    """The same, once its process is gone."""
    stage, ids = removed_pool_that_stops()
    stage.stopped("p1")
    assert "p1" not in stage.core.state.replicas
    return stage, ids


def removed_in_a_rollout() -> tuple[RolloutStage, Ids]:
    """A pool that was removed while its canary took a share; the events are about that."""
    stage, ids = busy_pools()
    stage.give(
        ev.RolloutRequested(
            ticket="t",
            pool_id="p1",
            plan=structs.replace(OTHER, pool_id="p1+2", model_digest=NEW_DIGEST),
            kind=RolloutKind.CANARY,
            drain_ms=DRAIN_MS,
            canary=share(10_000, min_tasks=2, parity_min=0.5),
        )
    )
    stage.come_up("p1+2")
    stage.submit(make_task("e", model_ref="x"), make_task("f", model_ref="x"))
    stage.give(ev.PoolsChanged(ticket="t", generation=2, removed=("p1",), drain_ms=DRAIN_MS))
    return stage, ids_of(ids, stage, "p1+2")


def ids_of(ids: Ids, stage: RolloutStage, key: str) -> Ids:
    """The same ids, with those of another worker of the pool."""
    replica = stage.core.state.replicas.get(key)
    return Ids(ids.pool, key, 5 if replica is None else replica.incarnation, ids.run, ids.job, ids.lease, ids.gpu)


def standby_that_runs() -> tuple[RolloutStage, Ids]:
    """The revision before the current one, kept for a rollback, with a task on it."""
    stage, ids = busy_pools()
    stage.roll()
    assert stage.role("p0") is Role.STANDBY
    return stage, Ids("p0", "p0", stage.replica("p0").incarnation, ids.run, gpu="GPU-0")


def retired_revision() -> tuple[RolloutStage, Ids]:
    """That revision, forgotten."""
    stage, _ = standby_that_runs()
    incarnation = stage.replica("p0").incarnation
    stage.finish("a")
    stage.pass_ms(HOST.keep_previous_ms)
    stage.stopped("p0")
    assert "p0" not in stage.core.state.replicas
    return stage, Ids("p0", "p0", incarnation, gpu="GPU-0")


def aborted_candidate() -> tuple[RolloutStage, Ids]:
    """A candidate that was aborted while it loaded, and stops."""
    stage, _ = busy_pools()
    stage.begin()
    stage.load("p0+2")
    stage.give(ev.RolloutAborted("t", "p0", "not today"))
    assert stage.role("p0+2") is Role.RETIRING
    return stage, ids_of(Ids("p0", gpu="GPU-0"), stage, "p0+2")


def resting_worker() -> tuple[RolloutStage, Ids]:
    """The current revision has made way, and the one that came instead goes again."""
    stage = rollout_stage(make_plan(), OTHER, host=HOST)
    incarnation = stage.replica("p0").incarnation
    stage.begin()
    stage.be_short("p0+2")
    stage.stopped("p0")
    stage.load("p0+2")
    stage.give(ev.RolloutAborted("t", "p0", "not today"))
    assert stage.replica("p0").phase is Phase.RESTING
    return stage, Ids("p0", "p0", incarnation, gpu="GPU-0")


def ended_lease() -> tuple[RolloutStage, Ids]:
    """A lease that was given back while its memory was looked at."""
    stage, ids = busy_pools()
    note = LeaseNote(lease_id="l1", devices=("GPU-1",), owner="o", purpose="", expires_ms=1e7, drain_to="p0")
    asked = stage.give(ev.LeaseRequested("t", note, 0.0))
    stage.answer_aborts([*asked, *stage.give(ev.TimePassed())])
    stage.stopped("p1")
    assert only(stage.done, ef.VerifyRelease)
    stage.give(ev.LeaseEnded("l1", "given back"))
    return stage, Ids("p1", "p1", ids.incarnation, ids.run, lease="l1", gpu="GPU-1")


def vanished_gpu() -> tuple[RolloutStage, Ids]:
    """A GPU that is not there any more, whose worker stops with a task on it."""
    stage, ids = busy_pools()
    stage.answer_aborts(stage.give(ev.DevicesSeen((GPU0,))))
    assert stage.replica("p1").phase is Phase.STOPPING
    return stage, ids


def halting_daemon() -> tuple[RolloutStage, Ids]:
    """A daemon that stops, and waits for a task."""
    stage, ids = busy_pools()
    stage.give(ev.HaltRequested(60_000.0))
    return stage, ids


SCENES: list[Callable[[], tuple[RolloutStage, Ids]]] = [
    nothing_of_the_kind,
    removed_pool,
    removed_pool_that_stops,
    forgotten_pool,
    removed_in_a_rollout,
    standby_that_runs,
    retired_revision,
    aborted_candidate,
    resting_worker,
    ended_lease,
    vanished_gpu,
    halting_daemon,
]
EVENTS = [*reports(Ids()), *wishes(Ids())]


def test_no_kind_of_event_is_left_out() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(ev.Event))


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
@pytest.mark.parametrize("index", range(len(EVENTS)), ids=lambda index: f"{index}-{type(EVENTS[index]).__name__}")
def test_an_event_about_what_is_gone_leaves_a_sound_state(
    scene: Callable[[], tuple[RolloutStage, Ids]], index: int
) -> None:
    stage, ids = scene()
    event = [*reports(ids), *wishes(ids)][index]

    effects = stage.give(event)  # the stage looks at the state after every event
    stage.answer_aborts(effects)
    later = stage.pass_ms(60_000)

    stage.answer_aborts(later)
    stage.give(BOTH)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_a_report_of_a_worker_that_never_was_changes_nothing(
    scene: Callable[[], tuple[RolloutStage, Ids]],
) -> None:
    stage, _ = scene()
    ids = Ids(key="p0", incarnation=4_711)
    of_workers = [event for event in reports(ids) if hasattr(event, "incarnation")]

    effects = [effect for event in of_workers for effect in stage.give(event)]

    assert effects == []


def test_whoever_asks_about_a_pool_that_is_not_there_gets_an_answer() -> None:
    stage, ids = forgotten_pool()
    asked = [event for event in wishes(ids) if getattr(event, "ticket", None) == "t"]

    answers = [refusals(stage.give(event)) for event in asked]

    assert [len(answer) for answer in answers] == [1] * len(asked)


def test_a_cancel_of_a_task_that_was_forgotten_is_answered() -> None:
    stage, ids = nothing_of_the_kind()

    assert stage.give(ev.CancelRequested("c", ids.job)) == [ef.AnswerCancelled("c", 0)]
