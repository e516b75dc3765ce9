"""The daemon's log at its end: what is queued is written, and a sink that nobody reads holds up nothing."""

import contextlib
import io
import logging
import os
import threading
from collections.abc import Iterator

import pytest

from supervisor.runtime.json_log import QUEUE_MAX, JsonLog
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def root() -> Iterator[logging.Logger]:
    """The root logger, as it was afterwards."""
    logger = logging.getLogger()
    before, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = before
    logger.setLevel(level)


def test_what_is_queued_is_written_before_it_stops(root: logging.Logger) -> None:
    sink = io.StringIO()
    log = JsonLog({}, sink=sink)
    log.start()
    for number in range(100):
        root.info("line %d", number)

    assert log.stop()
    assert len(sink.getvalue().splitlines()) == 100


@pytest.mark.parametrize("lines", [1, QUEUE_MAX + 10])
@pytest.mark.fault("F46")
def test_a_sink_that_nobody_reads_does_not_hold_up_the_end(root: logging.Logger, lines: int) -> None:
    read_end, write_end = os.pipe()
    filling = os.open(f"/proc/self/fd/{write_end}", os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while os.write(filling, b"x"):
            pass
    sink = open(write_end, "w", buffering=1)  # noqa: PTH123, SIM115  (a descriptor, closed below)
    log = JsonLog({}, sink=sink, flush_s=0.2)
    log.start()
    for number in range(lines):
        root.info("line %d", number)

    assert not log.stop()
    os.close(filling)
    reading = threading.Thread(target=lambda: [None for _ in iter(lambda: os.read(read_end, 1 << 16), b"")])
    reading.start()
    wait_until(log.stop, what="the end of a log that is read after all")
    sink.close()
    reading.join()
    os.close(read_end)
