"""Keys and their file: what a key is, what changes are made of it, and that only its digest is ever written."""

import hashlib
import json
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from supervisor.config.keys import (
    KEYS_MAX,
    ApiKey,
    Grant,
    Issued,
    KeyChanges,
    KeyFile,
    KeysError,
    changing_keys,
    find_key_file,
    read_keys,
)
from supervisor.wire.codes import Priority, Scope
from tests.support.keys import a_key, revoke, rotate

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


def issue(changes: KeyChanges, **fields: object) -> Issued:
    return changes.create(Grant(**{"tenant": "a", "scopes": (Scope.DATA,), **fields}), NOON)  # type: ignore[arg-type]


@pytest.mark.orch("ORCH-3035")
def test_a_key_is_256_random_bits_and_only_its_digest_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"

    issued = [a_key(path) for _ in range(20)]

    text = path.read_text()
    assert all(re.fullmatch(r"ok_[A-Za-z0-9_-]{43}", each.secret) for each in issued)
    assert len({each.secret for each in issued}) == len({each.key.id for each in issued}) == 20
    assert not any(each.secret in text or each.secret[3:] in text for each in issued)
    assert [key.sha256 for key in read_keys(path, {}).keys] == [
        hashlib.sha256(each.secret.encode()).hexdigest() for each in issued
    ]


