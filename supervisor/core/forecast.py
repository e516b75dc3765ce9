"""When a newcomer will start: from the observed service time per expected token and the work ahead over the slots.

Says nothing (None) under `SAMPLES_MIN` finished tasks: an honest null beats a guess.
"""

from msgspec import Struct

SAMPLES_MIN = 3
_WEIGHT = 0.2


class Forecast(Struct):
    """Observed milliseconds of service per expected token, smoothed over the last tasks."""

    ms_per_token: float = 0.0
    samples: int = 0

    def observe(self, service_ms: float, expected_tokens: int) -> None:
        """One task was served: dispatch to end took `service_ms`."""
        sample = service_ms / max(expected_tokens, 1)
        self.ms_per_token = sample if not self.samples else self.ms_per_token + _WEIGHT * (sample - self.ms_per_token)
        self.samples += 1

    def start_in_ms(self, tokens_ahead: int, slots: int, *, has_free_slot: bool) -> int | None:
        """Milliseconds until a task starts that finds `tokens_ahead` expected tokens before it."""
        if has_free_slot:
            return 0
        if self.samples < SAMPLES_MIN or not slots:
            return None
        return round(tokens_ahead * self.ms_per_token / slots)
