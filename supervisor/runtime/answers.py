"""The callers that wait for an answer of the core: one future each, by ticket."""

import asyncio

from supervisor.core.effects import AnswerAccepted, AnswerCancelled, AnswerLease, AnswerRefused, AnswerRollout
from supervisor.core.refusals import Refused
from supervisor.runtime.fresh_ids import fresh_id

Answer = AnswerAccepted | AnswerLease | AnswerCancelled | AnswerRollout | Refused

_CHANGE = "change:"


def change_ticket() -> str:
    """The ticket of an operator's change: its refusal is no refused task."""
    return _CHANGE + fresh_id()


def is_of_change(ticket: str) -> bool:
    """Whether an operator asked."""
    return ticket.startswith(_CHANGE)


class Answers:
    """Hands each answer to the one who asked. A caller who left is no longer there, and that is fine."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[str, asyncio.Future[Answer]] = {}

    def expect(self, ticket: str) -> asyncio.Future[Answer]:
        """The future of an answer; register before the event is posted."""
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting[ticket] = future
        future.add_done_callback(lambda _: self._waiting.pop(ticket, None))
        return future

    def give(self, effect: AnswerAccepted | AnswerLease | AnswerRefused | AnswerCancelled | AnswerRollout) -> None:
        """Deliver an answer."""
        future = self._waiting.get(effect.ticket)
        if future is not None and not future.done():
            future.set_result(effect.refused if isinstance(effect, AnswerRefused) else effect)
