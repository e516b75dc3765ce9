"""A page of documentation as examples: what to type, what it prints, and what has to be so before.

A fenced `sh` block is typed. The fenced block right behind it, if there is one, is what that prints: `http` (status,
headers, body), `json`, `sse` or `text`. A comment `<!-- example: WORDS -->` before it names what the reader has to
imagine, such as a full queue. Other fenced blocks are not examples.
"""

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SITUATION = re.compile(r"<!-- example: ([a-z ]+) -->\s*\Z")
ANSWERS = {"http", "json", "sse", "text"}


@dataclass(frozen=True)
class Example:
    """`kind` and `answer` are empty where nothing is printed; `line` is where it stands on the page."""

    line: int
    command: str
    kind: str = ""
    answer: str = ""
    situation: str = ""


def read_examples(path: Path) -> list[Example]:
    """The examples of a page, in order."""
    text = path.read_text(encoding="utf-8")
    blocks = list(_BLOCK.finditer(text))
    followers = {before.end(): after for before, after in pairwise(blocks)}
    examples = []
    for block in blocks:
        if block[1] != "sh":
            continue
        example = Example(text.count("\n", 0, block.start()) + 2, block[2])
        after = followers.get(block.end())
        has_answer = after is not None and after[1] in ANSWERS and not text[block.end() : after.start()].strip()
        found = _SITUATION.search(text[: block.start()])
        examples.append(
            Example(
                example.line,
                example.command,
                kind=after[1] if after is not None and has_answer else "",
                answer=after[2] if after is not None and has_answer else "",
                situation=found[1] if found else "",
            )
        )
    return examples


def python_blocks(path: Path) -> list[str]:
    """The fenced `python` blocks of a page, in order."""
    return [block[2] for block in _BLOCK.finditer(path.read_text(encoding="utf-8")) if block[1] == "python"]
