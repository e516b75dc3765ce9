"""How long to wait before the same is tried again, and when to give up. Pure: time and chance are arguments.

1. An error that a second try cannot mend is final: a protocol error, or an answer that is not retriable (ORCH-3025).
2. All tries are used up: final.
3. The wait: the daemon's own hint, never less, with a little more so that those who were told the same do not come back
   in one instant; without a hint, doubling from `first_s` to `longest_s`, of which the second half is left to chance.
4. A wait that would end after `total_s` is not begun: final, at once.
"""

from dataclasses import dataclass

from supervisor.client.errors import ApiError, ClientError, NetworkError, UnreachableError

HINT_JITTER_SHARE = 0.1
HINT_JITTER_MAX_S = 0.25
_DOUBLINGS_MAX = 32


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Bounds of trying again; times are seconds. `tries_max` counts the first one too.

    `waits_for_listener` says whether a daemon that nothing listens for is worth a second try.
    """

    tries_max: int = 8
    total_s: float = 60.0
    first_s: float = 0.1
    longest_s: float = 5.0
    waits_for_listener: bool = True


NEVER = RetryPolicy(tries_max=1)
"""One try and no other."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One try that failed: the how manieth it was, from 1, and the seconds since the first one began."""

    error: ClientError
    tries: int
    elapsed_s: float


def wait_before_retry_s(policy: RetryPolicy, failure: Failure, chance: float) -> float | None:
    """Seconds to wait before the next try; None where there is none. `chance` is from 0 to less than 1."""
    if not is_mendable(policy, failure.error) or failure.tries >= policy.tries_max:
        return None
    hint_ms = failure.error.retry_after_ms if isinstance(failure.error, ApiError) else None
    wait_s = _own_s(policy, failure.tries, chance) if hint_ms is None else _hinted_s(hint_ms / 1_000, chance)
    return wait_s if failure.elapsed_s + wait_s <= policy.total_s else None


def is_mendable(policy: RetryPolicy, error: ClientError) -> bool:
    """Whether a second try can succeed where this one failed."""
    if isinstance(error, UnreachableError):
        return policy.waits_for_listener
    return error.retriable if isinstance(error, ApiError) else isinstance(error, NetworkError)


def _hinted_s(hint_s: float, chance: float) -> float:
    return hint_s + chance * min(HINT_JITTER_SHARE * hint_s, HINT_JITTER_MAX_S)


def _own_s(policy: RetryPolicy, tries: int, chance: float) -> float:
    whole_s: float = min(policy.longest_s, policy.first_s * 2.0 ** min(tries - 1, _DOUBLINGS_MAX))
    return whole_s * (0.5 + 0.5 * chance)
