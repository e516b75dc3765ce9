"""The daemons of these tests are those of the daemon's own tests: watched, and ended whatever the test did."""

from tests.daemon.conftest import make_daemon, nvml, nvml_library

__all__ = ["make_daemon", "nvml", "nvml_library"]
