"""`orchctl reload`, `canary`, `rollback` and `rollout`: what they send, print and exit with."""

import json

import msgspec
import pytest

from supervisor.wire.codes import Code, Reason
from supervisor.wire.rollouts import (
    CanaryRequest,
    ConfigChange,
    ConfigReloaded,
    ConfigReloadRequest,
    JudgementView,
    ReloadRequest,
    RevisionView,
    RolloutPage,
    RolloutStarted,
    RolloutView,
)
from tests.cli.builders import refusal
from tests.cli.conftest import Orchctl
from tests.cli.peer import Peer

POOL = "/v1/pools/small"
CONFIG = "/v1/config/reload"
STARTED = RolloutStarted(pool_id="small", revision=2)
CANARY = RolloutView(
    kind="canary",
    state="sharing",
    from_revision=1,
    to_revision=2,
    from_model="old",
    to_model="new",
    since_ms=5_000,
    percent=10.0,
    judged=True,
    canary=JudgementView(tasks=12, errors=1, late=0),
    current=JudgementView(tasks=100, errors=0, late=2),
)
FAILED = RevisionView(
    revision=2, model_ref="new", kind="reload", outcome="failed", age_ms=1_000, cause="the digest is another"
)


def page(revision: int = 1, rollout: RolloutView | None = None, *history: RevisionView) -> RolloutPage:
    return RolloutPage(
        pool_id="small", revision=revision, model_ref="old", standby=None, rollout=rollout, history=list(history)
    )


def sent(peer: Peer, path: str) -> bytes:
    (request,) = peer.asked("POST", path)
    return request.body


def test_a_model_reload_sends_the_model_and_says_where_to_watch(peer: Peer, orchctl: Orchctl) -> None:
    peer.replies[f"{POOL}/reload"] = (202, STARTED)

    ran = orchctl("reload", "small", "new", "--drain", "5s")

    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "revision 2 of small is on its way; watch it with `orchctl rollout status small`\n"
    asked = msgspec.json.decode(sent(peer, f"{POOL}/reload"), type=ReloadRequest)
    assert (asked.new_model_ref, asked.drain_ms, asked.dry_run) == ("new", 5_000, False)


def test_waiting_for_a_reload_that_fails_exits_1_with_its_cause(peer: Peer, orchctl: Orchctl) -> None:
    peer.replies[f"{POOL}/reload"] = (202, STARTED)
    peer.replies[f"{POOL}/rollout"] = (200, page(1, None, FAILED))

    ran = orchctl("reload", "small", "new", "--wait")

    assert (ran.code, ran.out) == (1, "")
    assert "revision 2 of small failed: the digest is another; revision 1 serves" in ran.err
    assert "orchctl rollout history small" in ran.err


def test_waiting_for_a_reload_that_serves_shows_the_pool(peer: Peer, orchctl: Orchctl) -> None:
    peer.replies[f"{POOL}/reload"] = (202, STARTED)
    peer.replies[f"{POOL}/rollout"] = (200, page(2))

    ran = orchctl("reload", "small", "new", "--wait", "-o", "json")

    assert ran.code == 0
    assert json.loads(ran.out)["revision"] == 2


def test_a_pool_without_a_model_is_a_usage_error(orchctl: Orchctl) -> None:
    ran = orchctl("reload", "small")

    assert ran.code == 2
    assert "orchctl reload small MODEL" in ran.err


@pytest.mark.parametrize(
    ("arguments", "dry_run", "revert"),
    [((), False, False), (("--dry-run",), True, False), (("--revert",), False, True)],
)
def test_a_config_reload_says_what_each_change_costs(
    peer: Peer, orchctl: Orchctl, arguments: tuple[str, ...], dry_run: bool, revert: bool
) -> None:
    changes = [
        ConfigChange(pool_id="small", key="queue.capacity", effect="hot"),
        ConfigChange(pool_id="large", key="ctx", effect="replace"),
    ]
    peer.replies[CONFIG] = (200, ConfigReloaded(generation=4, dry_run=dry_run, changes=changes))

    ran = orchctl("reload", *arguments)

    asked = msgspec.json.decode(sent(peer, CONFIG), type=ConfigReloadRequest)
    assert (asked.dry_run, asked.revert) == (dry_run, revert)
    assert ran.code == 0
    assert "queue.capacity  at once" in ran.out
    assert "new worker, then drain" in ran.out
    assert f"generation 4 {'would be' if dry_run else 'is'} in force" in ran.out


@pytest.mark.parametrize("reason", [Reason.CONFIG, Reason.RESTART])
def test_a_config_that_cannot_be_taken_up_exits_78(peer: Peer, orchctl: Orchctl, reason: Reason) -> None:
    message = "Nothing was changed: pools.yaml:3:5: /pools/0/ctx: is required."
    peer.refusals[CONFIG] = (400, refusal(Code.INVALID_PARAMS, message, reason=reason))

    ran = orchctl("reload")

    assert ran.code == 78
    assert "pools.yaml:3:5: /pools/0/ctx" in ran.err
    assert "orchctl reload" in ran.err


