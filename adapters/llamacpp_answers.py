"""Reads the control answers of llama.cpp: health, props, models, slots, tokens and metrics (builds 11434 to 11549).

Every reader takes a complete body that the runtime has bounded, and either gives a fact or raises BadAnswerError. A
foreign process on the port must not pass for an engine, so shapes are checked and nothing is guessed.
"""

from collections.abc import Mapping
from typing import NoReturn, TypeVar

import msgspec

from adapters.base import BadAnswerError, EngineProps, Liveness, SlotState

BUILD_TAG = "build="
"""Prefix of the model tag in which a launcher states its build, where the engine itself knows none."""

_T = TypeVar("_T")
_NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_UNKNOWN_BUILD = "b0-"


class _Health(msgspec.Struct):
    status: str


class _Settings(msgspec.Struct):
    n_ctx: int


class _Props(msgspec.Struct):
    default_generation_settings: _Settings
    total_slots: int
    model_path: str | None = None
    model_alias: str | None = None
    build_info: str = ""


class _Model(msgspec.Struct):
    id: str
    tags: list[str] = []


class _Models(msgspec.Struct):
    data: list[_Model]


class _Slot(msgspec.Struct):
    id: int
    is_processing: bool


class _Tokens(msgspec.Struct):
    tokens: list[int]


_health = msgspec.json.Decoder(_Health)
_props = msgspec.json.Decoder(_Props)
_models = msgspec.json.Decoder(_Models)
_slots = msgspec.json.Decoder(list[_Slot])
_tokens = msgspec.json.Decoder(_Tokens)

_METRIC_NAMES: Mapping[str, str] = {
    "llamacpp:requests_processing": "requests_processing",
    "llamacpp:requests_deferred": "requests_waiting",
    "llamacpp:kv_cache_usage_ratio": "kv_usage_ratio",
    "llamacpp:prompt_tokens_total": "tokens_in_total",
    "llamacpp:tokens_predicted_total": "tokens_out_total",
}


def read_health(status: int, body: bytes) -> Liveness:
    """Ready only for llama.cpp's own words: another server's 200 is not an engine."""
    if status == 503:
        return Liveness.LOADING
    if status != 200:
        return Liveness.DEAD
    try:
        said = _health.decode(body).status
    except _NOT_JSON:
        return Liveness.DEAD
    return Liveness.READY if said == "ok" else Liveness.DEAD


def read_props(props: bytes, models: bytes) -> EngineProps:
    """Slots, context per slot and version. The version is the build, else the launcher's tag, else 'unknown'."""
    said = _decoded(_props, props, "/props")
    tags = [tag for model in _decoded(_models, models, "/v1/models").data for tag in model.tags]
    if said.total_slots < 1 or said.default_generation_settings.n_ctx < 1:
        _refuse("/props")
    return EngineProps(
        engine_version=_version(said.build_info, tags),
        slots=said.total_slots,
        ctx_per_slot=said.default_generation_settings.n_ctx,
        model_path=said.model_path or None,
        model_alias=said.model_alias or None,
    )


def _version(build_info: str, tags: list[str]) -> str:
    """`b11434-unknown` is build 11434 of an unknown commit; `b0-…` is a build that does not know itself."""
    if build_info and not build_info.startswith(_UNKNOWN_BUILD):
        return build_info.removesuffix("-unknown")
    stated = [tag.removeprefix(BUILD_TAG) for tag in tags if tag.startswith(BUILD_TAG)]
    return stated[0] if stated and stated[0] else "unknown"


def read_slots(body: bytes) -> tuple[SlotState, ...]:
    """One state per slot, in the engine's order."""
    return tuple(SlotState(slot=slot.id, is_busy=slot.is_processing) for slot in _decoded(_slots, body, "/slots"))


def read_tokenize(body: bytes) -> int:
    """The number of tokens."""
    return len(_decoded(_tokens, body, "/tokenize").tokens)


def read_metrics(body: bytes) -> Mapping[str, float]:
    """The known series under engine-neutral names; others are dropped, an unreadable value is an error."""
    values: dict[str, float] = {}
    for line in body.decode("utf-8", "replace").split("\n"):
        name, _, value = line.strip().partition(" ")
        if (neutral := _METRIC_NAMES.get(name)) is not None:
            values[neutral] = _number(value)
    if not values:
        _refuse("/metrics")
    return values


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        _refuse("/metrics")


def _decoded(decoder: msgspec.json.Decoder[_T], body: bytes, path: str) -> _T:
    try:
        return decoder.decode(body)
    except _NOT_JSON:
        _refuse(path)


def _refuse(path: str) -> NoReturn:
    msg = f"the engine's answer to {path} is not that of llama.cpp"
    raise BadAnswerError(msg)
