"""What a change of each key of the config costs: nothing, a new worker for its pool, or a restart of the daemon.

One table with every key; a test shows that none is missing. Performs nothing.
"""

from enum import StrEnum


class ChangeEffect(StrEnum):
    """What follows.

    `hot` holds from the next task on; `replace` starts a new worker beside the old one and drains that; `new_pool` and
    `removed_pool` concern a pool as a whole; `restart` is refused while the daemon runs.
    """

    HOT = "hot"
    REPLACE = "replace"
    NEW_POOL = "new_pool"
    REMOVED_POOL = "removed_pool"
    RESTART = "restart"


_HOT, _REPLACE, _RESTART = ChangeEffect.HOT, ChangeEffect.REPLACE, ChangeEffect.RESTART

POOL_EFFECTS = {
    "engine": _REPLACE,
    "model": _REPLACE,
    "quant": _REPLACE,
    "ctx": _REPLACE,
    "devices": _REPLACE,
    "tensor_split": _REPLACE,
    "preload": _HOT,
    "require_same_engine_version": _HOT,
    "sampler_profile_version": _REPLACE,
    "queue.capacity": _HOT,
    "queue.full_policy": _HOT,
    "queue.order": _HOT,
    "queue.bytes_max": _HOT,
    "admission.priorities": _HOT,
    "timeouts.wall_ms": _HOT,
    "timeouts.idle_ms": _HOT,
    "timeouts.first_token_ms": _HOT,
    "slots": _REPLACE,
    "workloads": _REPLACE,
    "determinism": _HOT,
    "disconnect_grace_ms": _HOT,
    "launch.command": _REPLACE,
    "launch.env": _REPLACE,
    "launch.extra_args": _REPLACE,
    "launch.threads": _REPLACE,
    "launch.binary": _REPLACE,
    "launch.load_timeout_ms": _HOT,
    "launch.memory_max": _REPLACE,
    "launch.cpus": _REPLACE,
    "launch.numa": _REPLACE,
    "probe.idle_every_ms": _HOT,
    "probe.within_ms": _HOT,
}
"""By key of a pool. `id` is not there: another id is another pool."""

HOST_EFFECTS = {
    "listen.host": _RESTART,
    "listen.port": _RESTART,
    "listen.socket": _RESTART,
    "listen.tls": _RESTART,
    "auth.keys_file": _RESTART,
    "state_dir": _RESTART,
    "log_dir": _RESTART,
    "store.dir": _RESTART,
    "store.max_bytes": _HOT,
    "hub.endpoint": _HOT,
    "hub.hosts": _HOT,
    "hub.token_file": _HOT,
    "hub.model_bytes_max": _HOT,
    "durability": _RESTART,
    "mode": _HOT,
    "retention.finished_ms": _HOT,
    "retention.finished_bytes_max": _HOT,
    "retention.ids_min": _HOT,
    "sessions.ttl_ms": _HOT,
    "sessions.turns_max": _HOT,
    "sessions.max": _HOT,
    "leases.devices_max": _HOT,
    "stream.disconnect_grace_ms": _HOT,
    "stream.write_stall_ms": _RESTART,
    "shutdown.drain_ms": _HOT,
    "tenants": _HOT,
    "policy": _RESTART,
    "rollout.golden_prompts": _HOT,
    "rollout.golden_tokens": _HOT,
    "rollout.parity": _HOT,
    "rollout.keep_previous_ms": _HOT,
    "rollout.drain_ms": _HOT,
    "rollout.judge.min_tasks": _HOT,
    "rollout.judge.window_ms": _HOT,
    "rollout.judge.error_gap_max": _HOT,
    "rollout.judge.first_token_ms_max": _HOT,
    "rollout.judge.late_gap_max": _HOT,
    "rollout.judge.parity_min": _HOT,
    "rollout.judge.promote_after_tasks": _HOT,
}
"""By key of the daemon. `pools`, `models` and `engines` are not there: their changes are those of the pools."""
