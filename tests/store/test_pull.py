"""`orchctl models pull` against a hub: whole, once, resumed, and never half."""

import hashlib
import os
import signal

import pytest

from tests.store.conftest import MakeHub, Orchctl, a_gguf
from tests.support.hub import COMMIT, REPO
from tests.support.waiting import wait_until

MIB = 2**20


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.orch("ORCH-3037", "ORCH-3042")
@pytest.mark.parametrize("lfs", [True, False], ids=["large file storage", "plain git"])
def test_a_pulled_model_has_a_name_a_digest_and_its_bytes(orchctl: Orchctl, make_hub: MakeHub, *, lfs: bool) -> None:
    hub = make_hub(lfs=lfs)

    ran = orchctl("pull", f"repo:{REPO}")

    [entry] = orchctl.catalogue.models
    data = hub.files["tiny.gguf"]
    assert ran.returncode == 0, ran.stderr
    assert (entry.name, entry.digest, entry.size) == ("tiny", digest_of(data), len(data))
    assert (entry.origin.repo, entry.origin.revision) == (REPO, COMMIT)
    assert (orchctl.store / entry.place).read_bytes() == data
    assert orchctl.files == [entry.place]
    assert {path.partition("?")[0] for _, path in hub.requests} <= {
        f"/api/models/{REPO}/revision/main",
        f"/api/models/{REPO}/tree/{COMMIT}",
        f"/{REPO}/resolve/{COMMIT}/tiny.gguf",
        "/cdn/tiny.gguf",
    }


def test_a_second_pull_fetches_nothing(orchctl: Orchctl, make_hub: MakeHub) -> None:
    hub = make_hub()
    orchctl("pull", f"hf:{REPO}")
    sent = hub.bytes_sent

    ran = orchctl("pull", f"hf:{REPO}")

    assert (ran.returncode, hub.bytes_sent) == (0, sent)
    assert "tiny is there already" in ran.stdout


def test_all_shards_of_a_set_make_one_model(orchctl: Orchctl, make_hub: MakeHub) -> None:
    shards = {f"q4/big-{index:05d}-of-00003.gguf": a_gguf(50_000, seed=index) for index in (1, 2, 3)}
    make_hub({**shards, "README.md": b"# big"})

    ran = orchctl("pull", f"repo:{REPO}")

    [entry] = orchctl.catalogue.models
    lines = "".join(f"{hashlib.sha256(data).hexdigest()}  {path[3:]}\n" for path, data in sorted(shards.items()))
    assert ran.returncode == 0, ran.stderr
    assert (entry.name, len(entry.files)) == ("big", 3)
    assert entry.digest == digest_of(lines.encode())
    assert entry.place.endswith("/big-00001-of-00003.gguf")


def test_a_folder_of_safetensors_comes_without_its_pickles(orchctl: Orchctl, make_hub: MakeHub) -> None:
    weights = (2).to_bytes(8, "little") + b"{}" + b"\0" * 64
    make_hub(
        {"model.safetensors": weights, "config.json": b"{}", "pytorch_model.bin": b"\x80\x04", ".gitattributes": b""}
    )

    ran = orchctl("pull", f"repo:{REPO}")

    [entry] = orchctl.catalogue.models
    assert ran.returncode == 0, ran.stderr
    assert [file.path for file in entry.files] == ["model.safetensors", "config.json"]
    assert entry.place == entry.folder


def test_a_pull_that_is_killed_goes_on_where_it_was(orchctl: Orchctl, make_hub: MakeHub) -> None:
    hub = make_hub({"tiny.gguf": a_gguf(8 * MIB)})
    hub.trouble.stall_after = 6 * MIB
    process = orchctl.start("pull", f"repo:{REPO}")
    wait_until(hub.stalled.is_set, within_s=30, what="the middle of the download")
    wait_until(lambda: max(_sizes(orchctl)) >= 5 * MIB, within_s=10, what="bytes on disk")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = max(_sizes(orchctl))
    assert not orchctl.catalogue.models
    hub.trouble.stall_after = None

    ran = orchctl("pull", f"repo:{REPO}")

    assert ran.returncode == 0, ran.stderr
    assert hub.resumed.is_set()
    assert hub.bytes_sent <= 8 * MIB + (6 * MIB - kept) + MIB
    assert orchctl.catalogue.models[0].digest == digest_of(hub.files["tiny.gguf"])


