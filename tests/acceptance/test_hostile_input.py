"""Bad input at length: 10,000 cases out of the document, 10,000 hostile texts, 100,000 hostile requests."""

import os
import random
import uuid
from pathlib import Path

import pytest

from tests.daemon.conftest import MakeDaemon, make_daemon
from tests.daemon.test_hostile_text import PER_TASK, make_daemon_that_says, say
from tests.support.api_keys import make_key
from tests.support.daemon import Daemon, a_request
from tests.support.hostile_text import hostile_strings
from tests.support.pools import a_fake_pool
from tests.support.schemathesis_run import run_schemathesis

__all__ = ["make_daemon"]

pytestmark = pytest.mark.accept

EXAMPLES = 1500
CASES_MIN = 10_000
SEED = int(os.environ.get("ACCEPT_SEED", "1"))
STRINGS = 10_000
REQUESTS = 100_000
SERIES_MAX = 2000


@pytest.mark.orch("ORCH-3015", "ORCH-3044")
@pytest.mark.parametrize("is_keyed", [False, True], ids=["without keys", "with keys"])
def test_ten_thousand_cases_out_of_the_document_find_nothing(
    make_daemon: MakeDaemon, tmp_path: Path, is_keyed: bool
) -> None:
    daemon = make_daemon(a_fake_pool(queue={"capacity": 4096}))
    key = make_key(daemon) if is_keyed else None
    daemon.start_ready()

    report = run_schemathesis(daemon.port, tmp_path, examples=EXAMPLES, seed=SEED, key=key)

    print(f"\n{report.cases} cases, {report.operations} operations, seed {SEED}")
    assert report.is_clean, report.text[-6000:]
    assert report.cases >= CASES_MIN
    assert "Traceback" not in daemon.log_text()


@pytest.mark.orch("ORCH-2002")
def test_ten_thousand_hostile_texts_come_through_exactly(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    script_path = tmp_path / "script.json"
    daemon = make_daemon_that_says(make_daemon, script_path)
    texts = hostile_strings(STRINGS, seed=SEED)

    for at in range(0, len(texts), PER_TASK):
        say(daemon, script_path, texts[at : at + PER_TASK], prompt="".join(texts[at : at + 5]))
    for text in texts:
        daemon.accept(prompt=text, max_tokens=1, priority="batch")

    assert "Traceback" not in daemon.log_text()


def hostile_requests(chance: random.Random) -> list[tuple[str, str, object, dict[str, str]]]:
    """One of each of many kinds, with other words in it every time."""
    word = chance.choice(hostile_strings(300, SEED)).encode("ascii", "backslashreplace").decode()
    word = "".join(c if c.isalnum() else f"%{ord(c):02x}" for c in word)[:100]
    ident = str(uuid.UUID(int=chance.getrandbits(128)))
    return [
        ("GET", f"/{word}", None, {}),
        ("GET", f"/v1/tasks/{word}", None, {"X-Correlation-Id": ident}),
        ("POST", f"/v1/tasks/{ident}/cancel", None, {}),
        ("GET", f"/v1/tasks/{ident}/stream", None, {"Last-Event-ID": word}),
        ("GET", f"/v1/pools/{word}/health", None, {"Authorization": f"Bearer {word}"}),
        ("GET", f"/v1/tasks?limit={word}", None, {}),
        ("PUT", f"/v1/sessions/{ident}", {"x": word}, {"User-Agent": word}),
        ("POST", "/v1/tasks", a_request(model_ref=f"m{chance.getrandbits(32):x}", session_id=ident), {}),
        ("POST", "/v1/tasks", a_request(engine=word), {}),
        ("POST", "/v1/tasks", a_request(**{f"f{chance.getrandbits(32):x}": 1}), {}),
    ]


@pytest.mark.orch("ORCH-3028")
def test_hostile_requests_make_no_series(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool(queue={"capacity": 100})).start_ready()
    chance = random.Random(SEED)

    for _ in range(REQUESTS // 10):
        for method, path, body, headers in hostile_requests(chance):
            reply = daemon.ask(method, path, body, headers)
            assert reply.status in {202, 400, 404, 405, 429}

    series = series_of(daemon)
    print(f"\n{REQUESTS} requests, {len(series)} series")
    assert len(series) < SERIES_MAX


def series_of(daemon: Daemon) -> set[str]:
    page = daemon.ask("GET", "/metrics").body.decode()
    return {line.rsplit(" ", 1)[0] for line in page.splitlines() if not line.startswith("#")}
