"""The policy plugin in its sandbox: what it says counts, and nothing that it does can hurt."""

import time
from pathlib import Path

import pytest
import wasmtime

from supervisor.config.policy import PolicyConfig
from supervisor.core.policy import (
    AdmitSnapshot,
    CandidateFacts,
    PlaceSnapshot,
    QueueFacts,
    TaskFacts,
    Verdict,
)
from supervisor.runtime.policy_desk import PolicyDesk
from supervisor.runtime.policy_wasm import (
    FAILURES_MAX,
    MODULE_BYTES_MAX,
    REST_S,
    Bounds,
    PolicyError,
    Result,
    WasmPolicy,
    read_module,
)
from supervisor.wire.codes import Determinism, Priority, Workload

pytestmark = pytest.mark.orch("ORCH-3048")
SAMPLE = Path(__file__).parent.parent.parent / "examples" / "policy" / "pack.wasm"
ALLOC = '(func (export "alloc") (param i32) (result i32) (i32.const 65536))'


def a_task(priority: Priority = Priority.INTERACTIVE) -> TaskFacts:
    return TaskFacts(
        tenant="acme",
        priority=priority,
        workload=Workload.COMPLETION,
        determinism=Determinism.BEST_EFFORT,
        max_tokens=64,
        expected_tokens=64,
        prompt_bytes=100,
        attempt=0,
        deadline_in_ms=1_000,
    )


def a_place(*loads: int, warm: int | None = None) -> PlaceSnapshot:
    candidates = tuple(
        CandidateFacts(pool_id=f"p{index}", slots=4, load=load, is_warm=index == warm)
        for index, load in enumerate(loads)
    )
    return PlaceSnapshot(task=a_task(), candidates=candidates, built_in="p0")


def an_admit(priority: Priority, waiting: int) -> AdmitSnapshot:
    queue = QueueFacts(
        waiting=waiting,
        capacity=10,
        waiting_in_class=waiting,
        capacity_of_class=10,
        waiting_bytes=0,
        bytes_max=1,
        slots=1,
        predicted_start_ms=None,
    )
    return AdmitSnapshot(task=a_task(priority), queue=queue)


def a_module(decide: str, *, alloc: str = ALLOC, memory: str = '(memory (export "memory") 2)', more: str = "") -> bytes:
    return bytes(
        wasmtime.wat2wasm(
            f'(module {memory} {alloc} {more} (func (export "decide") (param i32 i32) (result i64) {decide}))'
        )
    )


def saying(text: str) -> bytes:
    """A module that gives this text whatever it is asked."""
    escaped = "".join(f"\\{byte:02x}" for byte in text.encode())
    place = (16 << 32) | len(text.encode())
    return a_module(f"(i64.const {place})", more=f'(data (i32.const 16) "{escaped}")')


def asked(code: bytes) -> tuple[str | None, WasmPolicy]:
    policy = WasmPolicy(code, lambda: 0.0)
    try:
        return policy.place(a_place(0, 1)), policy
    finally:
        policy.close()


def test_the_sample_packs_and_prefers_what_is_warm() -> None:
    policy = WasmPolicy(SAMPLE.read_bytes(), lambda: 0.0)

    packed, warm = policy.place(a_place(0, 3, 1)), policy.place(a_place(0, 3, 1, warm=2))
    policy.close()

    assert (packed, warm) == ("p1", "p2")
    assert policy.calls == {("place", Result.DECIDED): 2}


@pytest.mark.parametrize(
    ("priority", "waiting", "verdict"),
    [
        (Priority.BATCH, 5, Verdict(is_admitted=False, retry_after_ms=2_000)),
        (Priority.BATCH, 4, Verdict(is_admitted=True)),
        (Priority.INTERACTIVE, 9, Verdict(is_admitted=True)),
    ],
)
def test_the_sample_keeps_batch_out_of_a_queue_that_fills_up(
    priority: Priority, waiting: int, verdict: Verdict
) -> None:
    policy = WasmPolicy(SAMPLE.read_bytes(), lambda: 0.0)

    said = policy.admit(an_admit(priority, waiting))
    policy.close()

    assert said == verdict


def test_a_choice_counts() -> None:
    assert asked(saying('{"abi":1,"pool_id":"p1"}'))[0] == "p1"


def test_no_opinion_is_none_and_no_failure() -> None:
    said, policy = asked(saying('{"abi":1}'))

    assert said is None
    assert policy.calls == {("place", Result.ABSTAINED): 1}
    assert policy.cause is None


