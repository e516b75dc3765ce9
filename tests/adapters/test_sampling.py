"""Sampler profiles: complete, fixed, and overridden only where a task may."""

import pytest

from adapters import sampling

V1 = {
    "temperature": 0.0, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repeat_penalty": 1.0, "presence_penalty": 0.0,
    "frequency_penalty": 0.0, "repeat_last_n": 64, "typical_p": 1.0, "top_n_sigma": -1.0, "xtc_probability": 0.0,
    "xtc_threshold": 0.1, "dynatemp_range": 0.0, "dynatemp_exponent": 1.0, "mirostat": 0, "mirostat_tau": 5.0,
    "mirostat_eta": 0.1, "dry_multiplier": 0.0, "dry_base": 1.75, "dry_allowed_length": 2, "dry_penalty_last_n": 64,
    "adaptive_target": -1.0, "adaptive_decay": 0.9, "min_keep": 0,
}  # fmt: skip


@pytest.mark.orch("ORCH-3058", "ORCH-3046")
def test_a_published_profile_never_changes() -> None:
    assert dict(sampling.profile("v1")) == V1
    assert list(sampling.PROFILES) == ["v1"]


def test_a_task_states_its_own_values_over_the_profile() -> None:
    assert sampling.merged("v1", {"temperature": 0.8, "top_k": 5}) == {**V1, "temperature": 0.8, "top_k": 5}
    assert dict(sampling.profile("v1")) == V1


@pytest.mark.parametrize("name", ["mirostat", "seed", "nonsense"])
def test_a_task_cannot_state_what_is_the_profiles(name: str) -> None:
    with pytest.raises(sampling.SamplerError, match=name):
        sampling.merged("v1", {name: 1})


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(sampling.SamplerError, match="there is no sampler profile 'v9'; there is v1"):
        sampling.profile("v9")
