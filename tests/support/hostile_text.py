"""Texts that break careless framing, escaping or encoding, and a reader of event streams by the letter of the norm."""

import json
import random
import re
from typing import Any

_FRAGMENTS = (
    *("\n\ndata: ", "data:", "event: end\n", "id: 9\n", "\r\n\r\n", "\n", "\r", "\0", ":", ": comment\n", "retry: 1\n"),
    *('"', "\\", '\\"', "\\n", "\\u0000", '"}\n\n', '{"t":"', "</script>", "]]>", "%0d%0a", "\x1b[2J", "\x7f", "\x85"),
    *(
        "\u2028",
        "\u2029",
        "\u202e",
        "\u200b",
        "\ufeff",
        "\ufffe",
        "\uffff",
        "\ufffd",
        "\U0001f600",
        "\U0010ffff",
        "e\u0301",
    ),
    *(
        "<|im_start|>",
        "<|endoftext|>",
        "</s>",
        "[DONE]",
        "data: [DONE]\n\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "0\r\n\r\n",
        "5\r\n",
    ),
    *("a", " ", "naïve", "日本", "\t", "\v", "\f", "NaN", "null", "%s", "${x}", "{{7*7}}", "'; DROP TABLE t; --"),
)
_LINE_END = re.compile(r"\r\n|\n|\r")


def hostile_strings(count: int, seed: int) -> list[str]:
    """So many different texts, the same for the same seed; none is empty."""
    chance = random.Random(seed)
    found: dict[str, None] = dict.fromkeys(_FRAGMENTS)
    while len(found) < count:
        text = "".join(chance.choice(_FRAGMENTS) for _ in range(chance.randint(1, 6)))
        if chance.random() < 0.3:
            text += chr(chance.choice((chance.randrange(1, 0xD800), chance.randrange(0xE000, 0x110000))))
        found[text] = None
    return list(found)[:count]


def read_event_stream(body: bytes) -> list[tuple[str, str, Any]]:
    """(last event id, event, data as JSON) as WHATWG HTML §9.2.6 reads a stream: CR, LF and CRLF all end a line."""
    events: list[tuple[str, str, Any]] = []
    last_id, name = "", ""
    data: list[str] = []
    lines = _LINE_END.split(body.decode("utf-8").removeprefix("\ufeff"))
    for line in lines[:-1]:
        if not line:
            if data:
                events.append((last_id, name or "message", json.loads("\n".join(data))))
            name, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
        elif field == "id" and "\0" not in value:
            last_id = value
    return events