GROW = "(drop (memory.grow (i32.const 300)))"
BAD = {
    "a loop": (a_module("(loop (br 0)) (i64.const 0)"), Result.OUT_OF_FUEL),
    "a loop in alloc": (
        a_module("(i64.const 0)", alloc='(func (export "alloc") (param i32) (result i32) (loop (br 0)) (i32.const 1))'),
        Result.OUT_OF_FUEL,
    ),
    "a loop at the start": (a_module("(i64.const 0)", more="(func $s (loop (br 0))) (start $s)"), Result.OUT_OF_FUEL),
    "endless recursion": (a_module("(call $f) (i64.const 0)", more="(func $f (call $f))"), Result.TRAP),
    "unreachable": (a_module("unreachable"), Result.TRAP),
    "a division by zero": (a_module("(i64.div_u (i64.const 1) (i64.const 0))"), Result.TRAP),
    "a read beyond its memory": (a_module("(i64.load (i32.const 0x7fffffff))"), Result.TRAP),
    "a write beyond its bound": (
        a_module(f"{GROW} (i32.store (i32.const 19000000) (i32.const 1)) (i64.const 0)"),
        Result.TRAP,
    ),
    "more memory than it may have": (
        a_module("(i64.const 0)", memory='(memory (export "memory") 300)'),
        Result.NONSENSE,
    ),
    "no room for the snapshot": (
        a_module("(i64.const 0)", alloc='(func (export "alloc") (param i32) (result i32) (i32.const 0))'),
        Result.NONSENSE,
    ),
    "no room, and a decision all the same": (
        a_module(
            f"(i64.const {16 << 32 | 9})",
            alloc='(func (export "alloc") (param i32) (result i32) (i32.const 0))',
            more='(data (i32.const 16) "{\\22abi\\22:1}")',
        ),
        Result.NONSENSE,
    ),
    "room beyond its memory": (
        a_module("(i64.const 0)", alloc='(func (export "alloc") (param i32) (result i32) (i32.const -4))'),
        Result.NONSENSE,
    ),
    "an empty decision": (a_module("(i64.const 0)"), Result.NONSENSE),
    "a decision beyond its memory": (a_module("(i64.const -1)"), Result.NONSENSE),
    "a decision without end": (
        a_module(
            f"(memory.fill (i32.const 25) (i32.const 32) (i32.const 70000)) (i64.const {16 << 32 | 70_000})",
            more='(data (i32.const 16) "{\\22abi\\22:1}")',
        ),
        Result.NONSENSE,
    ),
    "not JSON": (saying("p1"), Result.NONSENSE),
    "not UTF-8": (
        a_module(f"(i64.const {16 << 32 | 3})", more='(data (i32.const 16) "\\22\\ff\\22")'),
        Result.NONSENSE,
    ),
    "another ABI": (saying('{"abi":2,"pool_id":"p1"}'), Result.NONSENSE),
    "no ABI": (saying('{"pool_id":"p1"}'), Result.NONSENSE),
    "a field that nobody knows": (saying('{"abi":1,"pool":"p1"}'), Result.NONSENSE),
    "a value of another type": (saying('{"abi":1,"pool_id":1}'), Result.NONSENSE),
    "a pool that is no candidate": (saying('{"abi":1,"pool_id":"p9"}'), Result.NONSENSE),
}


@pytest.mark.parametrize(("code", "result"), BAD.values(), ids=BAD)
def test_what_goes_wrong_is_counted_and_leaves_the_built_in_policy(code: bytes, result: Result) -> None:
    said, policy = asked(code)

    assert said is None
    assert policy.calls == {("place", result): 1}
    assert policy.cause


def test_the_deadline_holds_where_fuel_was_reckoned_wrong() -> None:
    policy = WasmPolicy(a_module("(loop (br 0)) (i64.const 0)"), lambda: 0.0, Bounds(fuel=10**15, deadline_s=0.01))

    said = [policy.place(a_place(0, 1)), policy.place(a_place(0, 1))]
    policy.close()

    assert said == [None, None]
    assert policy.calls == {("place", Result.DEADLINE): 2}


@pytest.mark.parametrize("hint", [0, -1, 600_001, 2**63])
def test_a_hint_out_of_its_bounds_is_nonsense(hint: int) -> None:
    policy = WasmPolicy(saying(f'{{"abi":1,"admit":false,"retry_after_ms":{hint}}}'), lambda: 0.0)

    said = policy.admit(an_admit(Priority.BATCH, 1))
    policy.close()

    assert said is None
    assert policy.calls == {("admit", Result.NONSENSE): 1}


