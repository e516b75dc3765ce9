"""Hubs and files that mean no good: nothing of them is kept, and nothing outside the store is touched (S20, S28)."""

import json
import socket
from pathlib import Path

import pytest

from supervisor.store.faults import StoreError
from supervisor.store.reach import Reach, is_public, target_of
from tests.store.conftest import MakeHub, Orchctl, a_gguf
from tests.support.hub import REPO
from tests.support.small_disks import a_tmpfs

MIB = 2**20
NAMES = [
    "../../escape.gguf",
    "/etc/cron.d/escape.gguf",
    "a/../../../escape.gguf",
    ".hidden.gguf",
    "-rf.gguf",
    "a\nb.gguf",
    "a\x1b[2Jb.gguf",
    "a\\..\\b.gguf",
    "x" * 10_000 + ".gguf",
    "/".join(["deep"] * 20) + "/x.gguf",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_name_that_leads_elsewhere_is_refused(orchctl: Orchctl, make_hub: MakeHub, name: str) -> None:
    hub = make_hub()
    hub.trouble.listed_paths = {"tiny.gguf": name}
    before = {path for path in orchctl.folder.rglob("*") if "models" not in path.parts}

    ran = orchctl("pull", f"repo:{REPO}", "--name", "tiny")

    after = {path for path in orchctl.folder.rglob("*") if "models" not in path.parts}
    assert (ran.returncode, hub.bytes_sent) == (1, 0)
    assert "is not a name that a model may use" in ran.stderr
    assert ran.stderr.count("\n") <= 2
    assert "\x1b" not in ran.stderr
    assert len(ran.stderr) < 1000
    assert orchctl.files == []
    assert {path.name for path in after - before} <= {"pools.yaml"}


def test_a_wrong_digest_leaves_nothing(orchctl: Orchctl, make_hub: MakeHub) -> None:
    hub = make_hub(lfs=False)

    ran = orchctl("pull", f"{hub.endpoint}/cdn/tiny.gguf", "--sha256", "ab" * 32)

    assert ran.returncode == 1
    assert "not the one that was asked for" in ran.stderr
    assert orchctl.files == []


def test_content_that_differs_from_the_listing_leaves_nothing(orchctl: Orchctl, make_hub: MakeHub) -> None:
    hub = make_hub()
    hub.trouble.listed_content = a_gguf(seed=9)

    ran = orchctl("pull", f"repo:{REPO}")

    assert ran.returncode == 1
    assert "is not what the hub lists: its digest differs" in ran.stderr
    assert orchctl.files == []


def test_a_page_under_the_name_of_a_model_is_no_model(orchctl: Orchctl, make_hub: MakeHub) -> None:
    make_hub({"tiny.gguf": b"<html>please log in</html>" * 100})

    ran = orchctl("pull", f"repo:{REPO}")

    assert ran.returncode == 1
    assert "is not a model file of its kind" in ran.stderr
    assert orchctl.files == []


@pytest.mark.parametrize("oversend", [1, MIB])
def test_a_body_above_what_was_announced_is_cut_off(orchctl: Orchctl, make_hub: MakeHub, oversend: int) -> None:
    hub = make_hub()
    hub.trouble.oversend = oversend

    ran = orchctl("pull", f"repo:{REPO}")

    assert ran.returncode == 1
    assert "sends more than" in ran.stderr
    assert not orchctl.catalogue.models


def test_a_model_above_the_bound_is_not_begun(orchctl: Orchctl, make_hub: MakeHub) -> None:
    orchctl.config["hub_more"] = {"model_bytes_max": MIB}
    hub = make_hub({"tiny.gguf": a_gguf(2 * MIB)})
    del orchctl.config["hub_more"]

    by_listing = orchctl("pull", f"repo:{REPO}")
    by_url = orchctl("pull", f"{hub.endpoint}/cdn/tiny.gguf")

    assert (by_listing.returncode, by_url.returncode) == (1, 1)
    assert "above `hub.model_bytes_max`" in by_listing.stderr
    assert "above `hub.model_bytes_max`" in by_url.stderr
    assert [path for path in orchctl.store.rglob("*") if path.is_file() and path.stat().st_size > 1000] == []


@pytest.mark.parametrize(
    "place",
    [
        "http://169.254.169.254/latest/meta-data/",
        "https://169.254.169.254/",
        "http://127.0.0.1:1/x",
        "file:///etc/shadow",
    ],
)
def test_a_redirect_to_an_inner_address_is_refused(orchctl: Orchctl, make_hub: MakeHub, place: str) -> None:
    hub = make_hub()
    hub.trouble.redirect = place

    ran = orchctl("pull", f"repo:{REPO}")

    assert ran.returncode in {75, 77}
    assert hub.bytes_sent == 0
    assert orchctl.files in ([], [path for path in orchctl.files if path.startswith("partial/")])
    assert not orchctl.catalogue.models


def test_a_redirect_to_another_port_of_the_hub_is_not_followed(orchctl: Orchctl, make_hub: MakeHub) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bystander:
        bystander.settimeout(0.05)
        hub = make_hub()
        hub.trouble.redirect = f"http://127.0.0.1:{bystander.getsockname()[1]}/x"

        ran = orchctl("pull", f"repo:{REPO}")

        assert ran.returncode == 77
        with pytest.raises(TimeoutError):
            bystander.accept()


def test_a_listed_cdn_gets_the_request_and_not_the_token(orchctl: Orchctl, make_hub: MakeHub) -> None:
    cdn = make_hub()
    orchctl.config["hub_more"] = {"hosts": [f"127.0.0.1:{cdn.port}"]}
    hub = make_hub(token="hf_geheim")
    del orchctl.config["hub_more"]
    hub.trouble.redirect = f"{cdn.endpoint}/cdn/tiny.gguf"
    orchctl.environ["HF_TOKEN"] = "hf_geheim"

    ran = orchctl("pull", f"repo:{REPO}")

    assert ran.returncode == 0, ran.stderr
    assert cdn.tokens_at_cdn == [None]


@pytest.mark.parametrize(
    "source",
    ["file:///etc/shadow", "../../etc/passwd", "http://169.254.169.254/", "https://user:pw@example.org/x.gguf", "-m",
     "repo:../x", "repo:a/b/c", "repo:a", "hf:", "$(id)", "https:///x", "repo:" + "a" * 10_000 + "/b", "https://h/\n.gguf"],
)  # fmt: skip
def test_a_source_that_cannot_be_meant_is_refused(orchctl: Orchctl, make_hub: MakeHub, source: str) -> None:
    hub = make_hub()

    ran = orchctl("pull", "--", source) if source.startswith("-") else orchctl("pull", source)

    assert ran.returncode in {2, 77}
    assert ran.stderr.startswith("orchctl: ")
    assert ran.stderr.count("\n") == 1
    assert len(ran.stderr) < 1000
    assert hub.requests == []


@pytest.mark.parametrize("name", ["../x", "A", "", "x" * 129, "-x", "a/b", "a\n"])
def test_a_name_outside_the_grammar_is_refused(orchctl: Orchctl, make_hub: MakeHub, name: str) -> None:
    hub = make_hub()

    ran = orchctl("pull", f"repo:{REPO}", f"--name={name}")

    assert (ran.returncode, hub.requests, orchctl.files) == (2, [], [])


def test_a_full_disk_stops_the_pull_before_it_begins(orchctl: Orchctl, make_hub: MakeHub) -> None:
    hub = make_hub({"tiny.gguf": a_gguf(4 * MIB)})
    with a_tmpfs(orchctl.store, options="size=16m"):
        ran = orchctl("pull", f"repo:{REPO}")

        assert ran.returncode == 1
        assert "are needed on the disk" in ran.stderr
        assert (hub.bytes_sent, orchctl.files) == (0, [])


def test_a_url_that_announces_more_than_the_disk_has_is_refused_at_once(orchctl: Orchctl, make_hub: MakeHub) -> None:
    hub = make_hub({"tiny.gguf": a_gguf(4 * MIB)})
    with a_tmpfs(orchctl.store, options="size=2m"):
        ran = orchctl("pull", f"{hub.endpoint}/cdn/tiny.gguf")

        assert ran.returncode == 1
        assert "are needed on the disk" in ran.stderr
        assert not orchctl.catalogue.models
        assert [path.stat().st_size for path in orchctl.store.rglob("url")] == [0]


@pytest.mark.parametrize("status", [500, 429])
def test_a_hub_that_cannot_answer_now_is_exit_code_75(orchctl: Orchctl, make_hub: MakeHub, status: int) -> None:
    hub = make_hub()
    hub.trouble.api_status = status

    ran = orchctl("pull", f"repo:{REPO}")

    assert ran.returncode == 75
    assert ran.stderr == f"orchctl: 127.0.0.1 answers {status}; try the same again in 7 s\n"


def test_a_hub_that_asks_for_an_hour_is_not_waited_for(orchctl: Orchctl, make_hub: MakeHub) -> None:
    hub = make_hub()
    hub.trouble.status = [(429, {"Retry-After": "3600"})]

    ran = orchctl("pull", f"repo:{REPO}")

    assert ran.returncode == 75
    assert "try the same again in 3600 s" in ran.stderr


@pytest.mark.parametrize(
    "line", [["repo:acme/other"], [f"repo:{REPO}", "--revision", "gone"]], ids=["repo", "revision"]
)
def test_what_the_hub_does_not_have_is_said(orchctl: Orchctl, make_hub: MakeHub, line: list[str]) -> None:
    make_hub()

    ran = orchctl("pull", *line)

    assert ran.returncode == 1
    assert "127.0.0.1 has no such" in ran.stderr


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("127.0.0.1", False), ("10.1.2.3", False), ("0.0.0.0", False),
        ("169.254.169.254", False), ("::1", False), ("fe80::1%eth0", False), ("fd00::1", False),
        ("::ffff:169.254.169.254", False), ("64:ff9b:1::a9fe:a9fe", False),
        ("64:ff9b::a9fe:a9fe", False), ("2002:a9fe:a9fe::1", False), ("100.64.0.1", False), ("224.0.0.1", False),
    ],
)  # fmt: skip
def test_which_addresses_are_public(address: str, expected: bool) -> None:
    assert is_public(address) is expected


