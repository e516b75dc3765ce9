"""API keys for daemons under test: made as `orchctl keys create` makes them, before the daemon starts."""

import os
from datetime import UTC, datetime

from supervisor.config.keys import FILE_NAME, Grant, changing_keys
from supervisor.wire.codes import Priority, Scope
from tests.support.daemon import Daemon


def make_key(
    daemon: Daemon,
    tenant: str = "a",
    scopes: tuple[Scope, ...] = tuple(Scope),
    priorities: tuple[Priority, ...] = tuple(Priority),
) -> str:
    """A key in the daemon's own key file; from the first one on, every request over TCP needs one."""
    state = daemon.folder / "state"
    state.mkdir(mode=0o700, exist_ok=True)
    with changing_keys(state / FILE_NAME, os.environ) as changes:
        return changes.create(Grant(tenant=tenant, scopes=scopes, priorities=priorities), datetime.now(UTC)).secret
