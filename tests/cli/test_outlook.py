"""`orchctl plan --reload` and `--canary`: what they send, print and exit with."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from orchctl.outlook_text import outlook_page
from orchctl.terminal import ASCII, Screen
from supervisor.wire.outlook import ChangeOutlook, GivesWay, OutlookRequest, OutlookShare, PoolOutlook
from supervisor.wire.rollouts import ConfigChange
from tests.cli.conftest import Orchctl
from tests.cli.peer import Peer

PLAN = "/v1/plan"
SHARE = OutlookShare(
    device="GPU-0", old_mib=3_210, need_mib=3_270, reserve_mib=512, free_mib=4_096, claimed_mib=7,
    source="estimate", why="nothing was observed yet",
)  # fmt: skip


def an_outlook(way: str, **given: Any) -> ChangeOutlook:
    fields: dict[str, Any] = {"effect": "reload", "from_model": "old", "to_model": "new", "shares": [SHARE], **given}
    return ChangeOutlook(simulated=None, pools=[PoolOutlook(pool_id="small", way=way, **fields)])


def asked(peer: Peer) -> OutlookRequest:
    (body,) = [request.body for request in peer.requests if request.path == PLAN]
    return msgspec.json.decode(body, type=OutlookRequest)


@pytest.mark.parametrize(
    ("argv", "request_sent"),
    [
        (["--reload"], OutlookRequest()),
        (["--reload", "--revert"], OutlookRequest(revert=True)),
        (["--reload", "small", "new"], OutlookRequest(pool_id="small", new_model_ref="new")),
        (["--canary", "small", "new"], OutlookRequest(pool_id="small", new_model_ref="new", canary=True)),
    ],
)
def test_what_is_asked_of_the_daemon(
    peer: Peer, orchctl: Orchctl, argv: list[str], request_sent: OutlookRequest
) -> None:
    peer.replies[PLAN] = (200, an_outlook("side-by-side"))

    ran = orchctl("plan", *argv)

    assert (ran.code, ran.err) == (0, "")
    assert asked(peer) == request_sent


def test_another_file_is_sent_as_text(peer: Peer, orchctl: Orchctl, tmp_path: Path) -> None:
    peer.replies[PLAN] = (200, an_outlook("side-by-side"))
    path = tmp_path / "new.yaml"
    path.write_text("pools: []  # ä\n")

    assert orchctl("plan", "--reload", str(path)).code == 0
    assert asked(peer) == OutlookRequest(config="pools: []  # ä\n", revert=UNSET)


@pytest.mark.parametrize(
    ("way", "code"),
    [
        ("side-by-side", 0),
        ("stop-start", 0),
        ("starts", 0),
        ("waits", 75),
        ("fails", 75),
        ("returns", 75),
        ("never", 78),
    ],
)
def test_the_exit_code_says_whether_it_would_start(peer: Peer, orchctl: Orchctl, way: str, code: int) -> None:
    peer.replies[PLAN] = (200, an_outlook(way))

    ran = orchctl("plan", "--reload", "small", "new", "-o", "json")

    assert ran.code == code
    assert json.loads(ran.out)["pools"][0]["way"] == way


def test_a_change_that_is_refused_exits_1_with_its_cause(peer: Peer, orchctl: Orchctl) -> None:
    change = ConfigChange(pool_id=None, key="durability", effect="restart")
    why = "A change of durability needs a restart of the daemon; nothing was changed."
    peer.replies[PLAN] = (200, ChangeOutlook(simulated=None, pools=[], changes=[change], refused=why))

    ran = orchctl("plan", "--reload")

    assert ran.code == 1
    assert why in ran.out


@pytest.mark.parametrize(
    "argv",
    [
        ["small", "new"],
        ["--canary"],
        ["--canary", "small"],
        ["--reload", "--canary", "small", "new"],
        ["--revert"],
        ["--reload", "--revert", "small", "new"],
        ["--reload", "a", "b", "c"],
        ["--reload", "--config", "x.yaml"],
    ],
)
def test_half_a_question_is_a_usage_error(orchctl: Orchctl, argv: list[str]) -> None:
    assert orchctl("plan", *argv).code == 2


def test_a_file_that_is_not_there_is_a_config_error(orchctl: Orchctl, tmp_path: Path) -> None:
    assert orchctl("plan", "--reload", str(tmp_path / "none.yaml")).code == 78


def test_the_page_shows_old_and_new_side_by_side_and_who_gives_way() -> None:
    leaver = GivesWay(pool_id="small", revision=1, role="current")
    screen = Screen(is_terminal=True, has_colour=False, has_cursor=False, width=200, height=40, signs=ASCII)

    text = "\n".join(outlook_page(an_outlook("stop-start", gives_way=[leaver], tasks_wait=True, load_ms=4_200), screen))

    for part in ("3210 MiB", "3270 MiB", "512 MiB", "4096 MiB", "small revision 1 (current)", "tasks of the pool wait"):
        assert part in text


@pytest.mark.parametrize("width", [20, 40, 80, 120])
def test_no_line_of_the_table_is_wider_than_the_screen(width: int) -> None:
    screen = Screen(is_terminal=True, has_colour=False, has_cursor=False, width=width, height=40, signs=ASCII)

    lines = list(outlook_page(an_outlook("stop-start", load_ms=4_200.0), screen))

    assert max(map(len, lines[: lines.index("")])) <= width
