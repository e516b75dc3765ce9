"""`orchctl status`: what stands on the page, and in the documents for programs."""

import json
from pathlib import Path

import msgspec
import pytest
import yaml

from orchctl.device_columns import device_columns
from orchctl.status_text import host_page, pool_page
from orchctl.table import fit
from orchctl.terminal import UNICODE
from supervisor.wire.devices import DeviceHealth, DevicePlace
from supervisor.wire.pools import DeviceView, HostStatus, PolicyStatus, PoolHealth
from supervisor.wire.rollouts import JudgementView, RolloutView
from tests.cli.builders import broken_pool, device, host, metrics, pool
from tests.cli.conftest import Orchctl
from tests.cli.peer import Peer
from tests.cli.screens import screen


def test_the_page_shows_pools_their_cause_and_the_devices(peer: Peer, orchctl: Orchctl) -> None:
    peer.status = host(pool(), broken_pool())

    ran = orchctl("status")

    assert ran.code == 0
    assert ran.err == ""
    lines = [
        " ".join(line.split()) for line in ran.out.translate({0x25CF: "*", 0x25CB: "o", 0x2514: "`-"}).splitlines()
    ]
    assert lines[2:] == [
        "POOL STATE MODEL ENGINE DEVICE SLOTS QUEUE TOK/S RESTARTS",
        "* small ready smollm2-135m llamacpp b11434 0 1/4 3 58.2 0",
        "o large backoff qwen-32b llamacpp b11434 0 0/4 0 0.0 5",
        "`- the engine ran out of GPU memory while it loaded; next try in 12 s",
        "",
        "GPU NAME VRAM USE POOLS",
        "0 NVIDIA L4 6.0 of 22.5 GiB 87 % small",
    ]


def test_the_first_line_is_about_the_daemon() -> None:
    page = host_page(host(pool()), screen(signs=UNICODE), is_wide=False)

    assert page[0] == "orchctl 0.1.0 · running · up 3 h 12 min · pid 4000"


def test_what_is_wrong_with_the_host_stands_above_the_pools() -> None:
    status = host(simulated="1x8GiB", gpu_cause="the driver is not loaded", journal_writable=False)

    page = host_page(status, screen(), is_wide=False)

    assert page[1:4] == [
        "SIMULATED GPUS: 1x8GiB (NOTHING HERE RUNS ON A GPU)",
        "no usable GPU: the driver is not loaded",
        "the journal is not writable: no new task is accepted",
    ]


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ("refused", "the policy is refused, the built-in one decides: it has imports"),
        ("set_aside", "the policy is set aside, the built-in one decides: it has imports"),
        ("active", ""),
    ],
)
def test_a_policy_that_does_not_decide_is_named(state: str, line: str) -> None:
    policy = PolicyStatus(state=state, digest=None, cause="it has imports", calls={})

    assert host_page(host(policy=policy), screen(), is_wide=False)[1] == line


def test_a_narrow_screen_keeps_what_matters_most() -> None:
    page = host_page(host(pool(), broken_pool()), screen(width=40), is_wide=False)

    assert all(len(line) <= 40 for line in page)
    assert "   POOL   STATE    SLOTS  QUEUE  TOK/S" in page
    assert any("next try in 12 s" in line for line in page)


def test_no_width_breaks_the_page() -> None:
    status = host(pool(), broken_pool("a-pool-with-quite-a-long-name"), simulated="1x8GiB", gpu_cause="none here")

    for width in range(1, 121):
        assert host_page(status, screen(width=width), is_wide=True)
        assert pool_page(broken_pool(), screen(width=width))


def test_wide_shows_more(peer: Peer, orchctl: Orchctl) -> None:
    peer.status = host(pool(metrics=metrics(first_token_p95_ms=812.0)))

    ran = orchctl("status", "-o", "wide")

    assert "FIRST TOKEN P95" in ran.out
    assert "812 ms" in ran.out
    assert peer.status.devices[0].uuid in ran.out