def test_a_new_file_is_for_its_owner_alone_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "below" / "keys.json"

    a_key(path)
    a_key(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["keys.json"]


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    grant = Grant(
        tenant="blue",
        scopes=(Scope.METRICS, Scope.DATA),
        priorities=(Priority.BATCH,),
        lifetime=30 * DAY,
        note="für die Nacht",
    )

    with changing_keys(path, {}) as changes:
        issued = changes.create(grant, NOON)

    [key] = read_keys(path, {}).keys
    assert key == issued.key
    assert (key.tenant, key.scopes, key.priorities) == ("blue", (Scope.DATA, Scope.METRICS), (Priority.BATCH,))
    assert (key.created, key.expires, key.revoked, key.note) == (NOON, NOON + 30 * DAY, None, "für die Nacht")


@pytest.mark.parametrize(
    "fields",
    [{"tenant": ""}, {"tenant": "../x"}, {"tenant": "A"}, {"scopes": ()}, {"note": "a\nb"}, {"note": "x" * 201}],
    ids=str,
)
def test_a_key_that_the_file_could_not_hold_is_not_made(fields: dict[str, object]) -> None:
    changes = KeyChanges(KeyFile())

    with pytest.raises(KeysError):
        issue(changes, **fields)

    assert changes.file == KeyFile()


def test_a_key_lives_until_its_end_or_its_revocation() -> None:
    changes = KeyChanges(KeyFile())
    lasting, short = issue(changes).key, issue(changes, lifetime=DAY).key

    revoked = changes.revoke(lasting.id, NOON + MINUTE)

    assert [short.is_alive(NOON + DAY - MINUTE), short.is_alive(NOON + DAY)] == [True, False]
    assert lasting.is_alive(NOON + 999 * DAY)
    assert not revoked.is_alive(NOON + MINUTE)
    assert changes.revoke(lasting.id, NOON + DAY) == revoked, "the first revocation is the one that counts"


def test_a_rotated_key_has_a_grace_and_its_successor_the_same_rights() -> None:
    changes = KeyChanges(KeyFile())
    old = issue(changes, tenant="blue", priorities=(Priority.BATCH,), note="n").key

    new = changes.rotate(old.id, NOON + DAY, grace=10 * MINUTE)

    former = changes.file.key(old.id)
    assert former is not None
    assert former.expires == NOON + DAY + 10 * MINUTE
    assert (new.key.tenant, new.key.scopes, new.key.priorities, new.key.note) == (
        "blue", (Scope.DATA,), (Priority.BATCH,), "n",
    )  # fmt: skip
    assert new.key.expires is None
    assert new.key.sha256 != old.sha256


def test_a_grace_prolongs_no_life_and_a_successor_lives_as_long_as_the_key_was_made_to() -> None:
    changes = KeyChanges(KeyFile())
    old = issue(changes, lifetime=DAY).key

    new = changes.rotate(old.id, NOON + DAY - MINUTE, grace=10 * MINUTE)

    former = changes.file.key(old.id)
    assert former is not None
    assert former.expires == NOON + DAY
    assert new.key.expires == NOON + DAY - MINUTE + DAY


def test_a_dead_or_unknown_key_is_not_rotated() -> None:
    changes = KeyChanges(KeyFile())
    expired, revoked = issue(changes, lifetime=MINUTE).key, issue(changes).key
    changes.revoke(revoked.id, NOON)

    for key_id, words in ((expired.id, "expired"), (revoked.id, "revoked"), ("k1", "no key of that id")):
        with pytest.raises(KeysError, match=words):
            changes.rotate(key_id, NOON + DAY, grace=MINUTE)
    with pytest.raises(KeysError, match="no key of that id"):
        changes.revoke("k1", NOON)


def test_a_full_file_gives_up_its_oldest_dead_key_and_no_other() -> None:
    key = KeyChanges(KeyFile())
    template = issue(key).key
    full = [_copy(template, number) for number in range(KEYS_MAX)]
    changes = KeyChanges(KeyFile(keys=tuple(full)))

    with pytest.raises(KeysError, match="revoke one first"):
        issue(changes)
    changes.revoke(full[7].id, NOON)
    issued = issue(changes)

    assert len(changes.file.keys) == KEYS_MAX
    assert changes.file.key(full[7].id) is None
    assert changes.file.keys[-1] == issued.key


def _copy(key: ApiKey, number: int) -> ApiKey:
    return ApiKey(id=f"k{number}", sha256=f"{number:064x}", tenant=key.tenant, scopes=key.scopes, created=key.created)


def test_editors_at_the_same_time_lose_none_of_their_changes(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"

    with ThreadPoolExecutor(8) as pool:
        issued = list(pool.map(lambda _: a_key(path), range(40)))

    assert {key.id for key in read_keys(path, {}).keys} == {each.key.id for each in issued}


def make_then_fail(path: Path) -> None:
    with changing_keys(path, {}) as changes:
        issue(changes)
        changes.revoke("k1", NOON)


def test_a_failed_change_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    a_key(path)
    before = (path.read_bytes(), path.stat().st_ino)

    with pytest.raises(KeysError):
        make_then_fail(path)

    assert (path.read_bytes(), path.stat().st_ino) == before


def test_a_revocation_of_what_is_revoked_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    issued = a_key(path)
    revoke(path, issued)
    before = path.stat().st_ino, path.stat().st_mtime_ns

    revoke(path, issued)

    assert (path.stat().st_ino, path.stat().st_mtime_ns) == before


def test_the_file_is_found_among_credentials_then_in_the_config_then_in_the_state_folder(tmp_path: Path) -> None:
    state, named, credentials = tmp_path / "state", tmp_path / "k.json", tmp_path / "credentials"
    environ = {"CREDENTIALS_DIRECTORY": str(credentials)}

    found = [find_key_file(None, state, environ), find_key_file(named, state, environ)]
    a_key(credentials / "keys.json")
    found.append(find_key_file(named, state, environ))
    found.append(find_key_file(named, state, {"CREDENTIALS_DIRECTORY": "credentials"}))

    assert found == [state / "keys.json", named, credentials / "keys.json", named]


def test_the_helpers_of_these_tests_rotate_and_revoke_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    first = a_key(path)

    second = rotate(path, first, grace_s=60)
    revoke(path, second)

    states = [(key.expires is not None, key.revoked is not None) for key in read_keys(path, {}).keys]
    assert states == [(True, False), (False, True)]
    assert json.loads(path.read_text())["version"] == 1
