"""What the fake engine does wrong, as one record: read by the engine from JSON, written by a test.

A script is JSON, or the path of a file with JSON that is read again for every request, so a test can change its mind
while the engine runs. A prompt can command too: `[[WORD@K]]` makes WORD happen after K tokens, for tests where the task
and not the engine is to blame.
"""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

FAULTS = frozenset(
    {
        "die",  # the process kills itself
        "eat",  # takes memory until the kernel ends it
        "abort",  # SIGABRT, after llama.cpp's words about device memory
        "exit",  # status 3, without a word
        "freeze",  # SIGSTOP: the process lives and answers nothing
        "hang",  # no more tokens on this stream; everything else goes on
        "cut",  # the connection is closed without the last chunk
        "reset",  # the connection is reset
        "early",  # the body ends in due form, without the event that says so
        "error",  # an error event
        "garbage",  # an event that is not JSON
        "half_json",  # an event that stops in the middle
        "bad_utf8",  # an event whose text is not UTF-8
        "long_line",  # one event of 10 MB
        "bad_chunk",  # a chunk size that is no number
        "double_end",  # the last event comes twice
    }
)
_COMMANDS = FAULTS | {"eos", "slow_ms"}
_COMMAND = re.compile(r"\[\[([a-z0-9_]+)@(\d{1,6})\]\]")


@dataclasses.dataclass(frozen=True)
class Script:
    """Behaviour; the default is a good engine. Times are seconds.

    Read at the start only: `exit_rc` and `exit_text` (the end, before anything else), `strays` (`same_group` or
    `own_session`: processes left behind, their pids written to `strays_path`), `ignore_sigterm`, `version`, `slots`,
    `ctx_per_slot`.
    """

    exit_rc: int | None = None
    exit_text: str = ""
    strays: tuple[str, ...] = ()
    strays_path: str | None = None
    ignore_sigterm: bool = False
    version: str = "b11434-fake"
    slots: int | None = None
    ctx_per_slot: int | None = None
    ready_after_s: float = 0.0
    never_ready: bool = False
    health_hangs: bool = False
    ignore_key: bool = False
    slot_sticks: bool = False  # decodes on for a client that has left
    first_token_s: float = 0.0
    token_s: float = 0.0
    tokens: tuple[str, ...] | None = None  # said instead of words made from prompt and seed
    eos_after: int | None = None
    fault: str | None = None
    fault_at: int = 0
    logs_prompts: bool = False  # as they are, line breaks included
    once_path: str | None = None  # a fault happens only by using up this file
    answers: dict[str, Any] = dataclasses.field(default_factory=dict)  # {path: {"status": 500, "body": "..."}}
    by_model: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)  # {file name: what differs for it}

    def __post_init__(self) -> None:
        """A script that cannot be meant is an error of the test."""
        if self.fault is not None and self.fault not in FAULTS:
            raise ValueError(f"no such fault: {self.fault}")
        object.__setattr__(self, "strays", tuple(self.strays))
        if self.tokens is not None:
            object.__setattr__(self, "tokens", tuple(self.tokens))

    def to_json(self) -> str:
        """Only what differs from a good engine."""
        every = dataclasses.asdict(self)
        return json.dumps({key: value for key, value in every.items() if value != getattr(GOOD, key)})

    def for_model(self, path: str) -> "Script":
        """The script of an engine that was given this model file."""
        return dataclasses.replace(self, **self.by_model.get(Path(path).name, {}))

    def for_prompt(self, prompt: str) -> "Script":
        """The script with the prompt's own commands in it."""
        changes: dict[str, Any] = {}
        for word, number in _COMMAND.findall(prompt):
            if word not in _COMMANDS:
                raise ValueError(f"no such command: {word}")
            if word == "eos":
                changes["eos_after"] = int(number)
            elif word == "slow_ms":
                changes["token_s"] = int(number) / 1000
            else:
                changes |= {"fault": word, "fault_at": int(number)}
        return dataclasses.replace(self, **changes)

    def take_fault(self, tokens: int) -> str | None:
        """The fault that is due after so many tokens, and only once where it is to happen once."""
        if self.fault is None or self.fault_at != tokens:
            return None
        if self.once_path is not None:
            try:
                Path(self.once_path).unlink()
            except FileNotFoundError:
                return None
        return self.fault


GOOD = Script()


def load_script(source: str | None) -> Script:
    """From JSON, or from a file with JSON; ValueError or TypeError for what is no script."""
    if not source:
        return GOOD
    if not source.lstrip().startswith("{"):
        source = Path(source).read_text(encoding="utf-8")
    return Script(**json.loads(source))