def test_a_drain_is_seen_in_the_state() -> None:
    busy, idle = (pool(draining=True, metrics=metrics(slots_busy=slots)) for slots in (2, 0))

    page = "\n".join(host_page(host(busy, idle), screen(), is_wide=False))

    assert "o  small  draining" in page
    assert "o  small  drained" in page


def test_one_pool_is_shown_with_its_steps(peer: Peer, orchctl: Orchctl) -> None:
    peer.status = host(broken_pool())

    ran = orchctl("status", "large")

    assert ran.code == 0
    assert "next try in 12 s" in ran.out
    steps = ran.out.split("steps to ready\n")[1].splitlines()
    assert [line.split(maxsplit=1)[1] for line in steps] == ["model  12 ms", "process  exit code 1", "self-test"]


def test_check_marks_become_letters_where_there_is_no_unicode() -> None:
    steps = pool_page(broken_pool(), screen())[-3:]

    assert steps == ["  + model  12 ms", "  x process  exit code 1", "  - self-test"]


def test_no_words_of_an_engine_reach_the_terminal_raw() -> None:
    evil = pool("x\x1b[2J", ready=False, cause="\x1b]0;owned\x07\nboom", engine_version="\x9b31m")

    page = "\n".join([*host_page(host(evil), screen(), is_wide=True), *pool_page(evil, screen())])

    assert "\x1b" not in page
    assert "\x9b" not in page
    assert "^[]0;owned^G boom" in page


def test_json_is_the_reply_itself(peer: Peer, orchctl: Orchctl) -> None:
    peer.status = host(pool(), broken_pool())

    ran = orchctl("status", "-o", "json")

    assert msgspec.json.decode(ran.out, type=HostStatus) == peer.status


def test_yaml_says_the_same(peer: Peer, orchctl: Orchctl) -> None:
    ran = orchctl("status", "small", "-o", "yaml")

    assert msgspec.convert(yaml.safe_load(ran.out), PoolHealth) == peer.status.pools[0]


def test_a_host_without_pools_says_so() -> None:
    assert host_page(host(devices=[]), screen(), is_wide=False)[-1] == "no pools yet; write one into the config"


def test_watching_a_pipe_prints_page_after_page_until_the_daemon_is_gone(peer: Peer, orchctl: Orchctl) -> None:
    looks = iter([None, None])

    def leave_after_two() -> None:
        if next(looks, "gone") == "gone":
            Path(peer.path).unlink()
            peer.raw_replies["/v1/status"] = b""
            raise ConnectionAbortedError

    peer.on_status = leave_after_two

    ran = orchctl("status", "--watch", "--interval", "100ms", "-o", "json")

    assert ran.code == 69
    assert [json.loads(line)["version"] for line in ran.out.splitlines()] == ["0.1.0", "0.1.0"]


# Devices ----------------------------------------------------------------------------------------------------------

HEALTH = DeviceHealth(
    temperature_c=61,
    power_w=312.5,
    pcie_gen=3,
    pcie_width=8,
    has_ecc=True,
    ecc_single_volatile=7,
    ecc_double_volatile=1,
    rows_pending=True,
    recovery_action="a GPU reset",
)
PLACE = DevicePlace(pcie_gen_max=5, pcie_width_max=16, numa_node=1, nvlinks=["0000:9b", "0000:9c"])
SICK = device(withheld="GPU 0 reported XID 79", flags=["memory_error"], health=HEALTH, place=PLACE)


def devices_table(*devices: DeviceView, is_wide: bool = True, width: int = 400) -> list[str]:
    """The title and the rows of the table of devices, split where columns are."""
    page = host_page(host(devices=list(devices)), screen(width=width), is_wide=is_wide)
    return page[next(at for at, line in enumerate(page) if line.lstrip().startswith("GPU")) :]


def cells(line: str) -> list[str]:
    return [cell for cell in line.strip().split("  ") if cell.strip()]


