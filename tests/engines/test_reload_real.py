"""A model is replaced under a running stream on the real llama.cpp server: nobody loses a token (ORCH-3031)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.changes import change, settle
from tests.support.daemon import Daemon
from tests.support.pools import a_model, a_pool
from tests.support.streams import Stream

pytestmark = [pytest.mark.engines, pytest.mark.timeout(120)]

TOKENS = 300


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A Ready pool on one tiny model, and another one of another shape."""
    models = {**a_model(tmp_path), **a_model(tmp_path, "other", seed=7)}
    daemon = Daemon(tmp_path, {"pools": [a_pool()], "models": models})
    yield daemon.start_ready()
    daemon.close()


@pytest.mark.orch("ORCH-3031")
def test_a_stream_ends_on_the_model_that_it_began_with_and_the_next_one_has_the_new(daemon: Daemon) -> None:
    wanted = {"max_tokens": TOKENS, "seed": 5, "sampler": {"temperature": 0.0}}
    alone = daemon.read_stream(daemon.accept(**wanted))

    with daemon.open_stream(daemon.accept(**wanted)) as events:
        first = next(events)
        change(daemon, "reload", {"new_model_ref": "other"})
        crossed = Stream([first, *events]).check()
    page = settle(daemon)
    after = daemon.read_stream(daemon.accept(**wanted))

    assert (crossed.end.name, crossed.text) == ("end", alone.text)
    assert (first.data["replica_id"], page["revision"]) == ("tiny/1", 2)
    assert after.events[0].data["replica_id"].startswith("tiny+2/")
    assert after.events[0].data["model_digest"] != first.data["model_digest"]
    assert after.text != alone.text


@pytest.mark.orch("ORCH-3033")
def test_a_rollback_gives_the_old_models_bytes_again(daemon: Daemon) -> None:
    wanted = {"max_tokens": 32, "seed": 5, "sampler": {"temperature": 0.0}}
    before = daemon.read_stream(daemon.accept(**wanted))
    change(daemon, "reload", {"new_model_ref": "other"})
    settle(daemon)

    change(daemon, "rollback")

    assert daemon.read_stream(daemon.accept(**wanted)).text == before.text