def test_it_remembers_nothing_between_two_questions() -> None:
    counter = (
        "(global.set 0 (i32.add (global.get 0) (i32.const 1))) (i32.store8 (i32.const 37) "
        "(i32.add (i32.const 47) (global.get 0))) (i64.const " + str(16 << 32 | 24) + ")"
    )
    code = a_module(
        counter,
        more='(global (mut i32) (i32.const 0)) (data (i32.const 16) "{\\22abi\\22:1,\\22pool_id\\22:\\22p0\\22}")',
    )
    policy = WasmPolicy(code, lambda: 0.0)

    said = [policy.place(a_place(0, 0)) for _ in range(3)]
    policy.close()

    assert said == ["p0", "p0", "p0"]


def test_a_module_that_keeps_failing_is_set_aside_and_asked_again_later() -> None:
    now = [0.0]
    policy = WasmPolicy(a_module("unreachable"), lambda: now[0])
    for _ in range(FAILURES_MAX):
        policy.place(a_place(0, 1))

    policy.place(a_place(0, 1))
    rested = policy.is_set_aside
    now[0] = REST_S
    policy.place(a_place(0, 1))
    policy.close()

    assert rested
    assert policy.calls == {("place", Result.TRAP): FAILURES_MAX + 1, ("place", Result.SET_ASIDE): 1}


def test_failures_count_only_in_a_row() -> None:
    policy = WasmPolicy(saying('{"abi":1,"pool_id":"p1"}'), lambda: 0.0)

    said = [policy.place(a_place(0, 1) if turn % FAILURES_MAX == 0 else a_place(0)) for turn in range(4 * FAILURES_MAX)]
    policy.close()

    assert [word for word in said if word] == ["p1"] * 4


REFUSED = {
    "nothing": (b"", "not a WebAssembly module"),
    "text": (b"(module)", "not a WebAssembly module"),
    "half a module": (SAMPLE.read_bytes()[:-100], "does not compile"),
    "no exports": (bytes(wasmtime.wat2wasm("(module)")), "no memory"),
    "no decide": (bytes(wasmtime.wat2wasm(f'(module (memory (export "memory") 1) {ALLOC})')), "decide"),
    "another signature": (
        bytes(
            wasmtime.wat2wasm(
                f'(module (memory (export "memory") 1) {ALLOC} (func (export "decide") (result i64) (i64.const 0)))'
            )
        ),
        "decide",
    ),
    "an import of the host": (
        bytes(
            wasmtime.wat2wasm(
                '(module (import "wasi_snapshot_preview1" "clock_time_get" (func (param i32 i64 i32) (result i32))))'
            )
        ),
        "imports wasi_snapshot_preview1.clock_time_get",
    ),
    "an imported memory": (
        bytes(wasmtime.wat2wasm('(module (import "env" "memory" (memory 1)))')),
        "imports env.memory",
    ),
    "threads": (
        bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1 2 shared))')),
        "does not compile",
    ),
}


@pytest.mark.parametrize(("code", "word"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_policy_is_refused_when_it_is_loaded(code: bytes, word: str) -> None:
    with pytest.raises(PolicyError, match=word):
        WasmPolicy(code, lambda: 0.0)


def test_a_file_is_read_within_its_bounds_and_verified(tmp_path: Path) -> None:
    large = tmp_path / "large.wasm"
    large.write_bytes(b"\0asm" + bytes(MODULE_BYTES_MAX))

    for path, digest, word in [
        (tmp_path / "missing.wasm", None, "not a file"),
        (tmp_path, None, "not a file"),
        (large, None, "larger than"),
        (SAMPLE, "sha256:" + "0" * 64, "digest"),
    ]:
        with pytest.raises(PolicyError, match=word):
            read_module(path, digest)


def test_the_desk_of_a_module_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    module = tmp_path / "bad.wasm"
    module.write_bytes(b"(module)")

    desk = PolicyDesk(PolicyConfig(module=module), time.monotonic)

    status = desk.status()
    assert status is not None
    assert (desk.policy, status.state, status.calls) == (None, "refused", {"load refused": 1})
    assert status.cause == "it is not a WebAssembly module"
    (family,) = desk.collect()
    assert [(sample.labels["kind"], sample.labels["result"], sample.value) for sample in family.samples] == [
        ("load", "refused", 1.0)
    ]


def test_without_a_policy_there_is_none() -> None:
    desk = PolicyDesk(None, time.monotonic)

    assert (desk.policy, desk.status(), desk.calls()) == (None, None, {})
