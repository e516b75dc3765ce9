"""The daemon's log: one JSON object per line on standard error, written by a thread, so that no sink blocks the loop.

Facts only, with their ids; prompts never. Where the sink is slower than the log, lines are dropped and counted. Fields
of a record are given as `extra={...}`; control characters are escaped by JSON.
"""

import contextlib
import logging
import queue
import sys
import time
from collections.abc import Iterator, Mapping
from logging.handlers import QueueHandler, QueueListener
from typing import TextIO

import msgspec
from prometheus_client.core import CounterMetricFamily

QUEUE_MAX = 10_000
FLUSH_S = 2.0
"""So long the last lines may take. A sink that nobody reads must not hold up a stop, or the next image."""
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_encode = msgspec.json.Encoder(enc_hook=str).encode


class JsonFormatter(logging.Formatter):
    """One record as one line. `constant` fields stand in every line."""

    def __init__(self, constant: Mapping[str, object]) -> None:
        super().__init__()
        self._constant = dict(constant)

    def format(self, record: logging.LogRecord) -> str:
        """`time` is UTC, RFC 3339, in milliseconds."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **self._constant,
        }
        line.update({name: value for name, value in record.__dict__.items() if name not in _STANDARD})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line).decode()


class _DroppingHandler(QueueHandler):
    """Puts records in the queue; counts those that find it full."""

    def __init__(self, records: "queue.Queue[logging.LogRecord | None]") -> None:
        super().__init__(records)
        self.dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Leave the record as it is: the thread formats it."""
        return record

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802  (the base class's name)
        """The queue is full."""
        self.dropped += 1


class _Writer(QueueListener):
    """The thread that writes."""

    def __init__(self, records: "queue.Queue[logging.LogRecord | None]", out: logging.Handler) -> None:
        super().__init__(records, out)
        self._records = records

    def stop_within(self, seconds: float) -> bool:
        """Whether all was written in that time. The thread goes on where not."""
        until_s = time.monotonic() + seconds
        with contextlib.suppress(queue.Full):
            self._records.put(None, timeout=seconds)  # as `enqueue_sentinel`, which does not wait for room
        thread = self._thread
        if thread is None:
            return True
        thread.join(max(0.0, until_s - time.monotonic()))
        return not thread.is_alive()


class JsonLog:
    """The log of one daemon. `constant` fields stand in every line; `stop` writes what is queued."""

    def __init__(
        self,
        constant: Mapping[str, object],
        *,
        sink: TextIO = sys.stderr,
        level: int = logging.INFO,
        flush_s: float = FLUSH_S,
    ) -> None:
        records: queue.Queue[logging.LogRecord | None] = queue.Queue(QUEUE_MAX)
        self._handler = _DroppingHandler(records)
        out = logging.StreamHandler(sink)
        out.setFormatter(JsonFormatter(constant))
        self._listener = _Writer(records, out)
        self._flush_s = flush_s
        self._level = level
        self._is_started = False

    @property
    def dropped(self) -> int:
        """Lines that were not written."""
        return self._handler.dropped

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The series `log_lines_dropped_total`."""
        family = CounterMetricFamily(
            "log_lines_dropped", "Lines for which the log had no room.", labels=("engine", "engine_version")
        )
        family.add_metric(("none", "none"), self.dropped)
        yield family

    def start(self) -> None:
        """Become the root logger's only handler."""
        root = logging.getLogger()
        root.handlers[:] = [self._handler]
        root.setLevel(self._level)
        logging.getLogger("asyncio").setLevel(logging.WARNING)
        self._listener.start()
        self._is_started = True

    def stop(self) -> bool:
        """Write what is queued and end the thread, within `flush_s`; whether that was done. Harmless if not started."""
        return self._listener.stop_within(self._flush_s) if self._is_started else True
