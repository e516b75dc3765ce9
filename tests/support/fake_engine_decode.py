"""The model of the fake engine: words made from prompt and seed, tokens to be counted, and slots to be taken."""

import asyncio
import re
import zlib
from collections.abc import Sequence
from typing import Any

BOS = 1
VOCABULARY = 49_152
_PIECE = re.compile(r"\s*\S{1,6}|\s+$")
_WORDS = (
    *(" the", " a", " of", " and", " to", " river", " light", " stone", " who", " never", " came", " back", " slowly"),
    *(" naïve", " café", " 日本", " 🙂", ",", ".", "\n", " it", " was", " said", " again", " under", " every"),
    *(" night", ' "quoted"', " back\\slash", " data:", "\n\n", " tab\there", " 7"),
)  # fmt: skip


def tokenize(text: str) -> list[int]:
    """Ids of the pieces of a text, a start token first: never more than bytes + 1."""
    return [BOS, *(2 + zlib.crc32(piece.encode()) % (VOCABULARY - 2) for piece in _PIECE.findall(text))]


def word(prompt: str, seed: int, number: int) -> str:
    """The `number`-th token of the answer: the same on every machine, and another one for another prompt or seed."""
    return _WORDS[zlib.crc32(f"{seed}\0{number}\0{prompt}".encode(errors="replace")) % len(_WORDS)]


def split_at_stop(text: str, stops: Sequence[str]) -> tuple[str, str, str | None]:
    """What may be sent, what is held back because a stop string may have begun, and the stop string that was met."""
    hits = [(text.find(stop), stop) for stop in stops if stop and stop in text]
    if hits:
        at, stop = min(hits)
        return text[:at], "", stop
    for length in range(min(len(text), max((len(stop) for stop in stops), default=0)), 0, -1):
        if any(stop.startswith(text[-length:]) for stop in stops):
            return text[:-length], text[-length:], None
    return text, "", None


class Slot:
    """One slot and what is left in its cache."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_busy = False
        self.task = -1
        self.prompt: list[int] = []
        self.cached = 0
        self.decoded = 0
        self.remaining = 0

    def begin(self, prompt: list[int], *, task: int, remaining: int, may_reuse: bool) -> None:
        """Take a prompt in; what it shares with the one before is not computed again, except its last token."""
        shared = 0
        while may_reuse and shared < min(len(prompt) - 1, len(self.prompt)) and prompt[shared] == self.prompt[shared]:
            shared += 1
        self.task, self.prompt, self.cached, self.decoded, self.remaining = task, prompt, shared, 0, remaining

    def report(self, ctx: int) -> dict[str, Any]:
        """Its entry in GET /slots."""
        known: dict[str, Any] = {"id": self.number, "n_ctx": ctx, "speculative": False, "is_processing": self.is_busy}
        if self.task < 0:
            return known
        following: dict[str, Any] = {"has_next_token": self.is_busy, "has_new_line": False}
        following |= {"n_remain": self.remaining - self.decoded, "n_decoded": self.decoded}
        known |= {"id_task": self.task, "n_prompt_tokens": len(self.prompt)}
        known |= {"n_prompt_tokens_processed": len(self.prompt) - self.cached, "n_prompt_tokens_cache": self.cached}
        return known | {"next_token": [following]}


class Slots:
    """All slots, and those who wait for one (first come, first served)."""

    def __init__(self, count: int) -> None:
        self.all = [Slot(number) for number in range(count)]
        self.waiting = 0
        self._freed = asyncio.Condition()

    async def take(self, wanted: int) -> Slot:
        """A free slot; the one `wanted`, unless there is no such one, which the real server passes over in silence."""
        candidates = self.all[wanted : wanted + 1] if wanted >= 0 else []
        candidates = candidates or self.all
        self.waiting += 1
        try:
            async with self._freed:
                await self._freed.wait_for(lambda: any(not slot.is_busy for slot in candidates))
                slot = next(slot for slot in candidates if not slot.is_busy)
                slot.is_busy = True
                return slot
        finally:
            self.waiting -= 1

    async def give(self, slot: Slot) -> None:
        """Back again."""
        slot.is_busy = False
        async with self._freed:
            self._freed.notify_all()
