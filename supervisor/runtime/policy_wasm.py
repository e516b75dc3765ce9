"""Runs a policy plugin: a WebAssembly module without imports, in a fresh instance for each question (ORCH-3048).

The module exports `memory`, `alloc(len: i32) -> i32` and `decide(ptr: i32, len: i32) -> i64`. It gets a snapshot as
JSON at `ptr` and gives the place of its JSON decision: the address in the upper 32 bits, the length in the lower. A
fresh instance remembers nothing, and has no clock and no randomness: the same snapshot gives the same decision. Fuel
bounds its work, the same on every machine; the deadline is for the case that fuel was reckoned wrong. Whatever goes
wrong is counted, logged, and answered by None, so that the built-in policy decides; a module that keeps failing is set
aside for a while, for each failure may have cost its whole deadline.
"""

import logging
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import msgspec
import wasmtime
from msgspec import Struct

from supervisor.core.policy import ABI_VERSION, AdmitSnapshot, PlaceSnapshot, Verdict
from supervisor.runtime.policy_deadline import Deadline

log = logging.getLogger("orchctl")
T = TypeVar("T")

MODULE_BYTES_MAX = 1_048_576
MEMORY_BYTES_MAX = 16 * 2**20
DECISION_BYTES_MAX = 65_536
STACK_BYTES_MAX = 262_144
TABLE_ELEMENTS_MAX = 10_000
FUEL_MAX = 5_000_000
"""Instructions, roughly: 3 to 10 ms of them."""
DEADLINE_S = 0.020
FAILURES_MAX = 3
"""Failures in a row after which the module is set aside for `REST_S`."""
REST_S = 30.0
RETRY_AFTER_MS_MAX = 600_000

_EXPORTS = {"alloc": "(i32) -> i32", "decide": "(i32, i32) -> i64"}
_KIND_PLACE, _KIND_ADMIT = "place", "admit"


class Bounds(Struct, frozen=True):
    """What one question may cost: units of fuel, and seconds."""

    fuel: int = FUEL_MAX
    deadline_s: float = DEADLINE_S


class Result(StrEnum):
    """What became of one question: the words of the metric `policy_calls_total`."""

    DECIDED = "decided"
    ABSTAINED = "abstained"
    TRAP = "trap"
    OUT_OF_FUEL = "out_of_fuel"
    DEADLINE = "deadline"
    NONSENSE = "nonsense"
    SET_ASIDE = "set_aside"


class PolicyError(Exception):
    """The module cannot be used at all. One sentence."""


class _Decision(Struct, frozen=True, forbid_unknown_fields=True):
    abi: int
    pool_id: str | None = None
    admit: bool | None = None
    retry_after_ms: int | None = None


class _FaultError(Exception):
    """One question went wrong."""

    def __init__(self, result: Result, text: str) -> None:
        super().__init__(text)
        self.result = result


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Decision, strict=True).decode


def read_module(path: Path, digest: str | None) -> bytes:
    """The module's bytes, verified. `digest` is `sha256:<hex>`. Raises PolicyError."""
    try:
        if not path.is_file():
            raise PolicyError("it is not a file")
        with path.open("rb") as file:
            code = file.read(MODULE_BYTES_MAX + 1)
    except OSError as error:
        raise PolicyError(f"it cannot be read: {error.strerror}") from error
    if len(code) > MODULE_BYTES_MAX:
        raise PolicyError(f"it is larger than {MODULE_BYTES_MAX} bytes")
    if digest is not None and f"sha256:{sha256(code).hexdigest()}" != digest:
        raise PolicyError("it does not have the digest that is configured")
    return code


