"""`orchctl keys`: keys made, listed, rotated and revoked, with a daemon and without one."""

import json
import re
from pathlib import Path

import pytest

from supervisor.config.keys import digest_of, read_keys
from tests.cli.builders import host, refusal
from tests.cli.conftest import Orchctl
from tests.cli.peer import Peer

SECRET = re.compile(r"ok_[A-Za-z0-9_-]{43}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def made(orchctl: Orchctl, path: Path, *options: str) -> dict[str, str]:
    """The id and the secret of a new key."""
    ran = orchctl("keys", "create", "--scope", "data", "--file", str(path), "-o", "json", *options)
    assert ran.code == 0, ran.err
    issued = json.loads(ran.out)
    return {"id": issued["key"]["id"], "secret": issued["secret"]}


def test_a_new_key_alone_is_on_standard_output_and_its_digest_in_the_file(orchctl: Orchctl, path: Path) -> None:
    line = ["--tenant", "blue", "--scope", "metrics", "--priority", "batch", "--expires", "30d", "--note", "night jobs"]

    ran = orchctl("keys", "create", "--scope", "data", "--file", str(path), *line)

    secret = ran.out.removesuffix("\n")
    [key] = read_keys(path, {}).keys
    assert ran.code == 0
    assert SECRET.fullmatch(secret)
    assert secret not in ran.err
    assert "this is the only time that it is shown" in ran.err
    assert bytes.fromhex(key.sha256) == digest_of(secret)
    assert (key.tenant, key.scopes, key.priorities, key.note) == ("blue", ("data", "metrics"), ("batch",), "night jobs")
    assert key.expires is not None
    assert (key.expires - key.created).days == 30


def test_the_list_shows_everything_but_the_key(orchctl: Orchctl, path: Path) -> None:
    first, second = made(orchctl, path, "--note", "a"), made(orchctl, path, "--tenant", "blue")
    orchctl("keys", "revoke", second["id"], "--yes", "--file", str(path))

    table = orchctl("keys", "list", "--file", str(path))
    wide = orchctl("keys", "list", "--file", str(path), "-o", "wide")
    page = json.loads(orchctl("keys", "list", "--file", str(path), "-o", "json").out)

    assert [line.split()[:5] for line in table.out.splitlines()] == [
        ["ID", "TENANT", "SCOPES", "CLASSES", "STATE"],
        [first["id"], "default", "data", "interactive,batch", "active"],
        [second["id"], "blue", "data", "interactive,batch", "revoked"],
    ]
    assert "FINGERPRINT" in wide.out
    assert [(key["id"], key["state"], key["note"]) for key in page["keys"]] == [
        (first["id"], "active", "a"),
        (second["id"], "revoked", ""),
    ]
    assert page["keys"][0]["fingerprint"] == digest_of(first["secret"]).hex()[:6]
    assert not SECRET.search(table.out + wide.out + json.dumps(page))


def test_a_rotated_key_gets_a_successor_and_a_grace(orchctl: Orchctl, path: Path) -> None:
    old = made(orchctl, path, "--tenant", "blue")

    ran = orchctl("keys", "rotate", old["id"], "--grace", "2m", "--file", str(path))

    former, successor = read_keys(path, {}).keys
    assert ran.code == 0
    assert SECRET.fullmatch(ran.out.strip())
    assert f"it replaces {old['id']}" in ran.err
    assert (former.id, successor.tenant) == (old["id"], "blue")
    assert former.expires is not None
    assert 118 <= (former.expires - successor.created).total_seconds() <= 120


def test_a_revocation_asks_first_and_wants_yes_where_nobody_can_be_asked(orchctl: Orchctl, path: Path) -> None:
    key = made(orchctl, path)

    refused = orchctl("keys", "revoke", key["id"], "--file", str(path))
    done = orchctl("keys", "revoke", key["id"], "--file", str(path), "--yes")

    assert (refused.code, refused.err) == (2, f"orchctl: revoking {key['id']} cannot be undone; say `--yes`\n")
    assert (done.code, done.out) == (0, f"key {key['id']} is revoked; a running daemon refuses it within seconds\n")
    assert read_keys(path, {}).keys[0].revoked is not None


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (["create"], 2, "missing option '--scope'"),
        (["create", "--scope", "root"], 2, "'root' is not one of 'data', 'control', 'metrics'"),
        (["create", "--scope", "data", "--expires", "soon"], 2, "--expires wants a time with a unit"),
        (["create", "--scope", "data", "--expires", "0"], 2, "--expires is at least 1s"),
        (["create", "--scope", "data", "--expires", "9999d"], 2, "--expires is at most 3650d"),
        (["create", "--scope", "data", "--tenant", "../x"], 1, "tenant: expected `str` matching regex"),
        (["create", "--scope", "data", "--note", "a\nb"], 1, "note: expected `str` matching regex"),
        (["create", "--scope", "data", "-c", "x"], 2, "--file and --config name two places"),
        (["rotate", "k1"], 1, "there is no key of that id"),
        (["revoke", "k1", "--yes"], 1, "there is no key of that id"),
        (["steal"], 2, "no such command 'steal'"),
        ([], 2, "missing command; see `orchctl keys --help`"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_makes_no_file(
    orchctl: Orchctl, path: Path, line: list[str], code: int, words: str
) -> None:
    ran = orchctl("keys", *line, *(["--file", str(path)] if line and line != ["steal"] else []))

    assert (ran.code, ran.out) == (code, "")
    assert words in ran.err
    assert ran.err.count("\n") == 1
    assert not path.exists()


def test_a_file_that_others_may_read_is_neither_shown_nor_changed(orchctl: Orchctl, path: Path) -> None:
    made(orchctl, path)
    path.chmod(0o644)

    listed = orchctl("keys", "list", "--file", str(path))
    created = orchctl("keys", "create", "--scope", "data", "--file", str(path))

    assert (listed.code, created.code) == (1, 1)
    assert f"orchctl: others may read {path} (mode 0644); run: chmod 600 {path}\n" == listed.err == created.err


def test_without_a_file_the_list_says_how_to_begin(orchctl: Orchctl, path: Path) -> None:
    ran = orchctl("keys", "list", "--file", str(path))

    assert (ran.code, ran.out) == (
        0, f"there is no key in {path}; make one with `orchctl keys create --scope data`\n",
    )  # fmt: skip


def test_the_file_is_that_of_the_daemon_which_runs(peer: Peer, orchctl: Orchctl, path: Path) -> None:
    peer.status = host(keys_file=str(path))

    ran = orchctl("keys", "create", "--scope", "data")

    assert ran.code == 0
    assert len(read_keys(path, {}).keys) == 1


def test_who_may_not_ask_the_daemon_makes_no_key_somewhere_else(peer: Peer, orchctl: Orchctl) -> None:
    envelope = refusal(reason="scope", message="This user may not use the control socket of the daemon.")
    peer.refusals["/v1/status"] = (403, envelope)

    ran = orchctl("keys", "create", "--scope", "data")

    assert (ran.code, ran.out) == (77, "")


@pytest.mark.parametrize(
    ("tail", "place"),
    [("", "state/keys.json"), ("auth: { keys_file: secrets/k.json }\n", "secrets/k.json")],
    ids=["of the state folder", "named"],
)
def test_the_file_is_that_of_a_config(orchctl: Orchctl, tmp_path: Path, tail: str, place: str) -> None:
    config = tmp_path / "pools.yaml"
    pool = "pools: [{ id: a, engine: llamacpp, model: m, devices: [0] }]\nstate_dir: state\n"
    config.write_text(pool + tail)

    ran = orchctl("keys", "create", "--scope", "data", "--config", str(config))

    assert ran.code == 0
    assert len(read_keys(tmp_path / place, {}).keys) == 1


def test_a_config_that_cannot_be_used_is_exit_code_78(orchctl: Orchctl, tmp_path: Path) -> None:
    config = tmp_path / "pools.yaml"
    config.write_text("pools: []\n")

    ran = orchctl("keys", "list", "--config", str(config))

    assert (ran.code, ran.out) == (78, "")
    assert f"see all with `orchctl validate {config}`" in ran.err
