"""What is true of pools and their rollouts after every event (ORCH-3031, ORCH-3033). The daemon does not check it."""

from supervisor.core.lease import LeasePhase
from supervisor.core.lifecycle import Phase
from supervisor.core.replicas import Replica
from supervisor.core.revisions import TRAFFIC, Role, RolloutPhase, parse_key
from supervisor.core.rollout import Pool
from supervisor.core.state import State, key_of_replica

_WITH_PROCESS = (Phase.SPAWNING, Phase.LOADING, Phase.INSPECTING, Phase.TESTING, Phase.READY, Phase.STOPPING)


def pool_violations(state: State) -> list[str]:
    """Everything that is wrong, one sentence each."""
    found = [sentence for pool in state.pools.values() for sentence in _pool(state, pool)]
    found += [sentence for replica in state.replicas.values() for sentence in _worker(state, replica)]
    found += _routes(state)
    found += _lent(state)
    aside = {key for key, replica in state.replicas.items() if replica.role is not Role.CURRENT}
    if state.aside != aside:
        found.append(f"aside are {sorted(aside)}, noted are {sorted(state.aside)}")
    if state.rolling != {name for name, pool in state.pools.items() if pool.rollout is not None}:
        found.append(f"{sorted(state.rolling)} are noted to be in a rollout")
    return found


def _pool(state: State, pool: Pool) -> list[str]:
    """One current revision, one standby and one new revision at most; no number was given twice."""
    name, found = pool.pool_id, []
    own = {key: each for key, each in state.replicas.items() if each.plan.public_id == name}
    roles = {role: [key for key, each in own.items() if each.role is role] for role in Role}
    if roles[Role.CURRENT] != [pool.current]:
        found.append(f"{name}: current are {roles[Role.CURRENT]}, noted is {pool.current}")
    if roles[Role.STANDBY] != ([] if pool.standby is None else [pool.standby]):
        found.append(f"{name}: standby are {roles[Role.STANDBY]}, noted is {pool.standby}")
    rollout = pool.rollout
    is_undone = rollout is None or rollout.phase in (RolloutPhase.RETURNING, RolloutPhase.WAKING)
    coming = [] if rollout is None or is_undone else [rollout.key]
    if sorted(roles[Role.CANDIDATE] + roles[Role.CANARY]) != coming:
        found.append(f"{name}: coming are {roles[Role.CANDIDATE]} and {roles[Role.CANARY]}, noted is {coming}")
    if rollout is not None and (rollout.phase is RolloutPhase.SHARING) != bool(roles[Role.CANARY]):
        found.append(f"{name}: {roles[Role.CANARY]} are canaries while {rollout.phase}")
    if any(parse_key(key)[1] >= pool.next_revision for key in own):
        found.append(f"{name}: a revision is not older than the next one, {pool.next_revision}")
    ways = (RolloutPhase.DRAINING, RolloutPhase.STOPPING, RolloutPhase.SWAPPING, RolloutPhase.RETURNING)
    makes_way = rollout is not None and rollout.phase in ways
    if pool.current in own and own[pool.current].is_making_way != makes_way:
        found.append(f"{name}: its current worker makes way, or does not, while {rollout}")
    return found


def _worker(state: State, replica: Replica) -> list[str]:
    """Each is in the set of its role; what is not current has one of its own, and starts no session."""
    name, found = replica.pool_id, []
    home = state.sets[replica.set_id]
    version = home.key.engine_version
    if home.key.variant != key_of_replica(replica).variant:
        found.append(f"{name} is {replica.role} and in the set {home.key} ({version})")
    if home.key.variant is not None and home.members != [replica]:
        found.append(f"{name} shares a set of its own with {len(home.members) - 1}")
    if replica.role is Role.CANDIDATE and (replica.runs or home.occupied_total):
        found.append(f"{name} has tasks and is a candidate")
    if replica.role not in TRAFFIC and any(each.pool_id == name for each in _seats(state)):
        found.append(f"{name} keeps a session and is {replica.role}")
    if replica.phase is Phase.RESTING and not replica.is_making_way and replica.role is Role.CURRENT:
        found.append(f"{name} rests for nobody")
    return found


def _lent(state: State) -> list[str]:
    """While a lease is held, no worker has a process on its GPUs."""
    held = [lease.note for lease in state.leases.values() if lease.phase is LeasePhase.HELD]
    found = []
    for note in held:
        devices = frozenset().union(*(state.devices.with_instances(uuid) for uuid in note.devices))
        found += [
            f"{key} is {replica.phase} on a GPU of {note.lease_id}, which is held"
            for key, replica in state.replicas.items()
            if replica.phase in _WITH_PROCESS and not devices.isdisjoint(replica.devices)
        ]
    return found


def _seats(state: State) -> list[Replica]:
    seats = [session.seat for session in state.sessions.values() if session.seat is not None and session.run_id is None]
    return [state.replicas[seat.pool_id] for seat in seats if seat.pool_id in state.replicas]


def _routes(state: State) -> list[str]:
    """Aliases lead to every current revision and canary, and to nothing else."""
    found = []
    for replica in state.replicas.values():
        home = state.sets[replica.set_id]
        for ref in replica.plan.model_refs:
            is_led = home in state.routes.get((replica.plan.engine, ref), ())
            found += [] if is_led or replica.role not in TRAFFIC else [f"{ref} does not lead to {replica.pool_id}"]
    for (_, ref), homes in state.routes.items():
        found += [
            f"{ref} leads to {member.pool_id}, which is {member.role}"
            for home in homes
            for member in home.members
            if member.role not in TRAFFIC
        ]
    for alias, split in state.splits.items():
        found += [
            f"{alias} is split for {key}" for key in split.canary_pools if state.rolling and key not in state.replicas
        ]
    return found
