"""One seed: a host is drawn, a storm passes over it, the calm comes, and every promise is checked."""

from dataclasses import dataclass
from random import Random

from msgspec import structs

from supervisor.core.breaker import Trust
from supervisor.core.lifecycle import Phase
from supervisor.core.plan import HostPlan, PoolPlan
from supervisor.core.tasks import Ended
from supervisor.wire.codes import FullPolicy
from tests.core.builders import make_plan
from tests.core.ledger import BrokenPromiseError, demand
from tests.sim.crowd import Crowd
from tests.sim.disk import Disk
from tests.sim.fleet import Fleet
from tests.sim.leases import Leases
from tests.sim.memory import Memory
from tests.sim.rollouts import Rollouts
from tests.sim.streams import Streams
from tests.sim.tenancy import with_tenants
from tests.sim.weather import Weather
from tests.sim.world import World

STORM_MS = 90_000.0
LULL_MS = 60_000.0
"""What the storm still had in store, a crash of a worker for one, is over by then."""
CALM_MS_MAX = 7_200_000.0
LOOK_EVERY_MS = 20_000.0
TRUST_EVERY_MS = 100_000.0
TRUST_VISITS_MAX = 20
LEASES = (0, 1, 0, 2, 3)
"""How many GPUs are lent, by the number of the seed."""


@dataclass(frozen=True)
class Report:
    """What became of one seed."""

    seed: int
    digest: str
    events: int
    lives: int
    acked: int


class SimulationError(AssertionError):
    """A promise was broken. The message has the seed and the last events."""


def run_seed(seed: int) -> Report:
    """Play one seed to its end. Raises SimulationError."""
    plans, host = with_tenants(seed, draw_host(Random(seed ^ 0x5EED)))
    if is_rolled(seed):
        plans = tuple(structs.replace(plan, can_pin_slots=False) for plan in plans)
    world = World(seed, plans, host)
    disk, streams = Disk(world), Streams(world)
    fleet = Fleet(world, streams, Memory(world, seed))
    crowd = Crowd(world, tuple(sorted({plan.model_ref for plan in world.plans})))
    rollouts = Rollouts(world, fleet, seed)
    leases = Leases(world, seed)
    weather = Weather(world, disk, streams, fleet, crowd, rollouts, leases)
    try:
        crowd.plan(world.dice.randint(20, 110), STORM_MS)
        weather.plan(STORM_MS, world.dice.randint(0, 16))
        if is_rolled(seed):
            rollouts.plan(STORM_MS, 1 + seed % 13)
        leases.plan(STORM_MS, LEASES[seed % len(LEASES)])
        weather.begin_daemon()
        world.run_until(STORM_MS)
        weather.calm()
        world.run_until(STORM_MS + LULL_MS)
        _wait_until_quiet(world, crowd)
        _check_promises(world, disk, streams)
        _win_trust_back(world, streams, crowd)
        _check_all_slots_serve(world, streams, crowd)
    except Exception as error:
        story = "\n".join(world.story.last)
        raise SimulationError(f"seed {seed}: {type(error).__name__}: {error}\n{story}") from error
    return Report(seed, world.story.digest, world.events_seen, world.life, len(world.ledger.acked))


def is_rolled(seed: int) -> bool:
    """Whether pools get other revisions: in every other seed. Slots are not pinned there: KV is told by hearsay."""
    return seed % 2 == 0


