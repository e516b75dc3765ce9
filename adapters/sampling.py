"""Sampler profiles: complete, explicit parameter sets, so that no engine's own default is ever relied on (ORCH-3058).

A published profile never changes: other values are a new version, because a version names the tokens it gives
(ORCH-3046). Decides nothing about a task; it merges what a task states over what its profile states.
"""

from collections.abc import Mapping
from types import MappingProxyType

DEFAULT_VERSION = "v1"

_V1: Mapping[str, float | int] = MappingProxyType(
    {
        # What a task may state itself. Temperature 0 takes the most likely token, so the rest acts once it is raised.
        "temperature": 0.0,
        "top_k": 40,
        "top_p": 0.95,
        "min_p": 0.05,
        "repeat_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        # What only a profile states: every other knob, at the value that turns it off.
        "repeat_last_n": 64,
        "typical_p": 1.0,
        "top_n_sigma": -1.0,
        "xtc_probability": 0.0,
        "xtc_threshold": 0.1,
        "dynatemp_range": 0.0,
        "dynatemp_exponent": 1.0,
        "mirostat": 0,
        "mirostat_tau": 5.0,
        "mirostat_eta": 0.1,
        "dry_multiplier": 0.0,
        "dry_base": 1.75,
        "dry_allowed_length": 2,
        "dry_penalty_last_n": 64,
        "adaptive_target": -1.0,
        "adaptive_decay": 0.9,
        "min_keep": 0,
    }
)

PROFILES: Mapping[str, Mapping[str, float | int]] = MappingProxyType({"v1": _V1})

OVERRIDABLE = frozenset(
    {"temperature", "top_k", "top_p", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty"}
)
"""The parameters that a task may state for itself; the rest belongs to the profile."""


class SamplerError(Exception):
    """No such profile, or a parameter that a task may not state. One sentence."""


def profile(version: str) -> Mapping[str, float | int]:
    """The complete parameter set of a version. Raises SamplerError."""
    found = PROFILES.get(version)
    if found is None:
        msg = f"there is no sampler profile {version!r}; there is {', '.join(PROFILES)}"
        raise SamplerError(msg)
    return found


def merged(version: str, overrides: Mapping[str, float | int]) -> Mapping[str, float | int]:
    """The profile with a task's own values over it. Raises SamplerError for an unknown version or parameter."""
    base = profile(version)
    foreign = sorted(set(overrides) - OVERRIDABLE)
    if foreign:
        msg = f"the sampler parameter {foreign[0]!r} is the profile's and cannot be stated by a task"
        raise SamplerError(msg)
    return {**base, **overrides}
