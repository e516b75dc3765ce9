"""Servers that lie: nothing endless is read, nothing is put together of two files, and no half passes for a whole."""

import contextlib
import gzip
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator

import pytest

from tests.store.conftest import Orchctl, a_gguf
from tests.support.enemy_server import Answer, EnemyServer, chunk, head, path_of, range_start
from tests.support.hub import COMMIT, REPO

MIB = 2**20
PIECE = bytes(64 * 1024)
MakeEnemy = Callable[[Answer], EnemyServer]


@pytest.fixture
def make_enemy(orchctl: Orchctl) -> Iterator[MakeEnemy]:
    """Starts servers; the last one is the endpoint of `orchctl`."""
    with contextlib.ExitStack() as stack:

        def make(answer: Answer) -> EnemyServer:
            enemy = stack.enter_context(EnemyServer(answer).serving())
            orchctl.config["hub"] = {"endpoint": enemy.endpoint}
            return enemy

        yield make


def whole(data: bytes, *fields: str) -> list[bytes]:
    return [head("200 OK", f"Content-Length: {len(data)}", *fields), data]


def as_json(page: object, *fields: str) -> list[bytes]:
    return whole(json.dumps(page).encode(), "Content-Type: application/json", *fields)


def a_node(data: bytes) -> dict[str, object]:
    sha256 = hashlib.sha256(data).hexdigest()
    lfs = {"oid": sha256, "size": len(data), "pointerSize": 134}
    return {"type": "file", "path": "tiny.gguf", "size": len(data), "oid": "0" * 40, "lfs": lfs}


def a_hub(tree: Callable[[str], Iterable[bytes]], commit: str = COMMIT) -> Answer:
    """A hub whose listing is up to the test."""

    def answer(request: str) -> Iterable[bytes]:
        if "/revision/" in path_of(request):
            return as_json({"id": REPO, "sha": commit, "siblings": []})
        return tree(request)

    return answer


# Endless --------------------------------------------------------------------------------------------------------


def endless(*fields: str, status: str = "200 OK") -> Iterator[bytes]:
    yield head(status, "Transfer-Encoding: chunked", *fields)
    for _ in itertools.repeat(None):
        yield chunk(PIECE)


def test_the_body_of_a_redirect_is_not_read(orchctl: Orchctl, make_enemy: MakeEnemy) -> None:
    data = a_gguf()

    def answer(request: str) -> Iterable[bytes]:
        if path_of(request) == "/there/tiny.gguf":
            return whole(data)
        return endless("Location: /there/tiny.gguf", status="302 Found")

    enemy = make_enemy(answer)

    ran = orchctl("pull", f"{enemy.endpoint}/tiny.gguf")

    assert ran.returncode == 0, ran.stderr
    assert enemy.bytes_sent < 32 * MIB


@pytest.mark.parametrize("bound", ["store", "hub"])
def test_an_endless_file_ends_at_the_bound(orchctl: Orchctl, make_enemy: MakeEnemy, bound: str) -> None:
    enemy = make_enemy(lambda _: itertools.chain(endless()))
    if bound == "store":
        orchctl.config["store"] = {"dir": str(orchctl.store), "max_bytes": 4 * MIB}
    else:
        orchctl.config["hub"]["model_bytes_max"] = 4 * MIB

    ran = orchctl("pull", f"{enemy.endpoint}/tiny.gguf")

    assert ran.returncode == 1
    assert f"more than the {4 * MIB} bytes that are allowed" in ran.stderr
    assert [path for path in orchctl.files if (orchctl.store / path).stat().st_size] == []


def test_pages_without_end_are_not_followed(orchctl: Orchctl, make_enemy: MakeEnemy) -> None:
    enemy = make_enemy(a_hub(lambda request: as_json([], f'Link: <http://{_host(request)}/api/again>; rel="next"')))

    ran = orchctl("pull", f"repo:{REPO}")

    assert ran.returncode == 1
    assert "answers in more than 64 pages" in ran.stderr
    assert len(enemy.heads) <= 64


def _host(request: str) -> str:
    return next(line for line in request.split("\r\n") if line.lower().startswith("host:")).partition(":")[2].strip()


# Packed ---------------------------------------------------------------------------------------------------------


def test_a_packed_listing_is_not_unpacked(orchctl: Orchctl, make_enemy: MakeEnemy) -> None:
    bomb = gzip.compress(bytes(64 * MIB))
    make_enemy(a_hub(lambda _: whole(bomb, "Content-Type: application/json", "Content-Encoding: gzip")))

    ran = orchctl("pull", f"repo:{REPO}")

    assert ran.returncode == 1
    assert "packs its answers though it was asked not to" in ran.stderr


def test_a_packed_file_is_refused(orchctl: Orchctl, make_enemy: MakeEnemy) -> None:
    enemy = make_enemy(lambda _: whole(gzip.compress(a_gguf()), "Content-Encoding: gzip"))

    ran = orchctl("pull", f"{enemy.endpoint}/tiny.gguf")

    assert ran.returncode == 1
    assert "packs the file though it was asked not to" in ran.stderr
    assert not orchctl.catalogue.models


# Lies about size and part ---------------------------------------------------------------------------------------


