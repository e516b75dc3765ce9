"""Clients that outlive every daemon: they submit until they are acked, and read each stream to its end over any crash.

All that is checked comes from what these clients were sent; nothing is asked of the daemon's own books.
"""

import http.client
import json
import queue
import random
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.support.daemon import Daemon, a_request
from tests.support.streams import Event, Stream, parse_events
from tests.support.waiting import wait_until

AGAIN_WITHIN_S = 60.0
BROKEN = (OSError, http.client.HTTPException)


@dataclass(frozen=True)
class Work:
    """What a task asks for; the same work has the same text, whoever does it and however often."""

    prompt: str
    seed: int
    max_tokens: int


@dataclass
class Told:
    """One acked task as its reader saw it, over all its connections."""

    task_id: str
    work: Work
    events: list[Event] = field(default_factory=list)
    connections: int = 0

    @property
    def is_over(self) -> bool:
        return bool(self.events) and self.events[-1].name in {"end", "error"}


class Crowd:
    """`submitters` and `readers` are threads. Finished streams are in `told`."""

    def __init__(self, daemon: Daemon, works: list[Work], *, submitters: int, readers: int) -> None:
        self._daemon = daemon
        self._works = works
        self._orders: queue.Queue[int | None] = queue.Queue()
        self._acked: queue.Queue[Told | None] = queue.Queue()
        self._lock = threading.Lock()
        self.acks = 0
        self.refusals: Counter[str] = Counter()
        self.told: list[Told] = []
        self.faults: list[BaseException] = []
        self._submitters = [threading.Thread(target=self._guard, args=(self._submit,)) for _ in range(submitters)]
        self._readers = [threading.Thread(target=self._guard, args=(self._read,)) for _ in range(readers)]
        for thread in (*self._submitters, *self._readers):
            thread.daemon = True
            thread.start()

    def order(self, count: int) -> None:
        """Let so many more tasks be submitted."""
        for _ in range(count):
            self._orders.put(1)

    def close(self) -> None:
        """All that was ordered is submitted and read to its end."""
        for _ in self._submitters:
            self._orders.put(None)
        for thread in self._submitters:
            thread.join()
        for _ in self._readers:
            self._acked.put(None)
        for thread in self._readers:
            thread.join()

    def _guard(self, work: Any) -> None:
        try:
            work()
        except BaseException as fault:
            self.faults.append(fault)
            raise

    def _submit(self) -> None:
        chance = random.Random(threading.get_ident())
        while self._orders.get() is not None:
            work = chance.choice(self._works)
            request = a_request(
                task_id=str(uuid.uuid4()),
                prompt=work.prompt,
                seed=work.seed,
                max_tokens=work.max_tokens,
                deadline_ms=600_000,
            )
            wait_until(lambda: self._is_acked(request), within_s=AGAIN_WITHIN_S, what="an ack")  # noqa: B023
            with self._lock:
                self.acks += 1
            self._acked.put(Told(str(request["task_id"]), work))

    def _is_acked(self, request: dict[str, object]) -> bool:
        """One try; a daemon that was killed promised nothing, and the same request is sent again."""
        try:
            reply = self._daemon.ask("POST", "/v1/tasks", request)
        except BROKEN:
            return False
        if reply.status != 202:
            with self._lock:
                self.refusals[f"{reply.status} {reply.json['code']}"] += 1
            assert reply.json["retriable"], reply.body
        return reply.status == 202

    def _read(self) -> None:
        while (told := self._acked.get()) is not None:
            one = told
            wait_until(lambda: self._is_read(one), within_s=AGAIN_WITHIN_S, what=f"the end of {one.task_id}")  # noqa: B023
            with self._lock:
                self.told.append(one)

    def _is_read(self, told: Told) -> bool:
        """Read on from where the last connection broke."""
        try:
            for event in self._events(told):
                if event.name != "metrics":
                    told.events.append(event)
        except BROKEN:
            return False
        return told.is_over

    def _events(self, told: Told) -> Iterator[Event]:
        connection = http.client.HTTPConnection("127.0.0.1", self._daemon.port, timeout=30)
        headers = {"Last-Event-ID": str(told.events[-1].seq)} if told.events else {}
        try:
            connection.request("GET", f"/v1/tasks/{told.task_id}/stream", headers=headers)
            response = connection.getresponse()
            told.connections += 1
            assert response.status == 200, (response.status, response.read())
            yield from _whole_events(response)
        finally:
            connection.close()


def _whole_events(response: http.client.HTTPResponse) -> Iterator[Event]:
    """Events that came whole: a kill may cut one off in its middle."""
    try:
        yield from parse_events(response)
    except (ValueError, KeyError, json.JSONDecodeError) as error:
        raise http.client.IncompleteRead(b"") from error


def judge(told: list[Told], texts: dict[Work, str]) -> Counter[str]:
    """Each stream without gap, repeat or second end, and with the text of an undisturbed run; counts what happened."""
    found: Counter[str] = Counter()
    errors = [one.events[-1] for one in told if one.events[-1].name == "error"]
    assert errors == []
    for one in told:
        stream = Stream(one.events).check()
        assert stream.text == texts[one.work], one.task_id
        found["streams resumed"] += one.connections > 1
        found["resumed in mid-stream"] += one.connections > 1 and len(one.events) > 3
        found["tokens"] += len(one.events) - 2
    return found
