"""What an engine adapter is: a pure description of one engine, and sans-I/O decoders of its answers.

An adapter opens no socket, reads no clock, starts no process and reads no file. It turns a `LaunchSpec` into a
`LaunchPlan`, a call into an `EngineRequest`, and the bytes of an answer into tokens or outputs. The runtime does the
rest, in the same way for every engine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import msgspec

from adapters.oneshot import OneShotCall, Outputs


class Workload(StrEnum):
    """What an engine process is started to do; the last two are one-shot: their answer comes whole."""

    COMPLETION = "completion"
    EMBEDDING = "embedding"
    RERANK = "rerank"


class PlanError(Exception):
    """The launch cannot be planned as configured: a refused flag, a missing value. The text is one sentence."""


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """Everything an engine process is started with.

    `devices` are GPU UUIDs in mask order; `api_key` is the random key of this one worker; `ctx` is the context of each
    slot in tokens. `command` replaces the adapter's own command line; its placeholders are `{port} {model_path}
    {model_name} {ctx} {ctx_total} {slots} {api_key} {config_dir} {python} {pool_id}`, where ctx_total is ctx * slots.
    `workloads` is what the process will be asked to do.
    `simulated` says that the devices are not real, so that nothing may be refused for spilling to a CPU that is all
    there is.
    """

    pool_id: str
    model_path: str
    model_name: str
    ctx: int
    slots: int
    port: int
    api_key: str
    devices: Sequence[str]
    tensor_split: Sequence[float] | None = None
    threads: int | None = None
    extra_args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] | None = None
    binary: str | None = None
    config_dir: str = "."
    python: str = "python3"
    simulated: bool = False
    workloads: frozenset[Workload] = frozenset({Workload.COMPLETION})


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """argv (no shell) and the variables to add to the allow-listed environment.

    CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER are the runtime's, not the adapter's.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One HTTP request to an engine. `headers` holds no Host, Content-Length or key: the client adds those."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class CompletionCall:
    """A completion in engine-neutral words. `sampler` is complete: no engine default is ever relied on (ORCH-3058)."""

    prompt: str
    max_tokens: int
    seed: int
    sampler: Mapping[str, float | int]
    stop: Sequence[str] = ()
    reuse_kv: bool = False
    slot: int | None = None
    ignore_eos: bool = False


class Token(msgspec.Struct, frozen=True, gc=False):
    """One piece of text from the engine, whole UTF-8. `count` is the engine's own number of tokens so far.

    A Struct, unlike its siblings: one is made per token, and a frozen dataclass costs ten times as much to make.
    """

    text: str
    count: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The engine said that the answer is complete. `reason` is stop or length; times are milliseconds.

    `outputs` is the result of a one-shot call; empty for a completion, whose result are its tokens.
    """

    reason: str
    tokens_in: int | None
    tokens_out: int
    tokens_cached: int = 0
    prompt_ms: float | None = None
    decode_ms: float | None = None
    outputs: Outputs = ()


class Fault(StrEnum):
    """Whose fault an engine's error is; decides between a client error, a retry and a new worker."""

    CLIENT = "client"
    ENGINE = "engine"
    BUSY = "busy"


@dataclass(frozen=True, slots=True)
class EngineError:
    """The engine answered with an error, or with something that is not its protocol. `kind` is a short, fixed word."""

    fault: Fault
    kind: str
    message: str


Decoded = Token | Finished | EngineError


class StreamDecoder(Protocol):
    """Bytes of a response body in, tokens out. Never raises on any input.

    After Finished or EngineError it gives nothing. Giving the same bytes in other pieces gives the same tokens.
    """

    def feed(self, data: bytes | memoryview) -> list[Decoded]:
        """Take some more bytes of the body."""

    def eof(self) -> list[Decoded]:
        """The body is complete. Without an earlier Finished this is an EngineError: EOF proves nothing."""


class Liveness(StrEnum):
    """What an engine's health answer means."""

    READY = "ready"
    LOADING = "loading"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class EngineProps:
    """What a running engine says of itself (ORCH-3032)."""

    engine_version: str
    slots: int
    ctx_per_slot: int
    model_path: str | None = None
    model_alias: str | None = None


@dataclass(frozen=True, slots=True)
class SlotState:
    """One slot of a continuous-batching engine (ORCH-3019)."""

    slot: int
    is_busy: bool


class ExitKind(StrEnum):
    """Why an engine process is gone, as far as its exit status and last output prove it."""

    STOPPED = "stopped"
    CRASHED = "crashed"
    KILLED = "killed_unknown"
    OOM_VRAM = "oom_vram"
    OOM_HOST = "oom_host"
    """The kernel killed it for want of memory; never said by words alone."""
    HOST_ALLOC = "host_alloc"
    """It asked for host memory, got none, and ended by itself."""
    MODEL_MISSING = "model_missing"
    MODEL_BAD = "model_bad"
    PORT_IN_USE = "port_in_use"
    BAD_FLAG = "bad_flag"
    NO_GPU = "no_gpu"
    CUDA_ERROR = "cuda_error"
    ILLEGAL_INSTRUCTION = "illegal_instruction"
    BINARY_MISSING = "binary_missing"


@dataclass(frozen=True, slots=True)
class ExitExplanation:
    """One sentence for the operator, and the kind for the machine. `cause` holds no secret and no prompt."""

    kind: ExitKind
    cause: str


@dataclass(frozen=True, slots=True)
class StopPlan:
    """How this engine is stopped: signals to its process group, the wait after each in seconds; KILL comes last."""

    steps: tuple[tuple[int, float], ...]


class BadAnswerError(Exception):
    """A control answer (props, slots, tokenize, metrics) was not what this engine sends. One sentence."""


class Adapter(Protocol):
    """One engine. All methods are pure; `body` arguments are complete response bodies, bounded by the runtime."""

    name: str
    is_batch_invariant: bool
    can_pin_slots: bool
    workloads: frozenset[Workload]
    sse_headers: tuple[tuple[str, str], ...]

    def plan_launch(self, spec: LaunchSpec) -> LaunchPlan:
        """The command line and environment. Raises PlanError for what is refused."""

    def plan_stop(self) -> StopPlan:
        """The signals that end it."""

    def request_completion(self, call: CompletionCall) -> EngineRequest:
        """A streaming completion."""

    def decoder(self, status: int) -> StreamDecoder:
        """The decoder of the answer to `request_completion`, for this HTTP status."""

    def request_outputs(self, call: OneShotCall) -> EngineRequest:
        """An embedding or a rerank, with every parameter stated."""

    def outputs_decoder(self, call: OneShotCall, status: int) -> StreamDecoder:
        """The decoder of the answer to `request_outputs`: at its end one Finished with all outputs, or an error."""

    def request_health(self) -> EngineRequest:
        """A cheap question whether the engine is up."""

    def read_health(self, status: int, body: bytes) -> Liveness:
        """Meaning of the answer."""

    def request_props(self) -> tuple[EngineRequest, ...]:
        """The requests whose answers together give `EngineProps`; all of them need the key."""

    def read_props(self, bodies: Sequence[bytes]) -> EngineProps:
        """Parse them. Raises BadAnswerError."""

    def request_slots(self) -> EngineRequest | None:
        """The state of the slots, None where the engine cannot say."""

    def read_slots(self, body: bytes) -> tuple[SlotState, ...]:
        """Parse it. Raises BadAnswerError."""

    def request_tokenize(self, text: str) -> EngineRequest:
        """Tokens of a prompt, special tokens included as in a completion."""

    def read_tokenize(self, body: bytes) -> int:
        """Number of tokens. Raises BadAnswerError."""

    def request_metrics(self) -> EngineRequest:
        """The engine's own Prometheus page."""

    def read_metrics(self, body: bytes) -> Mapping[str, float]:
        """Engine-neutral names: requests_processing, requests_waiting, kv_usage_ratio, tokens_out_total where known."""

    def find_spill(self, tail: str) -> str | None:
        """One sentence where the engine's own log of its start says that part of the model is not on the GPUs."""

    def explain_exit(self, returncode: int, tail: str) -> ExitExplanation:
        """Why it exited: `returncode` as subprocess gives it (negative = signal), `tail` the last 64 KiB of output."""
