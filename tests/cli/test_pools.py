"""`orchctl drain`, `resume` and `logs`."""

import json
import threading

import msgspec
import pytest

from supervisor.wire.pools import DrainRequest, PoolHealth
from tests.cli.builders import broken_pool, host, metrics, pool
from tests.cli.conftest import Orchctl
from tests.cli.peer import Peer

DRAIN = "/v1/pools/small/drain"


def asked_deadline_ms(peer: Peer) -> int:
    return msgspec.json.decode(peer.asked("POST", DRAIN)[0].body, type=DrainRequest).deadline_ms


def test_a_drain_sends_its_deadline_and_says_how_to_undo_it(peer: Peer, orchctl: Orchctl) -> None:
    ran = orchctl("drain", "small", "--deadline", "90s")

    assert (ran.code, ran.err) == (0, "")
    assert ran.out == ("pool small is draining, what runs has 1 min 30 s; undo it with `orchctl resume small`\n")
    assert asked_deadline_ms(peer) == 90_000


def test_a_drain_in_json_is_the_daemons_own_reply(peer: Peer, orchctl: Orchctl) -> None:
    assert json.loads(orchctl("drain", "small", "-o", "json").out) == {"pool_id": "small", "draining": True}


def test_waiting_for_a_drain_ends_when_nothing_runs(peer: Peer, orchctl: Orchctl) -> None:
    def finish() -> None:
        peer.wait_for(lambda: len(peer.asked("GET", "/v1/pools/small/health")) >= 2)
        peer.change_pool("small", metrics=metrics(slots_busy=0))

    threading.Thread(target=finish, daemon=True).start()

    ran = orchctl("drain", "small", "--wait", "-o", "json")

    health = msgspec.json.decode(ran.out, type=PoolHealth)
    assert ran.code == 0
    assert health.draining
    assert health.metrics.slots_busy == 0


def test_a_drain_that_takes_too_long_says_where_it_stands(peer: Peer, orchctl: Orchctl) -> None:
    ran = orchctl("drain", "small", "--wait", "--timeout", "1ms")

    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        "orchctl: pool small took longer than 1 ms to drain (draining, 1 running); "
        "look again with `orchctl status small`\n"
    )


def test_a_drain_that_ends_tasks_at_once_wants_a_yes(peer: Peer, orchctl: Orchctl) -> None:
    ran = orchctl("drain", "small", "--deadline", "0")

    assert ran.code == 2
    assert "a deadline of 0 ends 1 task at once; say `--yes`" in ran.err
    assert peer.asked("POST", DRAIN) == []


def test_with_a_yes_it_is_done(peer: Peer, orchctl: Orchctl) -> None:
    assert orchctl("drain", "small", "--deadline", "0s", "--yes").code == 0
    assert asked_deadline_ms(peer) == 0


def test_an_idle_pool_is_drained_at_once_without_a_question(peer: Peer, orchctl: Orchctl) -> None:
    peer.status = host(pool(metrics=metrics(slots_busy=0)))

    assert orchctl("drain", "small", "--deadline", "0").code == 0


def test_a_resume_undoes_it(peer: Peer, orchctl: Orchctl) -> None:
    peer.change_pool("small", draining=True)

    ran = orchctl("resume", "small", "--wait")

    assert (ran.code, ran.out) == (0, "pool small is ready\n")
    assert not peer.status.pools[0].draining


def test_a_resumed_pool_that_cannot_start_says_why(peer: Peer, orchctl: Orchctl) -> None:
    peer.status = host(broken_pool())

    ran = orchctl("resume", "large", "--wait", "--timeout", "1ms")

    assert ran.code == 1
    assert "(backoff, the engine ran out of GPU memory while it loaded)" in ran.err


def test_logs_are_printed_as_they_are(peer: Peer, orchctl: Orchctl) -> None:
    peer.log_pieces = [b"one\ntw", b"o \xc3", b"\xa9\nthree"]

    ran = orchctl("logs", "small", "-n", "3")

    assert (ran.code, ran.out) == (0, "one\ntwo é\nthree")
    assert peer.requests[0].query == {"lines": ["3"], "follow": ["false"]}


def test_logs_in_json_are_lines(peer: Peer, orchctl: Orchctl) -> None:
    peer.log_pieces = [b"one\ntw", b"o\n"]

    assert json.loads(orchctl("logs", "small", "-o", "json").out) == {"pool_id": "small", "lines": ["one", "two"]}


@pytest.mark.parametrize(
    ("output", "printed"),
    [("table", "one\ntwo\n"), ("json", '{"pool_id":"small","line":"one"}\n{"pool_id":"small","line":"two"}\n')],
)
def test_followed_logs_end_with_the_daemon(peer: Peer, orchctl: Orchctl, output: str, printed: str) -> None:
    peer.log_pieces = [b"one\n"]
    peer.is_log_open = True

    def write_one_more() -> None:
        peer.wait_for(lambda: bool(peer.requests))
        with peer.changed:
            peer.log_pieces.append(b"two\n")
            peer.is_log_open = False
            peer.changed.notify_all()

    threading.Thread(target=write_one_more, daemon=True).start()

    assert orchctl("logs", "small", "-f", "-o", output).out == printed
