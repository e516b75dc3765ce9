"""`orchctl plan`: what fits, as the daemon says it and out of a config file."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchctl.plan_text import plan_page
from orchctl.terminal import ASCII, Screen
from supervisor.wire.plan import MemoryPlan, PlanDevice, PlanPool, PlanShare
from tests.cli.conftest import Orchctl
from tests.support.pools import a_fake_pool, a_model


def a_screen(width: int) -> Screen:
    return Screen(is_terminal=True, has_colour=False, has_cursor=False, width=width, height=40, signs=ASCII)


def a_share(**given: Any) -> PlanShare:
    values: dict[str, Any] = {
        "device": "GPU-0", "need_mib": 9_000, "reserve_mib": 900, "free_before_mib": 24_000, "free_after_mib": 15_000,
        "source": "learned", "why": "raised after it ran out of memory", "weights_mib": 5_000, "kv_mib": 3_000,
        "buffers_mib": 550, "overhead_mib": 450,
    }  # fmt: skip
    return PlanShare(**{**values, **given})


def a_plan(*pools: PlanPool) -> MemoryPlan:
    gpu = PlanDevice(uuid="GPU-0", index=0, name="NVIDIA H200", total_mib=24_576, free_mib=24_000, claimed_mib=0)
    return MemoryPlan(offline=False, simulated=None, devices=[gpu], pools=list(pools))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A pool that fits, and two that exceed the GPU together."""
    big: dict[str, Any] = {"ctx": 131_072, "model": "tiny"}
    pools = [a_fake_pool("small"), a_fake_pool("one", **big), a_fake_pool("other", **big)]
    path = tmp_path / "pools.yaml"
    models = a_model(tmp_path, layers=8, embd=512, ff=1536)
    path.write_text(yaml.safe_dump({"pools": pools, "models": models}))
    return path


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
def test_no_line_of_the_tables_is_wider_than_the_screen(width: int) -> None:
    plan = a_plan(
        PlanPool(pool_id="llama3-8b-q4-gpu0", state="ready", verdict="fits", shares=[a_share()], load_ms=4_200)
    )

    lines = plan_page(plan, a_screen(width))

    tables = lines[: lines.index("", lines.index("") + 1)]
    assert max(map(len, tables)) <= width


def test_a_wide_screen_shows_need_reserve_and_where_the_need_is_from() -> None:
    plan = a_plan(PlanPool(pool_id="p", state="ready", verdict="fits", shares=[a_share()], load_ms=4_200))

    text = "\n".join(plan_page(plan, a_screen(200)))

    for part in ("9000 MiB", "900 MiB", "24000 MiB", "learned", "raised after it ran out of memory"):
        assert part in text


def test_a_pool_that_would_wait_says_why() -> None:
    plan = a_plan(PlanPool(pool_id="p", state="backoff", verdict="waits", cause="GPU-0 has 1 MiB left of 9", shares=[]))

    assert "p: GPU-0 has 1 MiB left of 9" in plan_page(plan, a_screen(80))


@pytest.mark.orch("ORCH-3003")
def test_a_config_is_planned_without_a_daemon(orchctl: Orchctl, config: Path) -> None:
    ran = orchctl("plan", "--config", str(config), "--simulate-gpus", "1x24GiB", "-o", "json")

    plan = json.loads(ran.out)
    assert ran.code == 0
    assert plan["offline"]
    assert [(pool["pool_id"], pool["verdict"]) for pool in plan["pools"]] == [
        ("small", "fits"), ("one", "fits"), ("other", "fits"),
    ]  # fmt: skip


@pytest.mark.orch("ORCH-3012")
def test_pools_that_exceed_the_gpus_together_are_a_config_error(orchctl: Orchctl, config: Path) -> None:
    ran = orchctl("plan", "--config", str(config), "--simulate-gpus", "1x4GiB")

    assert ran.code == 78
    assert "do not fit together on GPU 0" in ran.out


def test_a_config_that_cannot_be_read_is_refused(orchctl: Orchctl, tmp_path: Path) -> None:
    ran = orchctl("plan", "--config", str(tmp_path / "none.yaml"), "--simulate-gpus", "1x4GiB")

    assert (ran.code, ran.out) == (78, "")


@pytest.mark.parametrize("text", ["4GiB", "0x4GiB", "1x4GB", "99x4GiB"])
def test_gpus_that_nobody_can_have_are_refused(orchctl: Orchctl, config: Path, text: str) -> None:
    assert orchctl("plan", "--config", str(config), "--simulate-gpus", text).code == 78


def test_gpus_are_pretended_for_a_config_only(orchctl: Orchctl) -> None:
    assert orchctl("plan", "--simulate-gpus", "1x4GiB").code == 2


@pytest.mark.orch("ORCH-3012")
def test_validate_judges_a_config_for_named_gpus(orchctl: Orchctl, config: Path) -> None:
    roomy, tight = (orchctl("validate", str(config), "--devices", text) for text in ("1x24GiB", "1x4GiB"))

    assert roomy.code == 0
    assert tight.code == 78
    assert "other: other (" in tight.err
    assert "do not fit together on GPU 0" in tight.err