def test_a_length_that_is_not_the_listed_one_is_refused(orchctl: Orchctl, make_enemy: MakeEnemy) -> None:
    data = a_gguf()

    def tree(request: str) -> Iterable[bytes]:
        return as_json([a_node(data)]) if "/tree/" in path_of(request) else whole(data[:-1])

    make_enemy(a_hub(tree))

    ran = orchctl("pull", f"repo:{REPO}")

    assert ran.returncode == 1
    assert f"announces {len(data) - 1} bytes, and the listing {len(data)}" in ran.stderr


def test_a_body_whose_end_is_the_end_of_the_line_is_refused(orchctl: Orchctl, make_enemy: MakeEnemy) -> None:
    enemy = make_enemy(lambda _: [head("200 OK"), a_gguf()[:100_000]])

    ran = orchctl("pull", f"{enemy.endpoint}/tiny.gguf")

    assert ran.returncode == 1
    assert "does not say where the file ends" in ran.stderr
    assert not orchctl.catalogue.models


def test_a_part_that_nobody_asked_for_is_not_the_whole(orchctl: Orchctl, make_enemy: MakeEnemy) -> None:
    data = a_gguf(300_000)

    def answer(request: str) -> Iterable[bytes]:
        start = range_start(request)
        part = data[start : start + 200_000]
        said = f"Content-Range: bytes {start}-{start + len(part) - 1}/{len(data)}"
        return [head("206 Partial Content", f"Content-Length: {len(part)}", said, 'ETag: "one"'), part]

    enemy = make_enemy(answer)

    ran = orchctl("pull", f"{enemy.endpoint}/tiny.gguf")

    assert ran.returncode == 0, ran.stderr
    assert orchctl.catalogue.models[0].digest == f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_a_part_of_another_file_is_not_put_behind_the_first(orchctl: Orchctl, make_enemy: MakeEnemy) -> None:
    first, second = a_gguf(2 * MIB, seed=1), a_gguf(2 * MIB, seed=2)

    def answer(request: str) -> Iterable[bytes]:
        if len(enemy.heads) == 1:  # the line breaks in the middle, and then there is another file
            return [head("200 OK", f"Content-Length: {len(first)}", 'ETag: "one"'), first[:MIB]]
        start = range_start(request)
        fields = (f"Content-Length: {len(second) - start}", 'ETag: "two"')
        if not start:
            return [head("200 OK", *fields), second]
        said = f"Content-Range: bytes {start}-{len(second) - 1}/{len(second)}"
        return [head("206 Partial Content", said, *fields), second[start:]]

    enemy = make_enemy(answer)

    ran = orchctl("pull", f"{enemy.endpoint}/tiny.gguf")

    assert ran.returncode == 0, ran.stderr
    assert orchctl.catalogue.models[0].digest == f"sha256:{hashlib.sha256(second).hexdigest()}"


# Hubs that hold up, and words that harm -------------------------------------------------------------------------


def test_a_hub_that_wants_to_be_waited_for_in_the_middle_is_not(orchctl: Orchctl, make_enemy: MakeEnemy) -> None:
    sleepy = head("429 Too Many Requests", "Retry-After: 86400", "Content-Length: 0")
    enemy = make_enemy(a_hub(lambda _: [sleepy]))

    ran = orchctl("pull", f"repo:{REPO}")

    assert ran.returncode == 75
    assert ran.stderr == "orchctl: 127.0.0.1 answers 429; try the same again in 86400 s\n"
    assert len(enemy.heads) == 2


def test_a_hub_that_goes_away_in_the_middle_is_said_in_one_line(orchctl: Orchctl, make_enemy: MakeEnemy) -> None:
    def answer(_: str) -> Iterable[bytes]:
        enemy.shut()
        return as_json({"id": REPO, "sha": COMMIT, "siblings": []})

    enemy = make_enemy(answer)

    ran = orchctl("pull", f"repo:{REPO}")

    assert ran.returncode == 75
    assert "127.0.0.1 is not reachable or broke off (ConnectError)" in ran.stderr
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize("commit", ["a" * 3000, "../../etc", "a\nb", ""])
def test_a_commit_that_is_none_enters_no_catalogue(orchctl: Orchctl, make_enemy: MakeEnemy, commit: str) -> None:
    data = a_gguf()

    def tree(request: str) -> Iterable[bytes]:
        return as_json([a_node(data)]) if "/tree/" in path_of(request) else whole(data)

    make_enemy(a_hub(tree, commit))

    ran = orchctl("pull", f"repo:{REPO}")

    assert ran.returncode == 1
    assert "does not answer as a hub" in ran.stderr
    assert orchctl("list").returncode == 0


def test_an_address_that_no_catalogue_can_hold_harms_no_catalogue(orchctl: Orchctl, make_enemy: MakeEnemy) -> None:
    enemy = make_enemy(lambda _: whole(a_gguf()))
    assert orchctl("pull", f"{enemy.endpoint}/first.gguf").returncode == 0

    ran = orchctl("pull", f"{enemy.endpoint}/{'x' * 3000}/second.gguf")

    assert ran.returncode == 1
    assert "cannot be entered" in ran.stderr
    assert [entry.name for entry in orchctl.catalogue.models] == ["first"]
    assert orchctl("list").returncode == 0
