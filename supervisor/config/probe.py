"""How an idle engine is asked to show that it still generates."""

from supervisor.config.fields import DurationMs, Section


class ProbeConfig(Section):
    """`idle_every_ms`: how long it may be idle before it is asked; `within_ms`: the time of the answer."""

    idle_every_ms: DurationMs = 60_000
    within_ms: DurationMs = 15_000
