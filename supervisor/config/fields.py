"""The kinds of values in a config: grammars, paths, digests, devices. One value each; what must agree is elsewhere."""

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    Strict,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from supervisor.config.problems import Loc
from supervisor.wire.tasks import CTX_MAX, DEADLINE_MS_MAX, MODEL_REF_PATTERN

ELIDED_DIGEST = "sha256:..."
"""Stands for a digest still to be filled in; a pool that names it loads, and can never become Ready."""

DEVICE_INDEX_MAX = 1023
PATH_BYTES_MAX = 4095
SOCKET_PATH_BYTES_MAX = 107
"""A Unix socket address holds 108 bytes with its final NUL (unix(7))."""

_DIGEST = "sha256:[0-9a-f]{64}"
_UUID = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
# The last form is how drivers before R470 name a MIG instance.
_DEVICE = rf"(GPU|MIG)-{_UUID}|MIG-GPU-{_UUID}/[0-9]+/[0-9]+"
_MODEL_REF = MODEL_REF_PATTERN.removeprefix("^").removesuffix(r"\Z")


class Section(BaseModel):
    """One mapping of the config: frozen, and unknown keys are errors (ORCH-3030)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule between several values that does not hold; `loc` is relative to the section that checks it."""

    loc: Loc
    message: str


def refuse(section: str, findings: list[Finding]) -> None:
    """Raise a ValidationError that points at each finding's own place, or do nothing when there is none."""
    details = [
        InitErrorDetails(
            type=PydanticCustomError("conflict", "{text}", {"text": finding.message}), loc=finding.loc, input=None
        )
        for finding in findings
    ]
    if details:
        raise ValidationError.from_exception_data(section, details)


@dataclass(frozen=True, slots=True)
class Grammar:
    """A text that matches `pattern` as a whole. `meaning` completes the sentence "... is not ..."."""

    pattern: str
    meaning: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401  (pydantic's protocol)
        """Check after the value is known to be a string."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """A string with the pattern, for editors."""
        return handler(schema) | {"pattern": f"^({self.pattern})$"}

    def _check(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise wrong(f"{quoted(text)} is not {self.meaning}")
        return text


def wrong(text: str) -> PydanticCustomError:
    """The error for a single bad value."""
    return PydanticCustomError("value", "{text}", {"text": text})


def quoted(value: str) -> str:
    """A stranger's text in a message, bounded."""
    return repr(value if len(value) <= 60 else value[:57] + "...")


def _resolve_path(path: Path, info: ValidationInfo) -> Path:
    """Relative paths lie beside the config file: the folder comes in the validation context as `base`."""
    text = str(path)
    if "\0" in text or len(os.fsencode(text)) > PATH_BYTES_MAX:
        raise wrong("is not a usable path")
    if text.startswith("~"):
        raise wrong(f"{quoted(text)}: '~' is not expanded here; write the whole path")
    base = (info.context or {}).get("base")
    return Path(os.path.normpath(base / path)) if base is not None else path


def _check_socket(path: Path) -> Path:
    size = len(os.fsencode(path))
    if size > SOCKET_PATH_BYTES_MAX:
        raise wrong(f"the socket path has {size} bytes, and at most {SOCKET_PATH_BYTES_MAX} are possible")
    return path


def _resolve_program(program: str, info: ValidationInfo) -> str:
    """A bare name is looked up in PATH when the engine starts; anything with a slash is a path."""
    if "/" in program or program.startswith("~"):
        return str(_resolve_path(Path(program), info))
    if not program or "\0" in program:
        raise wrong("is not the name of a program")
    return program


def _check_host(host: str) -> str:
    if host == "localhost":
        return host
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise wrong(f"{quoted(host)} is not an IP address (or localhost)") from None
    return host


def _check_device(value: object) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= DEVICE_INDEX_MAX:
        return value
    if isinstance(value, str) and re.fullmatch(_DEVICE, value):
        return value
    raise wrong(f"{quoted(str(value))} is neither a GPU index (0, 1, ...) nor a UUID (GPU-... or MIG-...)")


def _check_text(text: str) -> str:
    if "\0" in text:
        raise wrong("must not contain a NUL character")
    return text


PoolId = Annotated[str, Grammar(r"[a-z0-9][a-z0-9._-]{0,62}", "a pool id: [a-z0-9][a-z0-9._-]{0,62}")]
Digest = Annotated[str, Grammar(_DIGEST, "a digest: sha256: and 64 lower-case hex digits")]
ModelRef = Annotated[str, Grammar(_MODEL_REF, "a model: sha256:<64 hex digits>, a catalogue name or repo:org/name")]
PoolModelRef = Annotated[
    str,
    Grammar(
        rf"{_MODEL_REF}|{re.escape(ELIDED_DIGEST)}",
        "a model: sha256:<64 hex digits>, a catalogue name or repo:org/name",
    ),
]
Quant = Annotated[str, Grammar(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}", "the name of a quantisation, like q4_k_m")]
ProfileVersion = Annotated[str, Grammar(r"[a-z0-9][a-z0-9._-]{0,31}", "a version of a sampler profile, like v1")]
EnvName = Annotated[str, Grammar(r"[A-Za-z_][A-Za-z0-9_]{0,127}", "the name of an environment variable")]

Text = Annotated[str, AfterValidator(_check_text)]
Host = Annotated[str, AfterValidator(_check_host)]
FilePath = Annotated[Path, AfterValidator(_resolve_path)]
SocketPath = Annotated[Path, AfterValidator(_resolve_path), AfterValidator(_check_socket)]
Program = Annotated[str, AfterValidator(_resolve_program)]
Device = Annotated[
    int | str,
    PlainValidator(_check_device),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": DEVICE_INDEX_MAX},
                {"type": "string", "pattern": f"^({_DEVICE})$"},
            ]
        }
    ),
]

# Strict: YAML has real numbers and booleans, and "5", yes and true are none of them here.
Flag = Annotated[bool, Strict()]
Count = Annotated[int, Strict()]
Ratio = Annotated[float, Strict(), Field(gt=0)]
Ctx = Annotated[int, Strict(), Field(ge=1, le=CTX_MAX)]
DurationMs = Annotated[int, Strict(), Field(ge=1, le=DEADLINE_MS_MAX)]
GraceMs = Annotated[int, Strict(), Field(ge=-1, le=DEADLINE_MS_MAX)]
