"""Everything at once, in any order: the state stays sound after every event, and comes to rest."""

import pytest

from supervisor.core import events as ev
from tests.sim.chaos import Chaos, ChaosError

GROUPS = 4
SEEDS_PER_GROUP = 12
FAILED_ONCE = (181,)


@pytest.mark.orch("ORCH-3031", "ORCH-3033", "ORCH-3053")
@pytest.mark.parametrize("group", range(GROUPS))
def test_whatever_happens_the_state_stays_sound_and_comes_to_rest(group: int) -> None:
    kinds = set()
    for seed in range(group * SEEDS_PER_GROUP, (group + 1) * SEEDS_PER_GROUP):
        chaos = Chaos(seed)
        chaos.play()
        kinds |= {type(event) for _, event in chaos.told}

    assert {ev.RolloutRequested, ev.LeaseRequested, ev.DeviceFaulted, ev.PoolsChanged, ev.SelfTestOver} <= kinds


@pytest.mark.orch("ORCH-3024", "ORCH-3031", "ORCH-3053")
@pytest.mark.parametrize("group", range(GROUPS))
def test_whenever_a_daemon_ends_the_next_one_takes_up_what_it_left(group: int) -> None:
    kinds, lives = set(), 0
    for seed in range(group * SEEDS_PER_GROUP, (group + 1) * SEEDS_PER_GROUP):
        chaos = Chaos(seed, is_mortal=True)
        chaos.play()
        kinds |= {type(event) for _, event in chaos.told}
        lives += chaos.lives

    assert {ev.HaltRequested, ev.EnginesFound, ev.IntentRestored, ev.TasksRestored, ev.NeedsRestored} <= kinds
    assert lives > 2 * SEEDS_PER_GROUP


@pytest.mark.parametrize("seed", FAILED_ONCE)
def test_a_seed_that_failed_once_never_fails_again(seed: int) -> None:
    Chaos(seed).play()


def test_the_same_seed_plays_the_same_events() -> None:
    one, other = Chaos(5), Chaos(5)
    one.play()
    other.play()

    assert one.told == other.told


def test_a_failure_names_its_seed_and_the_last_events() -> None:
    chaos = Chaos(3)
    with pytest.raises(ChaosError, match="chaos seed 3") as raised:
        chaos._require("a lie")

    assert "DevicesSeen" in str(raised.value)
