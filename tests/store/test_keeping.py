"""What stays in the store and what goes: quota, last use, and what is needed (ORCH-3042)."""

import contextlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from supervisor.config.catalogue import Catalogue, Entry, Origin, StoredFile
from supervisor.store.beneath import open_beneath
from supervisor.store.eviction import plan_eviction
from supervisor.store.holding import hold
from supervisor.store.needed import digests_open
from supervisor.store.parts import open_model, shard_names
from tests.store.conftest import MakeHub, Orchctl, a_gguf
from tests.support.hub import REPO

MIB = 2**20


def add(orchctl: Orchctl, name: str, *, used_at: float = 0.0, size: int = MIB) -> Path:
    """A model of one file, last used at a moment; gives where it lies."""
    path = orchctl.folder / f"{name}.gguf"
    path.write_bytes(a_gguf(size, seed=sum(name.encode())))
    ran = orchctl("add", str(path), "--name", name)
    assert ran.returncode == 0, ran.stderr
    entry = orchctl.catalogue.find(name)
    assert entry is not None
    if used_at:
        stamp = orchctl.store / "used" / entry.folder
        stamp.touch()
        os.utime(stamp, (used_at, used_at))
    return orchctl.store / entry.place


def names(orchctl: Orchctl) -> list[str]:
    return [entry.name for entry in orchctl.catalogue.models]


@pytest.fixture
def three(orchctl: Orchctl) -> Orchctl:
    """Models old, new and needed; the config's pool names the last, which was used longest ago of all."""
    later = datetime.now(UTC).timestamp() + 1000
    add(orchctl, "needed")
    add(orchctl, "old", used_at=later + 1)
    add(orchctl, "new", used_at=later + 2)
    return orchctl


@pytest.mark.orch("ORCH-3042")
def test_what_was_used_longest_ago_goes_first_and_never_what_a_pool_names(three: Orchctl) -> None:
    shown = three("prune", "--to", "2MiB", "--dry-run", "-o", "json")
    asked = three("prune", "--to", "2MiB")
    done = three("prune", "--to", "2MiB", "--yes")

    assert [one["names"] for one in json.loads(shown.stdout)["removed"]] == [["old"]]
    assert asked.returncode == 2
    assert "would remove old (1.0 MiB)" in asked.stderr
    assert (done.returncode, names(three)) == (0, ["needed", "new"])
    assert len(three.files) == 2 + 1  # and the stamp of the last use of `new`


def test_what_cannot_go_is_said(three: Orchctl) -> None:
    ran = three("prune", "--to", "0", "--yes")

    assert ran.returncode == 1
    assert names(three) == ["needed"]
    assert "1.0 MiB are in use, above 0 B" in ran.stderr


@pytest.mark.parametrize("how", ["open", "held"])
def test_a_file_in_the_hands_of_a_process_stays(three: Orchctl, how: str) -> None:
    old = three.catalogue.find("old")
    assert old is not None
    path = three.store / old.place
    with contextlib.ExitStack() as stack:
        if how == "open":
            stack.enter_context(path.open("rb"))
        else:
            (three.folder / "twin").hardlink_to(path)  # no process is seen with the file under its own name
            fd = os.open(three.folder / "twin", os.O_RDONLY)
            stack.callback(os.close, fd)
            hold(fd)
        ran = three("prune", "--to", "0", "--yes")
        refused = three("remove", "old", "--yes")

    assert (ran.returncode, refused.returncode) == (1, 1)
    assert names(three) == ["needed", "old"]


