"""Follows a task's stream to its end over connections that may break. Decides when to connect again and when to stop.

The events come out once each and in order: a new connection asks for what follows the last event that was seen.
"""

import time
from collections.abc import Callable, Iterator, Sequence

from orchctl.client import Client
from orchctl.exits import RefusedError, UnreachableError, VerbError
from orchctl.sse import Event

TERMINAL_EVENTS = ("end", "error")
RETRY_DELAYS_S = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Waits before each new connection; they start over whenever an event arrives. In sum: a restart of the daemon."""


def follow(
    client: Client,
    task_id: str,
    *,
    delays_s: Sequence[float] = RETRY_DELAYS_S,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Event]:
    """The events of a task up to and with its terminal one. Raises VerbError once all tries are used up."""
    last_id: str | None = None
    tries = 0
    while True:
        lost: VerbError = UnreachableError("the stream of the task ended early", "see whether the daemon runs")
        try:
            for event in client.events(task_id, last_id):
                tries = 0
                last_id = event.id if event.id is not None else last_id
                yield event
                if event.name in TERMINAL_EVENTS:
                    return
        except UnreachableError as error:
            lost = error
        except RefusedError as error:
            if not error.envelope.retriable:
                raise
            lost = error
        if tries == len(delays_s):
            raise lost
        sleep(delays_s[tries])
        tries += 1
