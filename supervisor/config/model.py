"""The whole config of a daemon, validated and frozen: what may be said, and what must agree between pools.

Reads no file and no environment. Relative paths are resolved against `base` of the validation context, where given.
"""

import ipaddress
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from supervisor.config.agreement import find_disagreements, find_duplicate_ids
from supervisor.config.fields import (
    Count,
    FilePath,
    Finding,
    GraceMs,
    Host,
    ModelRef,
    Program,
    Section,
    SocketPath,
    refuse,
)
from supervisor.config.models import CataloguedModel, ModelArtifact, ModelFile, artifact_of, find_model_problems
from supervisor.config.policy import PolicyConfig
from supervisor.config.pool import PoolConfig
from supervisor.config.rollout import RolloutConfig
from supervisor.config.store import HubConfig, StoreConfig
from supervisor.config.tenants import TENANTS_MAX, TenantConfig, TenantName
from supervisor.wire.codes import Engine

POOLS_MAX = 256
PORT_MAX = 65_535
SESSION_TTL_MS_MAX = 600_000
SESSION_TURNS_MAX = 8


class Durability(StrEnum):
    """What an accepted task survives: a power cut (`full`, the default), or only a killed daemon (`normal`)."""

    FULL = "full"
    NORMAL = "normal"


class Mode(StrEnum):
    """Whether unknown keys are errors (`strict`, the default) or warnings (`compat`) (ORCH-3030)."""

    STRICT = "strict"
    COMPAT = "compat"


class TlsConfig(Section):
    """A certificate with its chain and its key, both PEM; the key is readable by the daemon's user alone."""

    cert_file: FilePath
    key_file: FilePath


class ListenConfig(Section):
    """Where the daemon answers. Port 0 takes any free port; without `socket` it is the default of the user.

    With `tls` the port speaks nothing else.
    """

    host: Host = "127.0.0.1"
    port: Annotated[Count, Field(ge=0, le=PORT_MAX)] = 8090
    socket: SocketPath | None = None
    tls: TlsConfig | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can connect."""
        return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback


class AuthConfig(Section):
    """Where the API keys lie; without `keys_file` it is `keys.json` in the state folder."""

    keys_file: FilePath | None = None


class EngineConfig(Section):
    """What holds for every pool of one engine: its program, a path or a name in PATH."""

    binary: Program | None = None


class RetentionConfig(Section):
    """How long finished tasks can be read, and how many ids are remembered at least."""

    finished_ms: Annotated[Count, Field(ge=1_000, le=604_800_000)] = 600_000
    finished_bytes_max: Annotated[Count, Field(ge=65_536, le=2**40)] = 268_435_456
    ids_min: Annotated[Count, Field(ge=10_000, le=10_000_000)] = 10_000


class SessionsConfig(Section):
    """How long the KV of a session is kept: from its first turn, over how many turns, for how many sessions at once.

    Time and turns have ceilings (ORCH-3021).
    """

    ttl_ms: Annotated[Count, Field(ge=1_000, le=SESSION_TTL_MS_MAX)] = SESSION_TTL_MS_MAX
    turns_max: Annotated[Count, Field(ge=1, le=SESSION_TURNS_MAX)] = SESSION_TURNS_MAX
    max: Annotated[Count, Field(ge=1, le=1_000_000)] = 10_000


class StreamConfig(Section):
    """Readers of a stream: patience with a missing one (-1 runs to the end) and with one that does not read."""

    disconnect_grace_ms: GraceMs = 5_000
    write_stall_ms: Annotated[Count, Field(ge=100, le=600_000)] = 30_000


class LeasesConfig(Section):
    """GPUs that one owner may take for commands outside orchctl at once; without it as many as there are."""

    devices_max: Annotated[Count, Field(ge=1, le=64)] | None = None


class ShutdownConfig(Section):
    """How long SIGTERM waits for what is running."""

    drain_ms: Annotated[Count, Field(ge=0, le=86_400_000)] = 30_000


class Config(Section):
    """One daemon. `state_dir`, `log_dir` and `listen.socket` are None where left out: see `plan_places`."""

    pools: Annotated[tuple[PoolConfig, ...], Field(min_length=1, max_length=POOLS_MAX)]
    listen: ListenConfig = ListenConfig()
    auth: AuthConfig = AuthConfig()
    state_dir: FilePath | None = None
    log_dir: FilePath | None = None
    durability: Durability = Durability.FULL
    mode: Mode = Mode.STRICT
    models: Mapping[ModelRef, ModelFile] = {}
    store: StoreConfig = StoreConfig()
    hub: HubConfig = HubConfig()
    engines: Mapping[Engine, EngineConfig] = {}
    retention: RetentionConfig = RetentionConfig()
    sessions: SessionsConfig = SessionsConfig()
    stream: StreamConfig = StreamConfig()
    shutdown: ShutdownConfig = ShutdownConfig()
    leases: LeasesConfig = LeasesConfig()
    tenants: Annotated[Mapping[TenantName, TenantConfig], Field(max_length=TENANTS_MAX)] = {}
    policy: PolicyConfig | None = None
    rollout: RolloutConfig = RolloutConfig()

    def pool(self, pool_id: str) -> PoolConfig | None:
        """The pool of that id."""
        return next((pool for pool in self.pools if pool.id == pool_id), None)

    def with_catalogue(self, catalogued: Mapping[str, ModelFile]) -> Self:
        """The config that also knows these models; one that it declares itself stays what it is."""
        declared = {ref: model for ref, model in self.models.items() if not isinstance(model, CataloguedModel)}
        added = {ref: model for ref, model in catalogued.items() if ref not in declared}
        return self.model_copy(update={"models": {**declared, **added}})

    def artifact(self, model_ref: str) -> ModelArtifact | None:
        """The file behind a model reference, None where neither `models` nor the catalogue has it."""
        return artifact_of(self.models, model_ref)

    def model_refs(self, model_ref: str) -> frozenset[str]:
        """Every reference that means the same model: itself, its digest, and the other names of that digest."""
        artifact = self.artifact(model_ref)
        if artifact is None:
            return frozenset({model_ref})
        declared = {ref: self.artifact(ref) for ref in self.models}
        same = {ref for ref, other in declared.items() if other is not None and other.digest == artifact.digest}
        return frozenset({model_ref, artifact.digest, *same})

    def binary(self, pool: PoolConfig) -> str | None:
        """The program of a pool's engine, None where the adapter's own default holds."""
        engine = self.engines.get(pool.engine)
        return pool.launch.binary or (engine.binary if engine is not None else None)

    def grace_ms(self, pool: PoolConfig) -> int:
        """The disconnect grace of a pool, -1 for none."""
        own = pool.disconnect_grace_ms
        return own if own is not None else self.stream.disconnect_grace_ms

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        findings: list[Finding] = [*find_duplicate_ids(self.pools), *find_model_problems(self.models)]
        refuse("config", findings or find_disagreements(self.pools, self.models))
        return self
