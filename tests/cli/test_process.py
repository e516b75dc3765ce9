"""The CLI as a process: closed streams, pipes that break, signals, and becoming the daemon."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.builders import host, pool
from tests.cli.peer import WAIT_S_MAX, Peer

ROOT = Path(__file__).parents[2]
ORCHCTL = [sys.executable, "-m", "orchctl"]
NOBODY = 65_534
TASK = "0b0e7d4e-6a63-4f8c-9a36-2f3f0f3f2b11"


def environ(peer: Peer, **changes: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "ORCHCTL_SOCKET": str(peer.path)} | changes


def start(peer: Peer, *argv: str, stdout: int = subprocess.PIPE) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([*ORCHCTL, *argv], stdout=stdout, stderr=subprocess.PIPE, env=environ(peer))


def shell(peer: Peer, line: str, **changes: str) -> "subprocess.CompletedProcess[str]":
    script = f'set -o pipefail; orchctl() {{ "{sys.executable}" -m orchctl "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        env=environ(peer, **changes),
        timeout=WAIT_S_MAX,
        check=False,
    )


def test_a_reader_that_leaves_gets_no_traceback(peer: Peer) -> None:
    peer.log_pieces = [b"x" * 99 + b"\n"] * 5_000

    ran = shell(peer, "orchctl logs small | head -n 1")

    assert ran.stdout == "x" * 99 + "\n"
    assert ran.stderr == ""
    assert ran.returncode == 141


def test_a_reader_that_leaves_an_answer_ends_its_task(peer: Peer) -> None:
    peer.answer = None
    process = start(peer, "submit", "--task-id", TASK, "hi")
    assert process.stdout is not None
    peer.only_task()
    peer.start(TASK)

    process.stdout.close()
    peer.say(TASK, "nobody reads this")
    _, err = process.communicate(timeout=WAIT_S_MAX)

    assert peer.tasks[TASK].is_over
    assert err.decode() == f"orchctl: task {TASK} is cancelled after 1 tokens\n"
    assert process.returncode == 141


@pytest.mark.parametrize(
    "line", ["orchctl status >&-", "orchctl status <&- >&- 2>&-", "orchctl submit hi <&- >&- 2>&-"]
)
def test_closed_streams_are_no_reason_to_fail(peer: Peer, line: str) -> None:
    ran = shell(peer, line)

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_an_error_with_nowhere_to_say_it_still_has_its_code(peer: Peer) -> None:
    assert shell(peer, "orchctl status nope 2>&-").returncode == 1


def test_a_full_disk_is_one_sentence(peer: Peer) -> None:
    ran = shell(peer, "orchctl status > /dev/full")

    assert ran.returncode == 1
    assert ran.stderr == "orchctl: cannot write to standard output (No space left on device)\n"


def test_a_prompt_may_come_through_a_pipe(peer: Peer) -> None:
    ran = shell(peer, "printf 'wörld\\n' | orchctl submit -q --no-wait && printf x | orchctl submit -q --no-wait -")

    assert ran.returncode == 0
    assert [task.submitted.prompt for task in peer.tasks.values()] == ["wörld\n", "x"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("printf '\\xff' | orchctl submit", "the prompt is not valid UTF-8"),
        ("head -c 1048577 /dev/zero | orchctl submit", "the prompt is longer than 1048576 bytes"),
        ("orchctl submit < /dev/null", "prompt: expected `str` of length >= 1"),
        ("orchctl submit $'\\xff'", "the prompt is not valid UTF-8"),
        ("orchctl $'\\xff'", "no such command"),
    ],
)
def test_a_prompt_that_cannot_be_sent_is_a_usage_error(peer: Peer, line: str, words: str) -> None:
    ran = shell(peer, line)

    assert ran.returncode == 2
    assert words in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert not peer.tasks


def test_text_for_a_program_is_utf8_whatever_the_locale(peer: Peer) -> None:
    peer.answer = ["é漢"]

    assert shell(peer, "orchctl submit -q hi", LC_ALL="C", PYTHONIOENCODING="ascii").stdout == "é漢"


def test_nothing_is_coloured_in_a_pipe(peer: Peer) -> None:
    ran = shell(peer, "orchctl status; orchctl submit hi", TERM="xterm-256color", FORCE_COLOR="1", CLICOLOR_FORCE="1")

    assert "\x1b" not in ran.stdout + ran.stderr


def test_neither_home_nor_locale_nor_terminal_is_needed(peer: Peer) -> None:
    ran = subprocess.run(
        [*ORCHCTL, "status"], env={"ORCHCTL_SOCKET": str(peer.path)}, cwd=ROOT, capture_output=True, check=False
    )

    assert ran.returncode == 0
    assert b"*  small  ready" in ran.stdout


def test_ctrl_c_cancels_the_task_on_the_daemon(peer: Peer) -> None:
    peer.answer = None
    process = start(peer, "submit", "--task-id", TASK, "hi")
    assert process.stdout is not None
    peer.only_task()
    peer.start(TASK)
    peer.say(TASK, "Hel")
    assert process.stdout.read(3) == b"Hel"

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=WAIT_S_MAX)

    assert process.returncode == 130
    assert peer.tasks[TASK].is_over
    assert out == b""
    assert err.decode() == f"orchctl: task {TASK} is cancelled after 1 tokens\n"


def test_ctrl_c_ends_a_followed_log_without_a_word(peer: Peer) -> None:
    peer.log_pieces = [b"one\n"]
    peer.is_log_open = True
    process = start(peer, "logs", "small", "-f")
    assert process.stdout is not None
    assert process.stdout.readline() == b"one\n"

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=WAIT_S_MAX)

    assert (process.returncode, out, err) == (130, b"", b"")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_somebody_else_may_not_use_the_socket(peer: Peer) -> None:
    peer.path.chmod(0o600)
    peer.path.parent.chmod(0o755)
    # The first run loads what the second one, which may read no file of root's, needs.
    program = (
        f"import os, sys; from orchctl.app import run; run(['status']); os.setuid({NOBODY}); sys.exit(run(['status']))"
    )

    ran = subprocess.run(
        [sys.executable, "-c", program], env=environ(peer), capture_output=True, text=True, check=False
    )

    assert ran.returncode == 77
    assert ran.stderr == (
        f"orchctl: this user may not use the socket {peer.path}; run it as root or as the user of the daemon\n"
    )


def test_a_name_that_looks_like_markup_or_an_option_is_only_a_name(peer: Peer) -> None:
    peer.status = host(pool("[bold]x[/bold]"))

    ran = shell(peer, "orchctl status '[bold]x[/bold]'; orchctl status -- --help")

    assert "[bold]x[/bold]" in ran.stdout
    assert "there is no pool --help" in ran.stderr


def test_serve_becomes_the_daemon_in_the_same_process(peer: Peer, tmp_path: Path) -> None:
    daemon = tmp_path / "supervisor"
    daemon.mkdir()
    (daemon / "__init__.py").write_text(f"__path__.append({str(ROOT / 'supervisor')!r})\n")
    (daemon / "__main__.py").write_text("import os, sys\nprint(os.getpid(), sys.flags.safe_path, sys.argv[1:])\n")
    argv = [*ORCHCTL, "serve", "-c", "my pools.yaml", "--simulate-gpus", "1x8GiB"]
    path = f"{tmp_path}{os.pathsep}{ROOT}"

    process = subprocess.Popen(argv, env=environ(peer, PYTHONPATH=path), cwd="/", stdout=subprocess.PIPE, text=True)
    out, _ = process.communicate(timeout=WAIT_S_MAX)

    given = ["--config", "my pools.yaml", "--simulate-gpus", "1x8GiB"]
    assert out == f"{process.pid} True {given}\n"