def _sizes(orchctl: Orchctl) -> list[int]:
    return [path.stat().st_size for path in orchctl.store.rglob("incoming/*") if path.is_file()]


def test_two_pulls_at_once_fetch_once_and_the_second_shows_the_first(orchctl: Orchctl, make_hub: MakeHub) -> None:
    hub = make_hub({"tiny.gguf": a_gguf(4 * MIB)})
    hub.trouble.stall_after = 2 * MIB
    first = orchctl.start("pull", f"repo:{REPO}")
    wait_until(hub.stalled.is_set, within_s=30, what="the first in the middle")
    second = orchctl.start("pull", f"repo:{REPO}")
    assert second.stderr is not None
    words = second.stderr.readline()
    hub.trouble.stall_after = None

    outs = [process.communicate(timeout=60) for process in (first, second)]

    assert [first.returncode, second.returncode] == [0, 0], outs
    assert "another orchctl fetches it, waiting" in words
    assert words.rstrip().endswith("of 4.0 MiB")
    assert hub.bytes_sent == 4 * MIB
    assert [out.partition(": ")[0] for out, _ in outs] == ["tiny is in the store", "tiny is there already"]


@pytest.mark.parametrize("status", [[(503, {})], [(429, {"Retry-After": "1"})]], ids=["503", "429"])
def test_a_busy_hub_is_asked_again(
    orchctl: Orchctl, make_hub: MakeHub, status: list[tuple[int, dict[str, str]]]
) -> None:
    hub = make_hub()
    hub.trouble.status = list(status)

    ran = orchctl("pull", f"repo:{REPO}")

    assert ran.returncode == 0, ran.stderr


def test_a_line_that_breaks_in_the_middle_is_taken_up_again(orchctl: Orchctl, make_hub: MakeHub) -> None:
    hub = make_hub({"tiny.gguf": a_gguf(4 * MIB)})
    hub.trouble.cut_after = 2 * MIB

    ran = orchctl("pull", f"repo:{REPO}")

    assert ran.returncode == 0, ran.stderr
    assert hub.bytes_sent <= 6 * MIB
    assert orchctl.catalogue.models[0].digest == digest_of(hub.files["tiny.gguf"])


@pytest.mark.parametrize("keeps_etag", [True, False], ids=["the same file", "another file"])
def test_a_url_is_resumed_only_while_it_is_the_same_file(
    orchctl: Orchctl, make_hub: MakeHub, *, keeps_etag: bool
) -> None:
    hub = make_hub({"tiny.gguf": a_gguf(8 * MIB)})
    hub.trouble.stall_after = 6 * MIB
    process = orchctl.start("pull", f"{hub.endpoint}/cdn/tiny.gguf?signature=secret")
    wait_until(hub.stalled.is_set, within_s=30, what="the middle of the download")
    wait_until(lambda: max(_sizes(orchctl)) >= 5 * MIB, within_s=10, what="bytes on disk")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    hub.trouble.stall_after = None
    if not keeps_etag:
        hub.files["tiny.gguf"] = a_gguf(8 * MIB, seed=2)

    ran = orchctl("pull", f"{hub.endpoint}/cdn/tiny.gguf?signature=secret")

    assert ran.returncode == 0, ran.stderr
    assert hub.resumed.is_set() is keeps_etag
    assert orchctl.catalogue.models[0].digest == digest_of(hub.files["tiny.gguf"])
    assert "secret" not in (orchctl.store / "catalogue.json").read_text() + ran.stdout + ran.stderr


def test_a_server_without_ranges_sends_all_again(orchctl: Orchctl, make_hub: MakeHub) -> None:
    hub = make_hub({"tiny.gguf": a_gguf(4 * MIB)})
    hub.trouble.cut_after, hub.trouble.ignores_range = 2 * MIB, True

    ran = orchctl("pull", f"repo:{REPO}")

    assert ran.returncode == 0, ran.stderr
    assert orchctl.catalogue.models[0].digest == digest_of(hub.files["tiny.gguf"])


