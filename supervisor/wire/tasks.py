"""Requests and replies of the data plane: submit, look at, list and cancel tasks (spec §6.2)."""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType, structs

from supervisor.wire.codes import Determinism, Engine, FinishReason, KvHint, Priority, Workload
from supervisor.wire.errors import ErrorEnvelope
from supervisor.wire.outputs import Outputs

CTX_MAX = 2**31 - 1
DEADLINE_MS_MAX = 86_400_000
INPUTS_MAX = 256
RERANK_INPUTS_MIN = 2
STOP_MAX = 8
MODEL_REF_PATTERN = (
    r"^(sha256:[0-9a-f]{64}|repo:[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
    r"|[a-z0-9][a-z0-9._-]{0,127})\Z"
)
UUID_PATTERN = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z"

Uuid = Annotated[str, Meta(pattern=UUID_PATTERN, description="A lower-case UUID.")]
ModelRef = Annotated[str, Meta(pattern=MODEL_REF_PATTERN, description="sha256:<64 hex>, repo:org/name or a name.")]
Text = Annotated[str, Meta(min_length=1)]


class Sampler(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Overrides of the sampler profile, within its bounds. Anything left out is the profile's own value."""

    temperature: Annotated[float, Meta(ge=0, le=5)] | UnsetType = UNSET
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] | UnsetType = UNSET
    top_p: Annotated[float, Meta(gt=0, le=1)] | UnsetType = UNSET
    min_p: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] | UnsetType = UNSET
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | UnsetType = UNSET
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | UnsetType = UNSET


class SubmitTask(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`POST /v1/tasks`. Exactly one of `prompt` and `inputs`; unknown fields are refused.

    A completion takes `prompt`. An embedding takes `inputs`, or one text as `prompt`. A rerank takes `inputs`: the
    first one is the query, the others, at least one, are the documents. Embedding and rerank generate nothing:
    `max_tokens` only has to be there, `seed`, `stop` and `sampler` must not, and every input must fit `ctx` by itself,
    a document together with the query.

    `ctx` is the context asked for, in tokens; `deadline_ms` counts from admission; `seed` is a signed 64-bit integer,
    derived from `task_id` where absent (ORCH-3045); `expected_tokens` is a placement hint of at most `max_tokens`.
    """

    task_id: Uuid
    session_id: Uuid
    workload: Workload
    model_ref: ModelRef
    engine: Engine
    ctx: Annotated[int, Meta(ge=1, le=CTX_MAX)]
    priority: Priority
    max_tokens: Annotated[int, Meta(ge=1, le=CTX_MAX)]
    deadline_ms: Annotated[int, Meta(ge=1, le=DEADLINE_MS_MAX)]
    prompt: Text | UnsetType = UNSET
    inputs: Annotated[list[Text], Meta(min_length=1, max_length=INPUTS_MAX)] | UnsetType = UNSET
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | UnsetType = UNSET
    determinism: Determinism | UnsetType = UNSET
    sampler_profile_version: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,31}\Z")] | UnsetType = UNSET
    expected_tokens: Annotated[int, Meta(ge=1, le=CTX_MAX)] | UnsetType = UNSET
    kv_hint: KvHint | UnsetType = UNSET
    stop: Annotated[list[Annotated[str, Meta(min_length=1, max_length=256)]], Meta(max_length=STOP_MAX)] | UnsetType = (
        UNSET
    )
    sampler: Sampler | UnsetType = UNSET

    def sampler_values(self) -> dict[str, float | int]:
        """The overrides that the task asks for, by name."""
        if not isinstance(self.sampler, Sampler):
            return {}
        given = structs.asdict(self.sampler)
        return {name: value for name, value in given.items() if value is not UNSET}


class Accepted(Struct, kw_only=True):
    """202 of `POST /v1/tasks`, sent once the task is on disk. `predicted_start_ms` is null rather than a guess."""

    task_id: str
    job_id: str
    queue_position: int
    predicted_start_ms: int | None
    backoff_ms: int = 0


class TaskResult(Struct, kw_only=True):
    """What a finished task produced. `tokens_out` counts the engine's tokens; times are in milliseconds.

    `text` is empty for an embedding or rerank, and `outputs` is there for nothing else; lists of tasks leave out both.
    """

    text: str | UnsetType = UNSET
    finish_reason: FinishReason
    tokens_in: int | None
    tokens_out: int
    decode_ms: int
    outputs: Outputs | UnsetType = UNSET


class TaskView(Struct, kw_only=True):
    """`GET /v1/tasks/:id`. `state` is accepting, waiting, running, ended or failed; times are in milliseconds."""

    task_id: str
    job_id: str
    state: str
    priority: Priority
    engine: Engine
    model_ref: str
    attempt: int
    age_ms: int
    deadline_remaining_ms: int
    queue_position: int | None = None
    predicted_start_ms: int | None = None
    queue_time_ms: int | None = None
    pool_id: str | None = None
    replica_id: str | None = None
    tokens_emitted: int | None = None
    kv_warmth: bool | None = None
    result: TaskResult | None = None
    error: ErrorEnvelope | None = None


class TaskPage(Struct, kw_only=True):
    """`GET /v1/tasks`: the caller's own tasks, newest first; `truncated` says that older ones were left out."""

    tasks: list[TaskView]
    truncated: bool
