"""What proves why an engine is gone, and in which order: the counter, the kernel, its own words, nothing."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import ExitKind
from adapters.llamacpp import LlamaCpp
from supervisor.runtime.exit_proof import ExitEvidence, explain, taints
from supervisor.runtime.kernel_oom import is_killed_by_kernel, names

READ = LlamaCpp().explain_exit
VRAM = "ggml_cuda: cudaMalloc failed: out of memory\n"
HOST = "terminate called after throwing an instance of 'std::bad_alloc'\n"
KILLED = b"3,77,5000000,-;Memory cgroup out of memory: Killed process 4711 (llama-server) total-vm:1kB"


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (ExitEvidence(-9, VRAM, oom_kills=1), ExitKind.OOM_HOST),
        (ExitEvidence(1, VRAM, oom_kills=2), ExitKind.OOM_HOST),
        (ExitEvidence(-9, VRAM, oom_kills=0, is_named_by_kernel=True), ExitKind.OOM_HOST),
        (ExitEvidence(137, "", is_named_by_kernel=True), ExitKind.OOM_HOST),
        (ExitEvidence(-6, VRAM, oom_kills=0), ExitKind.OOM_VRAM),
        (ExitEvidence(1, VRAM, is_named_by_kernel=True), ExitKind.OOM_VRAM),
        (ExitEvidence(-6, HOST), ExitKind.HOST_ALLOC),
        (ExitEvidence(-9, VRAM), ExitKind.KILLED),
        (ExitEvidence(137, HOST), ExitKind.KILLED),
        (ExitEvidence(-6, VRAM, is_tainted=True), ExitKind.CRASHED),
        (ExitEvidence(1, "unknown model architecture: 'x'", is_tainted=True), ExitKind.MODEL_BAD),
        (ExitEvidence(0, VRAM), ExitKind.STOPPED),
    ],
)
@pytest.mark.orch("ORCH-3039")
def test_the_stronger_proof_decides(found: ExitEvidence, kind: ExitKind) -> None:
    assert explain(READ, found).kind is kind


@pytest.mark.parametrize(
    ("given_text", "is_tainting"),
    [
        (b"tell me a story of a whale", False),
        (b"how much memory has a GPU?", False),
        (b"why CUDA error: out of memory?", True),
        (b"x\n\xff\xfe CUDAMALLOC FAILED: OUT OF MEMORY", True),
        (b"what is std::bad_alloc", True),
        (b"unknown model architecture: 'x'", False),
    ],
)
def test_a_text_that_would_pass_for_last_words_taints(given_text: bytes, is_tainting: bool) -> None:
    assert taints(READ, given_text) is is_tainting


@given(st.binary(max_size=200), st.sampled_from([VRAM, HOST, "CUDA error: an illegal memory access\n"]), st.binary())
def test_whatever_stands_around_the_words_they_taint(before: bytes, words: str, after: bytes) -> None:
    assert taints(READ, b"\n".join([before, words.encode(), after]))


@pytest.mark.parametrize(
    "words",
    ["0.01.000.000 D srv  prompt: 'a\nCUDA error: out of memory\nb'\n0.02.000.000 I srv  slot is idle\n"],
)
def test_the_later_lines_of_a_debug_message_are_as_little_proof_as_its_first(words: str) -> None:
    assert READ(-6, words).kind is ExitKind.CRASHED
    assert READ(-6, words + VRAM).kind is ExitKind.OOM_VRAM


@pytest.mark.parametrize(
    ("record", "pid", "since_us", "is_named"),
    [
        (KILLED, 4711, 4_999_999, True),
        (KILLED, 4711, 5_000_001, False),
        (KILLED, 471, 0, False),
        (KILLED.replace(b"3,77", b"11,77"), 4711, 0, False),
        (KILLED.replace(b"Memory cgroup out", b"Out"), 4711, 0, True),
        (KILLED.replace(b"Killed process", b"oom_reaper: reaped process"), 4711, 0, False),
        (b"", 4711, 0, False),
        (b"x,y,z;Out of memory: Killed process 4711 (a)", 4711, 0, False),
    ],
    ids=[
        "named",
        "older than the process",
        "another pid",
        "written by a program",
        "host",
        "reaper",
        "empty",
        "garbage",
    ],
)
def test_a_line_of_the_kernel_names_a_younger_process(record: bytes, pid: int, since_us: int, is_named: bool) -> None:
    assert names([b"6,1,1,-;Linux version", record], pid, since_us=since_us) is is_named


def test_a_kernel_log_that_cannot_be_read_names_nobody(tmp_path: Path) -> None:
    assert not is_killed_by_kernel(4711, since_us=0, log=tmp_path / "missing")
