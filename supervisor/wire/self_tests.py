"""The reply of a self-test on demand (ORCH-3049)."""

from msgspec import Struct


class SelfTestStep(Struct, kw_only=True):
    """One step: `took_ms` is its time, `detail` one sentence."""

    name: str
    passed: bool
    took_ms: int
    detail: str


class SelfTestReport(Struct, kw_only=True):
    """200 of `POST /v1/pools/:id/selftest`. The first step that fails is the last; the worker stays as it is."""

    pool_id: str
    replica_id: str
    passed: bool
    steps: list[SelfTestStep]