@pytest.mark.parametrize(
    ("reach", "url", "is_let"),
    [
        (Reach(), "https://127.0.0.1/x", False),
        (Reach(hosts=("*.0.0.1",)), "https://127.0.0.1/x", False),
        (Reach(hosts=("127.0.0.1",)), "https://127.0.0.1/x", True),
        (Reach(hosts=("127.0.0.1",)), "https://127.0.0.1:8443/x", False),
        (Reach(hosts=("127.0.0.1",)), "http://127.0.0.1:443/x", False),
        (Reach("http://127.0.0.1:80"), "http://127.0.0.1/x", True),
        (Reach("https://127.0.0.1"), "http://127.0.0.1:443/x", False),
        (Reach(), "https://8.8.8.8/x", False),
        (Reach("http://127.0.0.1:80"), "http://8.8.8.8/x", False),
    ],
)
def test_only_what_the_operator_named_may_be_private(reach: Reach, url: str, is_let: bool) -> None:
    target = target_of(url)

    if is_let:
        assert reach.addresses(target) == ("127.0.0.1",)
    else:
        with pytest.raises(StoreError):
            reach.addresses(target)


@pytest.mark.parametrize("change", ["link", "writable", "place", "twice", "garbage", "version"])
def test_a_catalogue_that_cannot_be_trusted_is_not_used(orchctl: Orchctl, make_hub: MakeHub, change: str) -> None:
    make_hub()
    orchctl("pull", f"repo:{REPO}")
    path = orchctl.store / "catalogue.json"
    page = json.loads(path.read_text())
    _spoil(path, page, change)

    ran = orchctl("list")

    assert ran.returncode == 1
    assert str(path) in ran.stderr
    assert ran.stderr.count("\n") == 1


def _spoil(path: Path, page: dict[str, list[dict[str, object]]], change: str) -> None:
    if change == "link":
        path.rename(path.with_name("elsewhere"))
        path.symlink_to("elsewhere")
        return
    if change == "place":
        page["models"][0]["place"] = "../../etc/passwd"
    if change == "twice":
        page["models"].append(page["models"][0])
    if change == "version":
        page["version"] = 2  # type: ignore[assignment]
    path.write_text("{" if change == "garbage" else json.dumps(page))
    if change == "writable":
        path.chmod(0o666)
