"""The `tenants` section (ORCH-3036): what each tenant may hold at once, and its share of a queue in fair order."""

from typing import Annotated

from pydantic import Field

from supervisor.config.fields import Count, Grammar, Section
from supervisor.config.keys import TENANT_PATTERN

TENANTS_MAX = 10_000
JOBS_MAX = 10_000_000
MEMORY_BYTES_MAX = 2**50
WEIGHT_MAX = 1_000

_NAME = TENANT_PATTERN.removeprefix("^").removesuffix(r"\Z")

TenantName = Annotated[str, Grammar(_NAME, "the name of a tenant: [a-z0-9][a-z0-9._-]{0,62}")]
Jobs = Annotated[Count, Field(ge=1, le=JOBS_MAX)]


class QuotaConfig(Section):
    """What one tenant may hold at once; a key left out bounds nothing.

    `concurrent_jobs` are accepted and have not ended, `waiting_tasks` are those of them that wait for a slot;
    `memory_bytes` is the KV cache and the requests of all of them.
    """

    concurrent_jobs: Jobs | None = None
    waiting_tasks: Jobs | None = None
    memory_bytes: Annotated[Count, Field(ge=1, le=MEMORY_BYTES_MAX)] | None = None


class TenantConfig(Section):
    """One tenant. `weight` is its share where tenants take turns: 2 gets twice the tokens of 1."""

    quota: QuotaConfig = QuotaConfig()
    weight: Annotated[Count, Field(ge=1, le=WEIGHT_MAX)] = 1