class WasmPolicy:
    """Implements `supervisor.core.policy.Policy`. Used on one thread; `now_s` is monotonic."""

    def __init__(self, code: bytes, now_s: Callable[[], float], bounds: Bounds | None = None) -> None:
        """Compile the module and ask it nothing yet. Raises PolicyError for what is not a policy of this ABI."""
        self.digest = f"sha256:{sha256(code).hexdigest()}"
        self.calls: Counter[tuple[str, Result]] = Counter()
        self.cause: str | None = None
        """The last failure, one sentence; None after a decision."""
        self._now_s = now_s
        self._bounds = bounds or Bounds()
        self._failures_in_row = 0
        self._rests_until_s = 0.0
        self._engine = wasmtime.Engine(_settings())
        self._module = _compile(self._engine, code)
        self._deadline = Deadline(self._engine.increment_epoch, self._bounds.deadline_s)

    @property
    def is_set_aside(self) -> bool:
        """Whether it failed too often of late to be asked."""
        return self._now_s() < self._rests_until_s

    def place(self, snapshot: PlaceSnapshot) -> str | None:
        """The pool id of one of the candidates; None: the built-in policy decides."""

        def read(decision: _Decision) -> str | None:
            if decision.pool_id is not None and all(one.pool_id != decision.pool_id for one in snapshot.candidates):
                raise _FaultError(Result.NONSENSE, "it chose a pool that is not a candidate")
            return decision.pool_id

        return self._ask(_KIND_PLACE, _encode(snapshot), read)

    def admit(self, snapshot: AdmitSnapshot) -> Verdict | None:
        """Whether the task is let in; None: the built-in policy decides."""

        def read(decision: _Decision) -> Verdict | None:
            wait_ms = decision.retry_after_ms
            if wait_ms is not None and not 1 <= wait_ms <= RETRY_AFTER_MS_MAX:
                raise _FaultError(Result.NONSENSE, f"its retry_after_ms is not within 1 to {RETRY_AFTER_MS_MAX}")
            return None if decision.admit is None else Verdict(decision.admit, wait_ms)

        return self._ask(_KIND_ADMIT, _encode(snapshot), read)

    def close(self) -> None:
        """End the thread of the deadline."""
        self._deadline.close()

    def _ask(self, kind: str, question: bytes, read: Callable[[_Decision], T | None]) -> T | None:
        if self.is_set_aside:
            self.calls[kind, Result.SET_ASIDE] += 1
            return None
        try:
            answer = read(_parse(self._run(question)))
        except _FaultError as fault:
            self._note_fault(kind, fault)
            return None
        self._failures_in_row = 0
        self.cause = None
        self.calls[kind, Result.ABSTAINED if answer is None else Result.DECIDED] += 1
        return answer

    def _run(self, question: bytes) -> bytes:
        store = wasmtime.Store(self._engine)
        store.set_limits(
            memory_size=MEMORY_BYTES_MAX, table_elements=TABLE_ELEMENTS_MAX, instances=1, tables=4, memories=1
        )
        store.set_fuel(self._bounds.fuel)
        store.set_epoch_deadline(1)
        try:
            with self._deadline:
                return _call(store, self._module, question)
        except wasmtime.Trap as trap:
            raise self._fault_of(trap) from trap
        except (wasmtime.WasmtimeError, IndexError, OverflowError) as error:
            raise _FaultError(Result.NONSENSE, _first_line(error)) from error

    def _fault_of(self, trap: wasmtime.Trap) -> _FaultError:
        match trap.trap_code:
            case wasmtime.TrapCode.OUT_OF_FUEL:
                return _FaultError(Result.OUT_OF_FUEL, f"it used more than {self._bounds.fuel} units of fuel")
            case wasmtime.TrapCode.INTERRUPT:
                return _FaultError(Result.DEADLINE, f"it took longer than {self._bounds.deadline_s * 1000:g} ms")
            case code:
                return _FaultError(Result.TRAP, str(code.name).lower() if code is not None else "it trapped")

    def _note_fault(self, kind: str, fault: _FaultError) -> None:
        self.calls[kind, fault.result] += 1
        self.cause = f"{fault.result}: {fault}"
        self._failures_in_row += 1
        extra = {"kind": kind, "result": fault.result, "cause": str(fault)}
        log.error("the policy failed, the built-in one decides", extra=extra)
        if self._failures_in_row >= FAILURES_MAX:
            self._failures_in_row = 0
            self._rests_until_s = self._now_s() + REST_S
            log.error("the policy is set aside", extra={"for_s": REST_S, "digest": self.digest})


def _settings() -> wasmtime.Config:
    """No threads, no relaxed arithmetic, one form of NaN: nothing that could differ between two runs."""
    config = wasmtime.Config()
    config.consume_fuel = True
    config.epoch_interruption = True
    config.cranelift_nan_canonicalization = True
    config.wasm_threads = False
    config.wasm_relaxed_simd = False
    config.wasm_memory64 = False
    config.wasm_multi_memory = False
    config.max_wasm_stack = STACK_BYTES_MAX
    return config


def _compile(engine: wasmtime.Engine, code: bytes) -> wasmtime.Module:
    if not code.startswith(b"\0asm"):
        raise PolicyError("it is not a WebAssembly module")  # wasmtime would take text as well
    try:
        module = wasmtime.Module(engine, code)
    except wasmtime.WasmtimeError as error:
        raise PolicyError(f"it does not compile: {_first_line(error)}") from error
    if module.imports:
        first = module.imports[0]
        raise PolicyError(f"it imports {first.module}.{first.name}; a policy has no imports")
    _check_exports(module)
    return module


def _check_exports(module: wasmtime.Module) -> None:
    exports = {each.name: each.type for each in module.exports}
    if not isinstance(exports.get("memory"), wasmtime.MemoryType):
        raise PolicyError("it exports no memory")
    for name, wanted in _EXPORTS.items():
        kind = exports.get(name)
        if not isinstance(kind, wasmtime.FuncType) or _signature(kind) != wanted:
            raise PolicyError(f"it exports no function {name}{wanted}")


def _signature(kind: wasmtime.FuncType) -> str:
    return f"({', '.join(map(str, kind.params))}) -> {', '.join(map(str, kind.results))}"


def _call(store: wasmtime.Store, module: wasmtime.Module, question: bytes) -> bytes:
    exports = wasmtime.Instance(store, module, []).exports(store)
    memory, alloc, decide = exports["memory"], exports["alloc"], exports["decide"]
    assert isinstance(memory, wasmtime.Memory)
    assert isinstance(alloc, wasmtime.Func)
    assert isinstance(decide, wasmtime.Func)
    start = alloc(store, len(question)) & 0xFFFF_FFFF
    size = memory.data_len(store)
    if not start or start + len(question) > size:
        raise _FaultError(Result.NONSENSE, "it gave no room for the snapshot")
    memory.write(store, question, start)
    place = decide(store, start, len(question)) & 0xFFFF_FFFF_FFFF_FFFF
    first, length = place >> 32, place & 0xFFFF_FFFF
    if length > DECISION_BYTES_MAX or first + length > memory.data_len(store):
        raise _FaultError(Result.NONSENSE, "its decision lies outside of its memory, or is too long")
    return bytes(memory.read(store, first, first + length))


def _parse(text: bytes) -> _Decision:
    try:
        decision = _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _FaultError(Result.NONSENSE, "its decision is not the JSON of this ABI") from error
    if decision.abi != ABI_VERSION:
        raise _FaultError(Result.NONSENSE, f"its decision is of ABI {decision.abi}, not {ABI_VERSION}")
    return decision


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0][:200]
