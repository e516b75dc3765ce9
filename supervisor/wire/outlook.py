"""`POST /v1/plan`: what a reload, a canary or another configuration would do, asked before it is done; sizes in MiB."""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from supervisor.wire.rollouts import ConfigChange, NewModel

CONFIG_CHARS_MAX = 1_000_000


class OutlookRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """Either a pool and its new model, as for a reload or, with `canary`, for a canary; or a configuration.

    That is the operator's file as it is now, the text in `config`, or with `revert` the configuration before this one.
    """

    pool_id: str | UnsetType = UNSET
    new_model_ref: NewModel | UnsetType = UNSET
    canary: bool | UnsetType = UNSET
    config: Annotated[str, Meta(max_length=CONFIG_CHARS_MAX)] | UnsetType = UNSET
    revert: bool | UnsetType = UNSET


class OutlookShare(Struct, kw_only=True):
    """One GPU of one pool, old and new side by side.

    `old_mib` is what its current worker holds. The new one needs `need_mib` (`source`: estimate or learned, `why` says
    why that one holds), and `reserve_mib` beside it. `free_mib` is what would be free for both, what gives way counted
    as free; `claimed_mib` of that is promised to others.
    """

    device: str
    old_mib: int
    need_mib: int
    reserve_mib: int
    free_mib: int
    claimed_mib: int
    source: str
    why: str


class GivesWay(Struct, kw_only=True):
    """A worker that would be stopped for the new one. `role`: current, canary, standby or retiring."""

    pool_id: str
    revision: int
    role: str


class PoolOutlook(Struct, kw_only=True):
    """One pool of the change.

    `effect`: reload, canary, hot, replace, new_pool, removed_pool. `keys` are those of the configuration that differ.
    `way`: stays; starts; waits (for memory); stops; side-by-side (the new worker is Ready before the old one goes);
    stop-start (the old one goes first, tasks wait); returns (the old one would go, for nothing, and come back); fails
    (the old one goes on); never (it cannot start as it is, the old one goes on). `load_ms` is how long the last start
    of the same took, null where there was none; `tasks_wait`: no worker of the pool serves for that long.
    """

    pool_id: str
    effect: str
    way: str
    keys: list[str] = []
    from_revision: int | None = None
    to_revision: int | None = None
    from_model: str | None = None
    to_model: str | None = None
    cause: str | None = None
    shares: list[OutlookShare] = []
    gives_way: list[GivesWay] = []
    tasks_wait: bool = False
    load_ms: float | None = None
    host_need_mib: int | None = None


class ChangeOutlook(Struct, kw_only=True):
    """The answer. `refused`: the change would be refused as a whole, and nothing is said of pools.

    `generation` is that of the configuration that would be in force, null where a model is asked for. `changes` are its
    keys that differ and their cost.
    """

    simulated: str | None
    pools: list[PoolOutlook]
    changes: list[ConfigChange] = []
    generation: int | None = None
    refused: str | None = None
    host_free_mib: int | None = None
    warnings: list[str] = []