def test_a_token_goes_to_the_hub_and_into_no_message(orchctl: Orchctl, make_hub: MakeHub) -> None:
    make_hub(token="hf_geheim")
    without = orchctl("pull", f"repo:{REPO}")
    orchctl.environ["HF_TOKEN"] = "hf_geheim"

    ran = orchctl("pull", f"repo:{REPO}")

    assert without.returncode == 77
    assert "secret words" not in without.stderr
    assert (ran.returncode, "hf_geheim" in ran.stdout + ran.stderr) == (0, False)
    assert "hf_geheim" not in (orchctl.store / "catalogue.json").read_text()


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_token_file_must_be_private(orchctl: Orchctl, make_hub: MakeHub, mode: int) -> None:
    path = orchctl.folder / "token"
    path.write_text("hf_geheim\n")
    path.chmod(mode)
    orchctl.config["hub_more"] = {"token_file": str(path)}
    make_hub(token="hf_geheim")
    del orchctl.config["hub_more"]

    ran = orchctl("pull", f"repo:{REPO}")

    assert ran.returncode == (0 if mode == 0o600 else 77)


def test_root_and_the_daemon_both_read_what_was_pulled(orchctl: Orchctl, make_hub: MakeHub) -> None:
    make_hub()
    mask = os.umask(0o077)
    try:
        orchctl("pull", f"repo:{REPO}")
    finally:
        os.umask(mask)

    [entry] = orchctl.catalogue.models
    path = orchctl.store / entry.place
    modes = [
        each.stat().st_mode & 0o777 for each in (path, path.parent, orchctl.store, orchctl.store / "catalogue.json")
    ]
    assert modes == [0o644, 0o755, 0o755, 0o644]


def test_who_waits_for_a_pull_that_is_killed_goes_on_with_it(orchctl: Orchctl, make_hub: MakeHub) -> None:
    hub = make_hub({"tiny.gguf": a_gguf(8 * MIB)})
    hub.trouble.stall_after = 6 * MIB
    first = orchctl.start("pull", f"repo:{REPO}")
    wait_until(hub.stalled.is_set, within_s=30, what="the first in the middle")
    wait_until(lambda: max(_sizes(orchctl)) >= 5 * MIB, within_s=10, what="bytes on disk")
    second = orchctl.start("pull", f"repo:{REPO}")
    assert second.stderr is not None
    words = second.stderr.readline()
    hub.trouble.stall_after = None
    first.send_signal(signal.SIGKILL)
    first.communicate()

    _, err = second.communicate(timeout=60)

    assert second.returncode == 0, err
    assert "another orchctl fetches it, waiting" in words
    assert hub.bytes_sent < 16 * MIB
    assert orchctl.catalogue.models[0].digest == digest_of(hub.files["tiny.gguf"])


@pytest.mark.orch("ORCH-3042")
@pytest.mark.parametrize("has_digest", [False, True])
def test_a_url_without_a_digest_is_believed_once_and_held_to_it_afterwards(
    orchctl: Orchctl, make_hub: MakeHub, *, has_digest: bool
) -> None:
    hub = make_hub()
    line = ("pull", f"{hub.endpoint}/cdn/tiny.gguf")
    first = orchctl(*line, *(("--sha256", digest_of(hub.files["tiny.gguf"])) if has_digest else ()))
    hub.files["tiny.gguf"] = a_gguf(seed=7)

    [entry] = orchctl.catalogue.models
    again = orchctl(*line)
    (orchctl.store / entry.place).write_bytes(hub.files["tiny.gguf"])
    checked = orchctl("verify")

    assert ("it is believed as it came" in first.stderr) is not has_digest
    assert entry.digest in first.stdout
    assert "tiny is there already" in again.stdout
    assert orchctl.catalogue.models == (entry,)
    assert checked.returncode == 1


def test_a_line_that_breaks_under_a_url_is_taken_up_where_it_broke(orchctl: Orchctl, make_hub: MakeHub) -> None:
    hub = make_hub({"tiny.gguf": a_gguf(4 * MIB)})
    hub.trouble.cut_after = 2 * MIB

    ran = orchctl("pull", f"{hub.endpoint}/cdn/tiny.gguf")

    assert ran.returncode == 0, ran.stderr
    assert hub.resumed.is_set()
    assert orchctl.catalogue.models[0].digest == digest_of(hub.files["tiny.gguf"])
