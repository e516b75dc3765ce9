"""When a newcomer will start: from the observed service time per expected token and the work ahead over the slots.

Work ahead is what waits before it and what is left of what runs. Says nothing (None) under `SAMPLES_MIN` finished
tasks: an honest null beats a guess. O(1) for any number of waiting and running tasks: it keeps sums.

    work   = what is left of the running tasks + the waiting tasks that go first
    start  = work / slots - (slots - 1) / (2 * slots) * the mean service time

The second term is there because the newcomer takes the *first* slot that comes free: with S slots that run out of step
their ends are spread over one service time, so the first is half a service time before their mean, for S large.
"""

from msgspec import Struct

SAMPLES_MIN = 3
WEIGHT_MIN = 0.05
"""Of the newest sample; the first samples weigh evenly, so that the very first does not linger."""


class InService(Struct):
    """What runs on the slots of one set: sums over its runs. `started_sum_ms` adds up when each began."""

    count: int = 0
    expected_tokens: int = 0
    started_sum_ms: float = 0.0

    def begin(self, expected_tokens: int, started_ms: float) -> None:
        """A run was given to a slot."""
        self.count += 1
        self.expected_tokens += expected_tokens
        self.started_sum_ms += started_ms

    def end(self, expected_tokens: int, started_ms: float) -> None:
        """That run is over."""
        self.count -= 1
        self.expected_tokens -= expected_tokens
        self.started_sum_ms = self.started_sum_ms - started_ms if self.count else 0.0


class Forecast(Struct):
    """Smoothed over the last tasks: milliseconds of service, and expected tokens, of a task."""

    service_ms: float = 0.0
    tokens: float = 0.0
    samples: int = 0

    @property
    def ms_per_token(self) -> float:
        """Milliseconds of service for one expected token. The means are kept apart, so that long tasks count more."""
        return self.service_ms / self.tokens if self.tokens else 0.0

    @property
    def is_known(self) -> bool:
        """Whether enough tasks were served to say anything."""
        return self.samples >= SAMPLES_MIN

    def observe(self, service_ms: float, expected_tokens: int) -> None:
        """One task was served: dispatch to end took `service_ms`."""
        self.samples += 1
        weight = max(1 / self.samples, WEIGHT_MIN)
        self.service_ms += weight * (service_ms - self.service_ms)
        self.tokens += weight * (max(expected_tokens, 1) - self.tokens)

    def left_ms(self, in_service: InService, now_ms: float) -> float:
        """What is left of the running tasks, all together; tasks that overran hide what is left of others."""
        spent_ms = in_service.count * now_ms - in_service.started_sum_ms
        return max(in_service.expected_tokens * self.ms_per_token - spent_ms, 0.0)

    def start_in_ms(self, tokens_ahead: float, slots: int, in_service: InService, now_ms: float) -> int | None:
        """Milliseconds until a task starts that finds no free slot, and `tokens_ahead` expected tokens before it."""
        if not self.is_known or not slots:
            return None
        work_ms = tokens_ahead * self.ms_per_token + self.left_ms(in_service, now_ms)
        return round(max(work_ms / slots - self.service_ms * (slots - 1) / (2 * slots), 0.0))

    def alone_in_ms(self, in_service: InService, now_ms: float) -> int:
        """Milliseconds until a worker is empty, at least: the mean of what is left of the running tasks."""
        return round(self.left_ms(in_service, now_ms) / max(in_service.count, 1))

    def place_ms(self, tasks: int, tokens: int, slots: int) -> float | None:
        """Milliseconds between two places that come free, given the tasks that wait and their expected tokens."""
        if not self.is_known or not slots:
            return None
        mean = tokens / tasks if tasks else self.tokens
        return mean * self.ms_per_token / slots
