"""Memory of the GPUs, from the outside: who must wait for it, who starts by itself, what is learned over a restart."""

from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import MakeDaemon
from tests.support.daemon import Daemon
from tests.support.fake_engine_script import Script
from tests.support.fake_nvml import FakeGpu, FakeNvml
from tests.support.pools import a_fake_pool, a_model
from tests.support.waiting import wait_until

GPU = "GPU-11111111-2222-3333-4444-555555555555"
TOTAL_MIB = 24_576


def a_gpu(used_mib: int, **given: Any) -> FakeGpu:
    return FakeGpu(GPU, vram_total_mib=TOTAL_MIB, vram_used_mib=used_mib, **given)


def wait_cause(daemon: Daemon, pool_id: str, part: str) -> dict[str, Any]:
    """Until a pool says that as its cause; its view then."""

    def look() -> dict[str, Any] | None:
        pool = daemon.pool(pool_id)
        return pool if part in (pool["cause"] or "") else None

    return wait_until(look, within_s=20, what=f"{pool_id} saying {part!r}")


@pytest.mark.orch("ORCH-3003")
def test_a_pool_without_room_is_not_spawned_and_starts_by_itself_once_there_is(
    make_daemon: MakeDaemon, nvml: FakeNvml
) -> None:
    nvml.set(a_gpu(24_000, processes=((1, 23_000),)))
    daemon = make_daemon(a_fake_pool(), simulate=None, env=nvml.env()).start()

    short = wait_cause(daemon, "tiny", "576 MiB free")
    assert (short["ready"], short["pid"]) == (False, None)
    assert "a reserve of 512" in short["cause"]
    assert "holds 23000 MiB" in short["cause"]

    nvml.set(a_gpu(1_000))
    daemon.wait_ready(within_s=15)


@pytest.mark.orch("ORCH-3003")
def test_pools_on_simulated_gpus_compete_for_their_memory(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    pools = [a_fake_pool(f"p{number}") for number in range(2)]
    daemon = make_daemon(*pools, simulate="1x8GiB", settings={"models": a_model(tmp_path)}).start_ready()

    device = daemon.status()["devices"][0]
    plan = daemon.ask_control("GET", "/v1/plan").json

    needs = [share["need_mib"] for pool in plan["pools"] for share in pool["shares"]]
    assert len(needs) == 2
    assert [pool["verdict"] for pool in plan["pools"]] == ["runs", "runs"]
    wait_until(lambda: daemon.status()["devices"][0]["vram_used_mib"] == sum(needs), what="what both hold", within_s=10)
    assert device["vram_total_mib"] == 8_192
    assert sum(daemon.series("vram_need_bytes").values()) == sum(needs) * 2**20
    assert sum(daemon.series("vram_reserve_bytes").values()) == 2 * 512 * 2**20


@pytest.mark.orch("ORCH-3012")
def test_masks_that_overlap_beyond_the_gpu_are_a_config_error_that_names_both(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    model = a_model(tmp_path, "wide", layers=8, embd=512, ff=1536)
    big: dict[str, Any] = {"ctx": 131_072, "slots": 1, "model": "wide"}  # 2,048 MiB of KV each
    pools = [a_fake_pool("one", **big), a_fake_pool("other", **big)]
    daemon = make_daemon(*pools, simulate="1x4GiB", settings={"models": model}).start()

    refused = wait_cause(daemon, "other", "do not fit together on GPU 0")

    assert "one (" in refused["cause"]
    assert refused["state"] == "broken"


@pytest.mark.fault("F19")
@pytest.mark.orch("ORCH-3039")
def test_an_oom_raises_the_need_and_a_restart_does_not_forget_it(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    script = Script(exit_rc=1, exit_text="ggml_cuda: cudaMalloc failed: out of memory")
    daemon = make_daemon(a_fake_pool(script=script), settings={"models": a_model(tmp_path)}).start()

    def learned() -> dict[str, Any] | None:
        shares: list[dict[str, Any]] = daemon.ask_control("GET", "/v1/plan").json["pools"][0]["shares"]
        return next((share for share in shares if share["source"] == "learned"), None)

    before = wait_until(learned, within_s=20, what="a learned need")
    assert "ran out of memory" in before["why"]
    estimate = sum(before[part] for part in ("weights_mib", "kv_mib", "buffers_mib", "overhead_mib"))
    assert before["need_mib"] >= estimate * 1.1

    daemon.stop()
    daemon.start()
    assert wait_until(learned, within_s=20, what="the need after a restart")["need_mib"] >= before["need_mib"]
