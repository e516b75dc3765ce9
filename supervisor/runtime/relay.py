"""The relay: runs tasks on engines and reports what became of each run.

It decides nothing, retries nothing and waits for nothing. One run's life is in `relay_run`, its words in `relay_facts`.
"""

from supervisor.runtime.relay_facts import RunOrder, RunSink, RunTally
from supervisor.runtime.relay_run import Run

METRICS_EVERY_S = 1.0
"""At most one metrics frame in this time for each running task with live readers."""


class Relay:
    """All runs of the daemon, by `run_id`. Used on one event loop only."""

    def __init__(self, sink: RunSink, metrics_every_s: float = METRICS_EVERY_S) -> None:
        self._sink = sink
        self._metrics_every_s = metrics_every_s
        self._runs: dict[int, Run] = {}

    @property
    def runs(self) -> int:
        """Runs that are neither over nor aborted."""
        return len(self._runs)

    def start(self, order: RunOrder) -> None:
        """Send the request. The log must have its `started` frame. Facts go to the sink, never before this returns.

        Raises ValueError for a request that the adapter built wrongly.
        """
        assert order.run_id not in self._runs, "a run is started once"
        self._runs[order.run_id] = Run(order, self._sink, self._forget, self._metrics_every_s)

    def abort(self, run_id: int) -> RunTally | None:
        """Close the engine's request; after this no frame of the run is ever appended, and nothing more is reported.

        None where the run is not known: it has been reported as finished or failed already, or never was.
        """
        run = self._runs.get(run_id)
        return None if run is None else run.abort()

    def _forget(self, run_id: int) -> None:
        self._runs.pop(run_id, None)
