"""How many tokens the longest piece of a task has, as a running engine counts them (ORCH-3015)."""

import asyncio

from adapters.base import Adapter
from supervisor.core.quotas import PROMPT_TOKENS_EXTRA
from supervisor.core.tasks import Task
from supervisor.runtime.calls import pieces_of
from supervisor.runtime.engine_http import EngineHttp
from supervisor.runtime.probes import TOKENIZE_TIMEOUT_S, ProbeError, count_tokens
from supervisor.runtime.task_codec import read_body


async def count_longest(
    http: EngineHttp, adapter: Adapter, task: Task, ctx_per_slot: int, timeout_s: float = TOKENIZE_TIMEOUT_S
) -> int:
    """Tokens of the piece that has the most of them. Raises ProbeError, also where the counting takes too long.

    The one with the most bytes is counted, and then those that could be longer and whose bytes do not show that they
    fit: a task may have hundreds of pieces.
    """
    part = read_body(task)
    pieces = sorted(pieces_of(task.workload, part.prompt, part.inputs), key=_tokens_max, reverse=True)
    room = min(ctx_per_slot, task.ctx) - task.max_tokens
    longest = 0
    try:
        async with asyncio.timeout(timeout_s):
            for piece in pieces:
                if longest and _tokens_max(piece) <= max(longest, room):
                    break
                longest = max(longest, await count_tokens(http, adapter, piece, timeout_s))
    except TimeoutError:
        raise ProbeError(f"the engine counted the tokens of a task for more than {timeout_s:g} s") from None
    return longest


def _tokens_max(piece: str) -> int:
    return len(piece.encode()) + PROMPT_TOKENS_EXTRA