def draw_host(dice: Random) -> tuple[tuple[PoolPlan, ...], HostPlan]:
    """One to four pools over two GPUs and two models, small queues, any policy."""
    plans = tuple(
        make_plan(
            f"p{number}",
            model_ref=(model := dice.choice(("m", "m", "n"))),
            model_refs=frozenset({model}),
            model_digest=f"sha256:{model}",
            slots=dice.choice((1, 1, 2, 4)),
            devices=dice.choice(((0,), (1,), (0, 1))),
            is_batch_invariant=dice.random() < 0.2,
            can_pin_slots=True,
            queue_capacity=(capacity := dice.choice((2, 5, 20))),
            batch=dice.choice((capacity, max(capacity // 2, 1))),
            queue_bytes_max=dice.choice((8_000, 100_000)),
            full_policy=dice.choice(list(FullPolicy)),
            wall_ms=30_000,
            probe_every_ms=20_000,
            idle_ms=3_000,
            disconnect_grace_ms=dice.choice((0, 5_000, -1)),
            load_timeout_ms=30_000,
        )
        for number in range(dice.randint(1, 4))
    )
    retention_ms = dice.choice((5_000, 600_000))
    return plans, HostPlan(
        finished_retention_ms=retention_ms,
        finished_bytes_max=50_000,
        finished_ids_min=dice.choice((5, 200)),
        session_ttl_ms=dice.choice((15_000, 600_000)),
        session_turns_max=dice.choice((2, 8)),
        sessions_max=dice.choice((3, 1_000)),
    )


def _wait_until_quiet(world: World, crowd: Crowd) -> None:
    until = world.now + CALM_MS_MAX
    while world.now < until:
        world.run_until(world.now + LOOK_EVERY_MS)
        state = world.core.state if world.is_up else None
        if state is None or state.halt_deadline_ms is not None:
            continue
        is_ready = all(replica.phase is Phase.READY and not replica.load for replica in state.replicas.values())
        if is_ready and crowd.is_gone and all(isinstance(task.phase, Ended) for task in state.tasks.values()):
            return
    raise BrokenPromiseError("something never comes to rest")


def _check_promises(world: World, disk: Disk, streams: Streams) -> None:
    """By the memory of the callers: every ack has its one end. By the core's: nothing is left over."""
    demand(that=not world.ledger.unended(), sentence=f"acked and never ended: {world.ledger.unended()}")
    demand(that=not world.ledger.unproven, sentence=f"ended and never on disk: {sorted(world.ledger.unproven)}")
    open_records = [job_id for job_id, record in disk.records.items() if record.outcome is None]
    demand(that=not open_records, sentence=f"on disk without an end: {open_records}")
    world.oracle.check_all_answered()
    state, counts = world.core.state, world.core.state.counts
    demand(that=not streams.runs and not state.runs, sentence=f"runs left over: {sorted(streams.runs)} {state.runs}")
    demand(that=counts.enqueued == counts.finished + counts.canceled + counts.dropped, sentence=f"{counts}")
    for replica in state.replicas.values():
        demand(that=not replica.load, sentence=f"{replica.pool_id} lost {replica.load} slots")


def _win_trust_back(world: World, streams: Streams, crowd: Crowd) -> None:
    """Callers come until no replica is ejected or on probation: each of those gets its probe, and passes."""
    streams.held_ms = 1_000
    for visit in range(TRUST_VISITS_MAX):
        if all(replica.breaker.trust is Trust.CLOSED for replica in world.core.state.replicas.values()):
            return
        world.run_until(world.now + TRUST_EVERY_MS)
        for plan in world.plans:
            for slot in range(plan.slots):
                crowd.send_extra(f"probe-{visit}-{plan.pool_id}-{slot}", plan.model_ref)
        _wait_until_quiet(world, crowd)
    raise BrokenPromiseError("a replica is never trusted again")


def _check_all_slots_serve(world: World, streams: Streams, crowd: Crowd) -> None:
    """As many callers as there are slots: not one stays empty. Each gets one at once, unless it shows that it works."""
    streams.held_ms = 10_000
    slots = [plan for plan in world.plans for _ in range(plan.slots)]
    for number, plan in enumerate(slots):
        crowd.send_extra(f"extra-{number}", plan.model_ref)
        world.run_until(world.now + 20)
    probes = sum(replica.generating.probe is not None for replica in world.core.state.replicas.values())
    serving = len(streams.runs) + probes
    demand(that=serving == len(slots), sentence=f"{serving} of {len(slots)} slots serve")
    _wait_until_quiet(world, crowd)
