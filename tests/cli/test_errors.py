"""What goes wrong between the CLI and the daemon: exit codes and the one sentence that goes with each."""

import os
import socket
from pathlib import Path

import pytest

from orchctl.exits import ExitCode
from supervisor.wire.codes import RETRIABLE, Code, Engine, Reason
from supervisor.wire.errors import ErrorEnvelope
from tests.cli.builders import refusal
from tests.cli.conftest import Orchctl
from tests.cli.peer import Peer

TASK = "0b0e7d4e-6a63-4f8c-9a36-2f3f0f3f2b11"
ASKING_LINES = [
    ["status"],
    ["status", "small"],
    ["submit", "hi"],
    ["cancel", TASK],
    ["logs", "small"],
    ["drain", "small"],
    ["resume", "small"],
]
STATUS = "/v1/status"

REFUSALS = [
    (401, refusal(message="Who are you?", reason=Reason.AUTH), 77, "run it as root or as the user of the daemon"),
    (403, refusal(message="Not yours.", reason=Reason.SCOPE), 77, "run it as root or as the user of the daemon"),
    (400, refusal(message="The field ctx is too large."), 1, "orchctl: the field ctx is too large\n"),
    (429, refusal(Code.ADMISSION_REJECT, "Full.", retriable=True, retry_after_ms=1_200), 75, "the same again in 2 s"),
    (429, refusal(Code.QUEUE_FULL_DROP_LRU, "Full.", retriable=True), 75, "; try the same again\n"),
    (503, refusal(Code.POOL_UNREADY, "Loading.", retriable=True, pool_id="small"), 75, "`orchctl status small`"),
    (503, refusal(Code.POOL_UNREADY, retriable=True, pool_id="a", reason=Reason.DRAINING), 75, "`orchctl resume a`"),
    (429, refusal(Code.ADMISSION_REJECT, retriable=True, reason=Reason.DEADLINE), 75, "more time with `--deadline`"),
    (503, refusal(Code.POOL_UNAVAILABLE, "No GPU.", retriable=True), 75, "see why with `orchctl status`"),
    (503, refusal(Code.REPLICA_EXHAUSTED, "All out.", retriable=True), 75, "see why with `orchctl status`"),
    (500, refusal(Code.WORKER_RESET, "The engine died.", retriable=True, engine=Engine.VLLM), 75, "the engine died"),
    (500, refusal(Code.WORKER_RESET, "It killed three engines."), 1, "it killed three engines"),
    (404, refusal(message="No canary.", reason=Reason.NOT_FOUND, pool_id="a"), 1, "`orchctl rollout status a`"),
    (
        400,
        refusal(message="No model.", reason=Reason.MODEL, pool_id="a"),
        1,
        "see the models with `orchctl models list`",
    ),
    (400, refusal(message="There is no GPU 7.", reason=Reason.DEVICE), 1, "see the GPUs with `orchctl status`"),
    (500, refusal(Code.INTERNAL, "Something broke."), 1, "look for c0ffee in the log of the daemon"),
]


@pytest.mark.parametrize(("status", "envelope", "code", "words"), REFUSALS)
def test_each_refusal_has_its_exit_code_and_its_advice(
    peer: Peer, orchctl: Orchctl, status: int, envelope: ErrorEnvelope, code: int, words: str
) -> None:
    peer.refusals[STATUS] = (status, envelope)

    ran = orchctl("status")

    assert ran.code == code
    assert words in ran.err
    assert (ran.out, ran.err.count("\n")) == ("", 1)


@pytest.mark.parametrize("code", Code)
def test_every_code_of_the_contract_ends_in_a_documented_exit_code(peer: Peer, orchctl: Orchctl, code: Code) -> None:
    peer.refusals[STATUS] = (503, refusal(code, retriable=code in RETRIABLE))

    ran = orchctl("status", "-o", "json")

    assert ran.code == (ExitCode.TRY_LATER if code in RETRIABLE else ExitCode.FAILED)


@pytest.mark.parametrize("line", ASKING_LINES)
def test_without_a_daemon_every_verb_says_how_to_start_one(
    orchctl: Orchctl, socket_path: Path, line: list[str]
) -> None:
    ran = orchctl(*line)

    assert ran.code == 69
    assert ran.err == (
        f"orchctl: no daemon answers at {socket_path} (there is no such socket); "
        "start it with `orchctl serve --config FILE`, or name its socket with `--socket PATH`\n"
    )


def test_a_socket_that_a_dead_daemon_left_is_no_daemon(orchctl: Orchctl, socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path))

    ran = orchctl("status")

    assert ran.code == 69
    assert "nothing listens there" in ran.err


def test_a_file_in_the_place_of_the_socket_is_no_daemon(orchctl: Orchctl, socket_path: Path) -> None:
    socket_path.write_text("not a socket")

    assert orchctl("status").code == 69


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every socket")
def test_a_socket_of_somebody_else_is_not_permitted(peer: Peer, orchctl: Orchctl) -> None:
    peer.path.chmod(0o000)

    ran = orchctl("status")

    assert ran.code == 77
    assert "may not use the socket" in ran.err


NONSENSE = [
    b"",
    b"SSH-2.0-OpenSSH_9.9\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 13\r\n\r\n<html></html>",
    b"HTTP/1.1 302 Found\r\nLocation: http://example.org/\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
]


@pytest.mark.parametrize("reply", NONSENSE)
def test_what_is_no_daemon_of_ours_is_said_to_be_none(peer: Peer, orchctl: Orchctl, reply: bytes) -> None:
    peer.raw_replies[STATUS] = reply

    ran = orchctl("status")

    assert ran.code == 69
    assert ran.err.startswith("orchctl: ")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("line", [["status", "lrage"], ["logs", "lrage"], ["drain", "lrage"], ["resume", "lrage"]])
def test_a_pool_that_is_not_there_is_answered_with_where_to_look(peer: Peer, orchctl: Orchctl, line: list[str]) -> None:
    ran = orchctl(*line)

    assert ran.code == 1
    assert ran.err == "orchctl: there is no pool lrage; list the pools with `orchctl status`\n"


def test_a_task_that_is_not_there_is_a_failure(peer: Peer, orchctl: Orchctl) -> None:
    ran = orchctl("cancel", TASK)

    assert ran.code == 1
    assert ran.err.startswith(f"orchctl: there is no task {TASK}; check the id")


def test_a_strange_pool_id_reaches_the_daemon_as_one_id(peer: Peer, orchctl: Orchctl) -> None:
    ran = orchctl("status", "../tasks?x=1#é\udcff")

    assert ran.code == 1
    assert peer.requests[0].path == "/v1/pools/..%2Ftasks%3Fx%3D1%23%C3%A9%FF/health"


def test_an_error_never_brings_escape_sequences_to_a_terminal(peer: Peer, orchctl: Orchctl) -> None:
    peer.refusals[STATUS] = (400, refusal(message="Bad \x1b[2J\nname."))

    assert orchctl("status").err == "orchctl: bad ^[[2J name\n"
