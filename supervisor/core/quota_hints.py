"""When a tenant that holds all it may will hold less: what its refused callers are told. Keeps no place for anybody.

A running job is expected to end when its set's time for its tokens is over. The first caller who is refused is told the
first end that helps, the next one the end after that. One who comes back too early is told what is left; one who comes
in time and finds no room goes to the head of the line.
"""

from collections import OrderedDict
from math import ceil

from msgspec import Struct, field

RETRY_QUOTA_MS_MIN = 1_000
RETRY_QUOTA_MS_MAX = 60_000
"""No hint is further away: by then the figures that it is made of are others."""
GRACE_MS = 2_000
"""How long after its moment a caller is still expected."""
HINTS_MAX = 1_024
"""Callers of one tenant in line; those beyond are told the last moment again."""


class QuotaLine(Struct):
    """One tenant: its running jobs (when each began, and its expected tokens), and who was told to come when."""

    running: dict[str, tuple[float, int]] = field(default_factory=dict)
    hints: OrderedDict[str, float] = field(default_factory=OrderedDict)

    def next_hint_ms(
        self, task_id: str, ends_needed: int, ms_per_token: float, mean_tokens: float, now_ms: float
    ) -> int:
        """How long this caller is to wait for so many ends; notes it. O(running jobs log running jobs)."""
        told_ms = self.hints.pop(task_id, None)
        while self.hints and next(iter(self.hints.values())) + GRACE_MS <= now_ms:
            self.hints.popitem(last=False)
        if told_ms is not None and told_ms > now_ms:
            due_ms = told_ms
        else:
            ends = ends_needed + (len(self.hints) if told_ms is None else 0)
            wait_ms = self._wait_ms(ends, ms_per_token, mean_tokens, now_ms)
            due_ms = now_ms + min(max(wait_ms, RETRY_QUOTA_MS_MIN), RETRY_QUOTA_MS_MAX)
        if len(self.hints) < HINTS_MAX:
            self.hints[task_id] = due_ms
        return ceil(due_ms - now_ms)

    def _wait_ms(self, ends: int, ms_per_token: float, mean_tokens: float, now_ms: float) -> float:
        left_ms = sorted(max(began + tokens * ms_per_token - now_ms, 0.0) for began, tokens in self.running.values())
        if ends <= len(left_ms):
            return left_ms[ends - 1]
        mean_ms = mean_tokens * ms_per_token
        last_ms = left_ms[-1] if left_ms else 0.0
        return last_ms + (ends - len(left_ms)) * mean_ms / max(len(left_ms), 1)
