"""The typed error codes (spec §6.2, authoritative) and the finer reasons. Standard library only, for the core."""

from enum import StrEnum


class Code(StrEnum):
    """The nine error codes of the spec; nothing else is ever sent as `code`."""

    ADMISSION_REJECT = "ADMISSION_REJECT"
    QUEUE_FULL_DROP_LRU = "QUEUE_FULL_DROP_LRU"
    INVALID_PARAMS = "INVALID_PARAMS"
    POOL_UNREADY = "POOL_UNREADY"
    POOL_UNAVAILABLE = "POOL_UNAVAILABLE"
    REPLICA_EXHAUSTED = "REPLICA_EXHAUSTED"
    DECODE_TIMEOUT = "DECODE_TIMEOUT"
    WORKER_RESET = "WORKER_RESET"
    INTERNAL = "INTERNAL"


RETRIABLE = frozenset(Code) - {Code.INVALID_PARAMS, Code.INTERNAL}
"""Codes a client may retry as they stand; a poison task carries WORKER_RESET with `retriable: false`."""


class Reason(StrEnum):
    """The finer cause behind a code; additive, never renamed."""

    AUTH = "auth"
    BODY_TOO_LARGE = "body_too_large"
    BUSY = "busy"
    CONFIG = "config"
    CONFLICT = "conflict"
    CTX = "ctx"
    DEADLINE = "deadline"
    DETERMINISM = "determinism"
    DEVICE = "device"
    DISK = "disk"
    DRAINING = "draining"
    EJECTED = "ejected"
    ENGINE = "engine"
    EXPIRED = "expired"
    FIELD = "field"
    GPU_LOST = "gpu_lost"
    HEADERS_TOO_LARGE = "headers_too_large"
    JSON = "json"
    LEASED = "leased"
    LOADING = "loading"
    MEDIA_TYPE = "media_type"
    METHOD = "method"
    MODEL = "model"
    NO_GPU = "no_gpu"
    NOT_FOUND = "not_found"
    POISON = "poison"
    POLICY = "policy"
    QUEUE_BYTES = "queue_bytes"
    QUEUE_FULL = "queue_full"
    QUOTA = "quota"
    RATE_LIMIT = "rate_limit"
    RESTART = "restart"
    SCOPE = "scope"
    SHUTDOWN = "shutdown"
    STALLED = "stalled"
    TIMEOUT = "timeout"
    TOKEN_BUDGET = "token_budget"  # noqa: S105  (a budget of LLM tokens)
    URL_TOO_LONG = "url_too_long"
    WALL = "wall"
    WORKLOAD = "workload"


class Priority(StrEnum):
    """Priority classes of the spec, in the order in which they are served."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


class Scope(StrEnum):
    """What a key may do: use the data plane, change pools, read metrics."""

    DATA = "data"
    CONTROL = "control"
    METRICS = "metrics"


class QueueOrder(StrEnum):
    """Who goes first inside a priority class: the oldest task, or each tenant in turn (deficit round robin)."""

    FIFO = "fifo"
    FAIR = "fair"


class Determinism(StrEnum):
    """Whether a token stream must be reproducible byte for byte (ORCH-3045)."""

    STRICT = "strict"
    BEST_EFFORT = "best_effort"


class Workload(StrEnum):
    """What is asked of the model."""

    COMPLETION = "completion"
    EMBEDDING = "embedding"
    RERANK = "rerank"


class Engine(StrEnum):
    """The engines of the spec §5."""

    LLAMACPP = "llamacpp"
    VLLM = "vllm"
    TGI = "tgi"
    TRITON = "triton"


class KvHint(StrEnum):
    """What a task hopes of the KV cache of its session."""

    REUSE = "reuse"
    COLD = "cold"


class FullPolicy(StrEnum):
    """What a full queue does with a newcomer (ORCH-3005)."""

    REJECT = "reject"
    DROP_LRU = "drop-lru"
    SHED_LOW_PRIORITY = "shed-low-priority"


class FinishReason(StrEnum):
    """Why a stream ended without an error."""

    STOP = "stop"
    LENGTH = "length"
    CANCELED = "canceled"