def test_wide_shows_how_each_device_is_and_where_it_sits() -> None:
    title, row, _ = devices_table(SICK)
    shown = dict(zip([each.strip() for each in cells(title)], [each.strip() for each in cells(row)], strict=True))

    assert shown == {
        "GPU": "0",
        "NAME": "NVIDIA L4",
        "VRAM": "6.0 of 22.5 GiB",
        "USE": "87 %",
        "POOLS": "small",
        "RECOVERY": "a GPU reset",
        "FLAGS": "memory_error, rows pending",
        "ECC 1B/2B": "7/1",
        "TEMP": "61 C",
        "POWER": "312 W",
        "NUMA": "1",
        "LINK": "gen3 x8 of gen5 x16 +2 NVLink",
        "UUID": SICK.uuid,
    }


@pytest.mark.parametrize(
    ("health", "title", "cell"),
    [
        (None, "TEMP", "-"),
        (DeviceHealth(recovery_action="none"), "RECOVERY", "none"),
        (DeviceHealth(), "RECOVERY", "-"),
        (DeviceHealth(has_ecc=False), "ECC 1B/2B", "off"),
        (DeviceHealth(has_ecc=True), "ECC 1B/2B", "-"),
        (DeviceHealth(has_ecc=True, ecc_single_volatile=0), "ECC 1B/2B", "0/?"),
        (DeviceHealth(pcie_gen=4), "LINK", "-"),
        (DeviceHealth(pcie_gen=4, pcie_width=16), "LINK", "gen4 x16"),
    ],
)
def test_what_a_device_does_not_say_is_a_dash(health: DeviceHealth | None, title: str, cell: str) -> None:
    columns = {column.title: column.cells for column in device_columns([device(health=health)], is_wide=True)}

    assert columns[title] == [cell]


@pytest.mark.parametrize("is_wide", [True, False])
def test_why_a_device_is_withheld_stands_below_it(is_wide: bool) -> None:
    lines = devices_table(SICK, device(index=1), is_wide=is_wide)

    assert lines[2] == "  `- withheld: GPU 0 reported XID 79"
    assert len(lines) == 4


def test_on_a_narrow_screen_columns_go_one_by_one_and_trouble_stays_longest() -> None:
    columns = device_columns([SICK], is_wide=True)
    kept = [
        [column.title for column, room in zip(columns, fit(columns, width), strict=True) if room]
        for width in range(200, 15, -1)
    ]
    gone = list(dict.fromkeys(title for titles in kept for title in kept[0] if title not in titles))

    assert kept[0] == [column.title for column in columns]
    assert gone == ["UUID", "LINK", "NUMA", "POWER", "TEMP", "ECC 1B/2B", "FLAGS", "RECOVERY", "POOLS", "NAME", "USE"]
    assert all(len(line) <= width for width in (20, 50, 90) for line in devices_table(SICK, width=width))


def test_stale_figures_and_divided_gpus_are_flagged() -> None:
    _, row = devices_table(device(stale=True, is_divided=True))

    assert "stale figures, divided" in row


# A rollout --------------------------------------------------------------------------------------------------------

UNDER_WAY = RolloutView(
    kind="canary",
    state="sharing",
    from_revision=3,
    to_revision=4,
    from_model="smollm2-135m",
    to_model="smollm2-360m",
    since_ms=61_000,
    percent=12.5,
    judged=True,
    canary=JudgementView(tasks=40, errors=1, late=0),
    cause="\x1b[2Jtwo first tokens were late",
)


def test_one_pool_shows_its_revision_its_role_and_what_is_under_way(peer: Peer, orchctl: Orchctl) -> None:
    peer.status = host(pool(revision=3, rollout=UNDER_WAY))

    lines = orchctl("status", "small").out.splitlines()

    assert "revision    3, current" in lines
    under = lines[lines.index("under way") + 1 :]
    assert under[0] == "  canary to revision 4, smollm2-360m: sharing with 12.5 % of the sessions, judged for 1 min 1 s"
    assert under[1].endswith("^[[2Jtwo first tokens were late")
    assert under[2] == "    canary  40 tasks, 1 failed, 0 late"


def test_a_rollout_fits_a_narrow_screen() -> None:
    page = pool_page(pool(revision=3, rollout=UNDER_WAY), screen(width=40))

    assert "under way" in page
    assert max(map(len, page)) <= 40


def test_a_pool_without_a_rollout_says_nothing_of_one() -> None:
    assert "under way" not in pool_page(pool(), screen())
