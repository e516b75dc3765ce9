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
        self._rates = dict.fromkeys(meters, 0.0)
        self._last = {pool_id: meter.tokens_total for pool_id, meter in meters.items()}

    def tokens_per_s(self, pool_id: str) -> float:
        """Smoothed over the last few seconds."""
        return self._rates[pool_id]

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
            rate = (meter.tokens_total - self._last[pool_id]) / interval_s
            self._last[pool_id] = meter.tokens_total
            self._rates[pool_id] += _WEIGHT * (rate - self._rates[pool_id])
            if self._rates[pool_id] < 0.05:
                self._rates[pool_id] = 0.0
