"""A conversation with the real model on the real llama.cpp server: the second turn finds its KV, and says the same."""

import statistics
import time
import uuid
from collections.abc import Iterator

import pytest

from tests.engines.test_smollm2 import DIGEST, MODEL
from tests.support.daemon import Daemon
from tests.support.pools import a_pool
from tests.support.streams import Stream

pytestmark = [pytest.mark.engines, pytest.mark.timeout(300)]

STORY = "A lighthouse keeper wrote down each evening which ships had passed, and what the sea had been like. " * 12
QUESTION = "\nQuestion: what did the keeper write down?\nAnswer:"
ROUNDS = 5


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon with two slots of the real model."""
    if not MODEL.exists():
        pytest.skip("the model is not there: `make model` fetches it")
    pool = a_pool("smollm2", model="smollm2", ctx=1024, slots=2, determinism="best_effort")
    models = {"smollm2": {"path": str(MODEL), "digest": DIGEST}}
    daemon = Daemon(tmp_path_factory.mktemp("sessions"), {"pools": [pool], "models": models})
    yield daemon.start_ready()
    daemon.close()


def ask(daemon: Daemon, prompt: str, session: str, *, hint: str = "reuse") -> tuple[Stream, float]:
    """A turn, and its time from submit to the first token."""
    began = time.monotonic()
    task_id = daemon.accept(
        model_ref="smollm2", ctx=1024, prompt=prompt, session_id=session, kv_hint=hint, max_tokens=12, seed=3,
        sampler={"temperature": 0.0},
    )  # fmt: skip
    first_s, events = 0.0, []
    with daemon.open_stream(task_id) as stream:
        for event in stream:
            if event.name == "token" and not first_s:
                first_s = time.monotonic() - began
            events.append(event)
    return Stream(events).check(), first_s


def warmth(stream: Stream) -> tuple[bool, bool]:
    return stream.events[0].data["kv_warmth"], stream.end.data["kv_warmth"]


@pytest.mark.orch("ORCH-3009", "ORCH-3021", "ORCH-3023", "ORCH-3054")
def test_second_turns_are_warm_faster_and_say_what_cold_ones_say(daemon: Daemon) -> None:
    ratios = []
    for _ in range(ROUNDS):
        session, cold_session = str(uuid.uuid4()), str(uuid.uuid4())
        first, _ = ask(daemon, STORY, session)
        prompt = STORY + first.text + QUESTION
        cold, cold_s = ask(daemon, prompt, cold_session, hint="cold")
        warm, warm_s = ask(daemon, prompt, session)
        ratios.append(warm_s / cold_s)

        assert (warmth(first), warmth(warm), warmth(cold)) == ((False, False), (True, True), (False, False))
        assert warm.text == cold.text

    print(f"\nfirst token, warm over cold: {statistics.median(ratios):.3f} of {[f'{each:.3f}' for each in ratios]}")
    assert statistics.median(ratios) < 0.5


@pytest.mark.orch("ORCH-3021")
def test_kv_bytes_are_those_of_the_model_and_a_deleted_session_runs_cold(daemon: Daemon) -> None:
    session = str(uuid.uuid4())
    first, _ = ask(daemon, STORY, session)
    kept = daemon.ask("GET", f"/v1/sessions/{session}").json
    deleted = daemon.ask("DELETE", f"/v1/sessions/{session}").status
    again, _ = ask(daemon, STORY, session)

    tokens = first.end.data["tokens_in"] + first.end.data["tokens_out"]
    assert kept["kv_bytes"] == tokens * 30 * 3 * (64 + 64) * 2
    assert deleted == 204
    assert warmth(again) == (False, False)
    assert again.text == first.text


def test_a_foreign_prompt_with_the_same_beginning_is_not_answered_from_the_kv_of_another(daemon: Daemon) -> None:
    ask(daemon, STORY, str(uuid.uuid4()))
    ask(daemon, STORY, str(uuid.uuid4()))

    third, _ = ask(daemon, STORY, str(uuid.uuid4()))

    assert warmth(third) == (False, False)
