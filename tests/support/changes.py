"""Daemons whose pools and configuration change while they run: two models, and what an operator asks."""

import hashlib
from pathlib import Path
from typing import Any

import yaml

from tests.support.daemon import Daemon
from tests.support.pools import a_fake_pool, a_model
from tests.support.waiting import wait_until

OLD, NEW = "tiny", "other"
SWITCH_WITHIN_S = 30.0


def two_models(folder: Path) -> dict[str, Any]:
    """The model that a pool begins with, and another one for it."""
    other = folder / "other.gguf"
    other.write_bytes(b"another model, which only a fake engine would load")
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    return {**a_model(folder), NEW: {"path": str(other), "digest": f"sha256:{digest}"}}


def a_fake_config(folder: Path, *pools: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A config of fake engines."""
    return {"models": two_models(folder), "pools": list(pools or (a_fake_pool(),)), **more}


def rewrite(daemon: Daemon, **changes: Any) -> None:
    """Change top-level keys of the daemon's config file."""
    config = yaml.safe_load(daemon.config_path.read_text())
    daemon.config_path.write_text(yaml.safe_dump({**config, **changes}))


def pool_in_file(daemon: Daemon, pool_id: str) -> dict[str, Any]:
    """One pool of the daemon's config file, as it stands there."""
    pools = yaml.safe_load(daemon.config_path.read_text())["pools"]
    found: dict[str, Any] = next(pool for pool in pools if pool["id"] == pool_id)
    return found


def rollout(daemon: Daemon, pool_id: str = "tiny") -> dict[str, Any]:
    """What is under way on a pool, and what was."""
    found: dict[str, Any] = daemon.ask_control("GET", f"/v1/pools/{pool_id}/rollout").json
    return found


def settle(daemon: Daemon, pool_id: str = "tiny", within_s: float = SWITCH_WITHIN_S) -> dict[str, Any]:
    """The same, once nothing is under way."""

    def look() -> dict[str, Any] | None:
        page = rollout(daemon, pool_id)
        return page if page["rollout"] is None else None

    return wait_until(look, within_s=within_s, what=f"the end of the rollout of {pool_id}")


def share(daemon: Daemon, pool_id: str = "tiny") -> dict[str, Any]:
    """The same, once the canary takes its share."""

    def look() -> dict[str, Any] | None:
        page = rollout(daemon, pool_id)
        return page if page["rollout"] and page["rollout"]["state"] == "sharing" else None

    return wait_until(look, within_s=SWITCH_WITHIN_S, what=f"the canary of {pool_id}")


def change(daemon: Daemon, what: str, body: object = None, pool_id: str = "tiny") -> Any:
    """Ask for a change that must be begun; gives the answer."""
    reply = daemon.ask_control("POST", f"/v1/pools/{pool_id}/{what}", body if body is not None else {})
    assert reply.status == 202, reply.body
    return reply.json


def served_by(daemon: Daemon, **fields: object) -> dict[str, Any]:
    """Run one task to its end; gives what `started` said of it."""
    stream = daemon.read_stream(daemon.accept(**fields))
    assert stream.end.name == "end", stream.end
    return stream.events[0].data
