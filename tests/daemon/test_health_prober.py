"""The watch over a daemon's health sees a daemon that stands still, and only that."""

import os
import signal
import threading

from tests.daemon.conftest import MakeDaemon
from tests.support.health_prober import HEALTH_WITHIN_S, HealthProber
from tests.support.pools import a_fake_pool
from tests.support.waiting import wait_until

STILL_S = 1.5


def test_a_daemon_that_stood_still_is_noticed(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(a_fake_pool()).start_ready()
    assert daemon.process is not None
    prober = HealthProber(daemon)
    os.kill(daemon.process.pid, signal.SIGSTOP)
    threading.Event().wait(STILL_S)
    os.kill(daemon.process.pid, signal.SIGCONT)
    wait_until(lambda: prober.slow, what="a slow answer")
    prober.close()

    assert HEALTH_WITHIN_S < prober.slowest_s < 10 * STILL_S