def test_a_mapped_model_is_in_hands_whatever_else_the_process_has_mapped(three: Orchctl) -> None:
    old = three.catalogue.find("old")
    assert old is not None
    odd = os.fsdecode(os.fsencode(three.folder) + b"/odd-\xff\xfe")
    Path(odd).write_bytes(b"x" * 4096)
    code = "import mmap, sys; k = [mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) for f in map(open, sys.argv[1:])]; "
    line = [sys.executable, "-c", code + "print(1, flush=True); sys.stdin.read()", odd, str(three.store / old.place)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        open_now = digests_open(three.catalogue, three.store)
        process.communicate()

    assert open_now == {old.digest}


def test_a_pull_makes_room_within_the_quota(three: Orchctl, make_hub: MakeHub) -> None:
    three.config["store"] = {"dir": str(three.store), "max_bytes": 3 * MIB}
    make_hub({"fresh.gguf": a_gguf(MIB)})

    ran = three("pull", f"repo:{REPO}")

    assert ran.returncode == 0, ran.stderr
    assert "removed old (1.0 MiB) to stay within the quota" in ran.stderr
    assert names(three) == ["fresh", "needed", "new"]


def test_a_model_that_can_never_fit_evicts_nothing(three: Orchctl, make_hub: MakeHub) -> None:
    three.config["store"] = {"dir": str(three.store), "max_bytes": 3 * MIB}
    hub = make_hub({"huge.gguf": a_gguf(2 * MIB + 1)})

    ran = three("pull", f"repo:{REPO}")

    assert ran.returncode == 1
    assert "do not fit into the quota of 3.0 MiB" in ran.stderr
    assert (names(three), hub.bytes_sent) == (["needed", "new", "old"], 0)


def test_a_name_that_a_pool_has_is_not_removed(three: Orchctl) -> None:
    kept = three("remove", "needed", "--yes")
    gone = three("remove", "old", "--yes")
    again = three("remove", "old", "--yes")

    assert [kept.returncode, gone.returncode, again.returncode] == [1, 0, 1]
    assert names(three) == ["needed", "new"]


def test_two_names_of_one_model_share_its_bytes(orchctl: Orchctl) -> None:
    path = add(orchctl, "one")
    orchctl("add", str(orchctl.folder / "one.gguf"), "--name", "two")
    page = json.loads(orchctl("list", "-o", "json").stdout)

    ran = orchctl("remove", "one", "--yes")

    assert (page["size"], len(page["models"])) == (MIB, 2)
    assert ran.returncode == 0
    assert path.exists()
    assert names(orchctl) == ["two"]


def test_one_name_never_means_two_models(orchctl: Orchctl, make_hub: MakeHub) -> None:
    add(orchctl, "tiny")
    make_hub()

    ran = orchctl("pull", f"repo:{REPO}")

    assert ran.returncode == 1
    assert "tiny is already the model" in ran.stderr
    assert "`--name`" in ran.stderr


@pytest.mark.orch("ORCH-3037")
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "link"])
def test_verify_finds_what_is_no_longer_as_it_was(orchctl: Orchctl, damage: str) -> None:
    path = add(orchctl, "good").parent.parent / "catalogue.json"
    bad = add(orchctl, "bad")
    assert path.exists()
    data = bad.read_bytes()
    if damage == "flip":
        bad.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "truncate":
        os.truncate(bad, 100)
    else:
        bad.rename(orchctl.folder / "elsewhere")
        if damage == "link":
            bad.symlink_to(orchctl.folder / "elsewhere")

    ran = orchctl("verify", "-o", "json")

    assert ran.returncode == 1
    assert [(one["name"], one["valid"]) for one in json.loads(ran.stdout)] == [("bad", False), ("good", True)]
    assert "orchctl models remove bad" in ran.stderr


def test_a_folder_that_a_crash_left_without_its_entry_is_taken_anew(orchctl: Orchctl) -> None:
    path = add(orchctl, "one")
    (orchctl.store / "catalogue.json").unlink()
    path.write_bytes(b"half")

    add(orchctl, "one")

    assert path.read_bytes() == (orchctl.folder / "one.gguf").read_bytes()
    assert orchctl("verify").returncode == 0


def test_the_list_needs_no_daemon_and_no_store(orchctl: Orchctl) -> None:
    ran = orchctl("list")

    assert ran.returncode == 0
    assert "there is no model in" in ran.stdout
    assert not orchctl.store.exists()


@pytest.mark.parametrize("has_openat2", [True, False])
@pytest.mark.parametrize(
    "place", ["../secret", "/etc/hostname", "link", "folder/out", "folder/../../secret", "up/secret"]
)
def test_nothing_outside_the_folder_is_opened(tmp_path: Path, place: str, *, has_openat2: bool) -> None:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "folder" / "out").symlink_to("../../secret")
    (root / "up").symlink_to("..")

    with pytest.raises(OSError, match=r"symbolic links|cross-device"):
        open_beneath(root, place, has_openat2=has_openat2)


@pytest.mark.parametrize("has_openat2", [True, False])
def test_what_lies_in_the_folder_is_opened(tmp_path: Path, *, has_openat2: bool) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_text("x")

    fd = open_beneath(tmp_path, "a/b", has_openat2=has_openat2)

    assert os.read(fd, 2) == b"x"
    os.close(fd)


def test_every_shard_belongs_to_the_model(tmp_path: Path) -> None:
    for index in (1, 2):
        (tmp_path / f"m-{index:05d}-of-00002.gguf").write_bytes(a_gguf(100, seed=index))

    with open_model(tmp_path / "m-00001-of-00002.gguf", None) as parts:
        found = sorted(part.name for part in parts)

    assert found == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    assert shard_names("m-00003-of-00002.gguf") == ("m-00003-of-00002.gguf",)
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    with pytest.raises(FileNotFoundError), open_model(tmp_path / "m-00001-of-00002.gguf", None):
        pass


def an_entry(name: str, size: int, digit: str) -> Entry:
    digest = digit * 64
    return Entry(
        name=name,
        digest=f"sha256:{digest}",
        place=f"{digest}/m.gguf",
        files=(StoredFile(path="m.gguf", size=size, sha256=digest),),
        origin=Origin(kind="file"),
        added=datetime.now(UTC),
    )


def test_a_plan_stops_as_soon_as_it_is_enough() -> None:
    catalogue = Catalogue(models=tuple(an_entry(name, 10, digit) for name, digit in zip("abc", "123", strict=True)))
    used = {"a": 3.0, "b": 1.0, "c": 2.0}

    plan = plan_eviction(catalogue, 15, set(), lambda entry: used[entry.name])

    assert [victim.names for victim in plan.victims] == [("b",), ("c",)]
    assert (plan.before_bytes, plan.after_bytes, plan.is_enough) == (30, 10, True)
