"""The policy plugin of one daemon: loaded once, or refused with a cause; shown and counted (ORCH-3048).

A module that cannot be used does not keep the daemon from serving: the built-in policy decides, and the status says so.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from supervisor.config.policy import PolicyConfig
from supervisor.core.policy import Policy
from supervisor.wire.pools import PolicyStatus

if TYPE_CHECKING:
    from supervisor.runtime.policy_wasm import WasmPolicy

log = logging.getLogger("orchctl")


class PolicyDesk(Collector):
    """Holds the module, if one is configured."""

    def __init__(self, config: PolicyConfig | None, now_s: Callable[[], float]) -> None:
        self._config = config
        self._wasm: WasmPolicy | None = None
        self._refused: str | None = None
        if config is not None:
            self._load(config, now_s)

    def _load(self, config: PolicyConfig, now_s: Callable[[], float]) -> None:
        # 25 MB of memory: only a daemon that has a policy pays for the engine that runs it.
        from supervisor.runtime.policy_wasm import PolicyError, WasmPolicy, read_module  # noqa: PLC0415

        try:
            self._wasm = WasmPolicy(read_module(config.module, config.digest), now_s)
        except PolicyError as error:
            self._refused = str(error)
            log.warning("the policy is not used, the built-in one decides", extra={"cause": self._refused})
        else:
            log.info("policy loaded", extra={"digest": self._wasm.digest})

    @property
    def policy(self) -> Policy | None:
        """What the core asks; None for the built-in policy alone."""
        return self._wasm

    def calls(self) -> Mapping[tuple[str, str], int]:
        """Questions so far by (kind, result)."""
        if self._refused is not None:
            return {("load", "refused"): 1}
        return {} if self._wasm is None else {(kind, str(result)): n for (kind, result), n in self._wasm.calls.items()}

    def status(self) -> PolicyStatus | None:
        """None where no policy is configured."""
        if self._config is None:
            return None
        calls = {f"{kind} {result}": count for (kind, result), count in sorted(self.calls().items())}
        if self._wasm is None:
            return PolicyStatus(state="refused", digest=None, cause=self._refused, calls=calls)
        state = "set_aside" if self._wasm.is_set_aside else "active"
        return PolicyStatus(state=state, digest=self._wasm.digest, cause=self._wasm.cause, calls=calls)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The series `policy_calls_total`."""
        labels = ("engine", "engine_version", "kind", "result")
        family = CounterMetricFamily("policy_calls", "Questions to the policy plugin.", labels=labels)
        for (kind, result), count in self.calls().items():
            family.add_metric(("none", "none", kind, result), count)
        yield family

    def close(self) -> None:
        """End the module's thread."""
        if self._wasm is not None:
            self._wasm.close()
