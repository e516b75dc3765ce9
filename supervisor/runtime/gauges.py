"""Figures that are sampled, not counted: tokens per second of each pool, devices, the event loop's lag."""

import asyncio
from collections.abc import Mapping

from supervisor.runtime.metrics import Metrics
from supervisor.runtime.relay_facts import TokenMeter
from supervisor.wire.pools import DeviceView

SAMPLE_EVERY_S = 1.0
_WEIGHT = 0.4


class Gauges:
    """Sampled once a second by `run`; read by the views and the metrics page."""

    def __init__(self, metrics: Metrics, meters: Mapping[str, TokenMeter]) -> None:
        self.metrics = metrics
        self.meters = meters
        self.devices: dict[str, DeviceView] = {}
        self.gpu_trouble: str | None = None
        self._rates: dict[str, float] = {}
        self._last: dict[str, int] = {}

    def tokens_per_s(self, pool_id: str) -> float:
        """Smoothed over the last few seconds."""
        return self._rates.get(pool_id, 0.0)

    async def run(self) -> None:
        """Sample until cancelled."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + SAMPLE_EVERY_S
        while True:
            await asyncio.sleep(max(due_s - loop.time(), 0))
            now_s = loop.time()
            self.metrics.note_lag((now_s - due_s) * 1000)
            self._sample(SAMPLE_EVERY_S + now_s - due_s)
            due_s = now_s + SAMPLE_EVERY_S

    def _sample(self, interval_s: float) -> None:
        for pool_id, meter in self.meters.items():
            now = (meter.tokens_total - self._last.get(pool_id, 0)) / interval_s
            self._last[pool_id] = meter.tokens_total
            before = self._rates.get(pool_id, 0.0)
            rate = before + _WEIGHT * (now - before)
            self._rates[pool_id] = rate if rate >= 0.05 else 0.0