def test_a_canary_is_started_with_its_share_and_its_terms(peer: Peer, orchctl: Orchctl) -> None:
    peer.replies[f"{POOL}/canary"] = (202, STARTED)

    ran = orchctl("canary", "start", "small", "new", "--percent", "12.5", "--auto", "--min-tasks", "7")

    assert ran.code == 0
    asked = msgspec.json.decode(sent(peer, f"{POOL}/canary"), type=CanaryRequest)
    assert (asked.percent, asked.auto) == (12.5, True)
    assert isinstance(asked.judge, msgspec.Struct)
    assert msgspec.to_builtins(asked.judge) == {"min_tasks": 7}


def test_the_status_of_a_canary_shows_both_sides(peer: Peer, orchctl: Orchctl) -> None:
    peer.replies[f"{POOL}/rollout"] = (200, page(1, CANARY))

    ran = orchctl("canary", "status", "small")

    assert "canary to revision 2, new: sharing with 10 % of the sessions, judged" in ran.out
    assert "12 tasks, 1 failed, 0 late" in ran.out
    assert "100 tasks, 0 failed, 2 late" in ran.out


@pytest.mark.parametrize(
    ("line", "path"),
    [
        (("canary", "promote", "small"), f"{POOL}/rollout/promote"),
        (("canary", "abort", "small"), f"{POOL}/rollout/abort"),
        (("rollout", "abort", "small"), f"{POOL}/rollout/abort"),
        (("canary", "share", "small", "--percent", "50"), f"{POOL}/rollout/share"),
        (("rollback", "small"), f"{POOL}/rollback"),
    ],
)
def test_a_change_is_one_request(peer: Peer, orchctl: Orchctl, line: tuple[str, ...], path: str) -> None:
    peer.replies[path] = (202, STARTED)

    ran = orchctl(*line)

    assert (ran.code, ran.err) == (0, "")
    assert len(peer.asked("POST", path)) == 1
    assert ran.out.count("\n") == 1


def test_a_history_names_what_failed_and_why(peer: Peer, orchctl: Orchctl) -> None:
    peer.replies[f"{POOL}/rollout"] = (200, page(1, None, FAILED))

    ran = orchctl("rollout", "history", "small")

    assert "failed" in ran.out
    assert "the digest is another" in ran.out


def test_terms_without_a_judgement_are_a_usage_error(orchctl: Orchctl) -> None:
    assert orchctl("canary", "start", "small", "new", "--min-tasks", "5").code == 2


def test_a_revert_without_a_config_before_is_no_bad_config(peer: Peer, orchctl: Orchctl) -> None:
    peer.refusals["/v1/config/reload"] = (404, refusal(message="There is none before.", reason=Reason.NOT_FOUND))

    ran = orchctl("reload", "--revert")

    assert ran.code == 1
    assert "orchctl reload --dry-run" in ran.err


def test_what_is_missing_on_a_pool_that_is_there_does_not_send_to_the_list_of_pools(
    peer: Peer, orchctl: Orchctl
) -> None:
    envelope = refusal(message="Pool small has no canary.", reason=Reason.NOT_FOUND, pool_id="small")
    peer.refusals[f"{POOL}/rollout/share"] = (404, envelope)

    ran = orchctl("canary", "share", "small", "--percent", "5")

    assert ran.code == 1
    assert ran.err == "orchctl: pool small has no canary; see what serves it with `orchctl rollout status small`\n"


@pytest.mark.parametrize(
    ("line", "path"), [(("canary", "start", "small", "new"), f"{POOL}/canary"), (("reload",), CONFIG)]
)
def test_a_pool_in_a_change_is_to_be_looked_at_and_not_asked_again_each_second(
    peer: Peer, orchctl: Orchctl, line: tuple[str, ...], path: str
) -> None:
    message = "A rollout of pool small is under way."
    busy = refusal(
        Code.ADMISSION_REJECT, message, reason=Reason.BUSY, pool_id="small", retriable=True, retry_after_ms=1_000
    )
    peer.refusals[path] = (409, busy)

    ran = orchctl(*line)

    assert ran.code == 75
    assert ran.err.endswith("; see how far it is with `orchctl rollout status small`\n")


@pytest.mark.parametrize("period", ["0s", "999ms", "31d"])
def test_a_lease_of_no_time_or_too_much_is_a_usage_error(orchctl: Orchctl, period: str) -> None:
    ran = orchctl("lease", "take", "gpu:0", "--for", period)

    assert (ran.code, ran.err) == (2, "orchctl: --for is between 1s and 30d; give another time\n")
