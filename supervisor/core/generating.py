"""What is known of a worker's generating: the record that `wedge` keeps of each."""

from msgspec import Struct


class Generating(Struct):
    """One incarnation. `proved_ms` is when it last gave something (monotonic).

    `probe` is the run id under which a probe has its slot, None while there is no probe; `failures` are probes that
    failed in a row. `silent_stalls` are runs that stalled since it last gave a token. `look_ms` is when a probe may be
    due; an alarm for any other time is an old one.
    """

    proved_ms: float = 0.0
    probe: int | None = None
    failures: int = 0
    silent_stalls: int = 0
    look_ms: float | None = None
