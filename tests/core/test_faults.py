"""The table of faults: total, in step with what the page about devices says, and every reaction is carried out."""

import pytest

from supervisor.core.faults import (
    ALARMS,
    XIDS,
    EccKind,
    GpuAlarm,
    Reaction,
    RecoveryAction,
    is_link_action,
    meaning_of,
    name_of,
    recovery_of,
)

WITHHELD = {46, 48, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158}
NOTED = {37, 38, 44, 63, 66, 67, 92, 121, 137, 141, 152, 153, 157, 160, 161, 168, 169, 170, 171, 172}
REACTIONS = {
    Reaction.RESTART_OWNER: {13, 31, 32, 39, 40, 41, 69, 94},
    Reaction.PROBE: {43},
    Reaction.AFTERMATH: {45},
    Reaction.WITHHOLD: WITHHELD,
    Reaction.REBOOT: {79, 151},
    Reaction.LINK: {74},
    Reaction.FOLLOW: {154},
    Reaction.NOTE: NOTED,
}


@pytest.mark.orch("ORCH-3038")
def test_every_xid_has_the_reaction_that_nvidia_asks_for() -> None:
    by_reaction = {reaction: {xid for xid, each in XIDS.items() if each.reaction is reaction} for reaction in Reaction}

    assert {reaction: xids for reaction, xids in by_reaction.items() if xids} == REACTIONS


@pytest.mark.parametrize("xid", [0, 1, 47, 999, 123_456])
def test_an_xid_that_nobody_knows_is_counted_and_probed(xid: int) -> None:
    assert meaning_of(xid).reaction is Reaction.PROBE
    assert meaning_of(xid).kind == "unknown"


@pytest.mark.parametrize("alarm", list(GpuAlarm))
def test_every_alarm_has_a_meaning(alarm: GpuAlarm) -> None:
    assert meaning_of(alarm) is ALARMS[alarm]
    assert name_of(alarm) == alarm


@pytest.mark.orch("ORCH-3053")
def test_every_kind_of_memory_error_is_counted_by_its_own_word() -> None:
    kinds = {each.ecc for each in (*XIDS.values(), *ALARMS.values()) if each.ecc is not None}

    assert kinds == set(EccKind)


@pytest.mark.parametrize(
    ("value", "action"),
    [
        (0, RecoveryAction.NONE),
        (1, RecoveryAction.GPU_RESET),
        (2, RecoveryAction.NODE_REBOOT),
        (3, RecoveryAction.DRAIN_P2P),
        (4, RecoveryAction.DRAIN_AND_RESET),
        (5, RecoveryAction.IMEX_DOMAIN),
        (6, RecoveryAction.BUS_RESET),
        (7, RecoveryAction.SYSTEM_REBOOT),
        (8, RecoveryAction.OTHER),
        (-1, RecoveryAction.OTHER),
    ],
)
def test_every_recovery_action_is_known_by_its_number(value: int, action: RecoveryAction) -> None:
    assert recovery_of(value) is action


def test_two_recovery_actions_concern_links_alone() -> None:
    assert [action for action in RecoveryAction if is_link_action(action)] == [
        RecoveryAction.DRAIN_P2P,
        RecoveryAction.IMEX_DOMAIN,
    ]
