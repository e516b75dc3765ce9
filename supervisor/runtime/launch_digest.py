"""What an engine is started with, as one digest: equal digests mean that this configuration would launch the same.

Port and key are chosen anew for each process, so both are left out; everything else of the launch plan counts.
"""

import hashlib

import msgspec

from supervisor.runtime.blueprint import PoolBlueprint

_ANY_PORT = 1
_ANY_KEY = "any-key"


def launch_digest(blueprint: PoolBlueprint, devices: tuple[str, ...], *, is_simulated: bool) -> str:
    """SHA-256 in hex over command line, environment, working folder and devices. Raises PlanError."""
    assert blueprint.adapter is not None, f"{blueprint.plan.pool_id} has no adapter"
    spec = blueprint.launch_spec(port=_ANY_PORT, api_key=_ANY_KEY, devices=devices, is_simulated=is_simulated)
    plan = blueprint.adapter.plan_launch(spec)
    whole = (plan.argv, sorted(plan.env.items()), str(blueprint.config_dir), devices)
    return hashlib.sha256(msgspec.json.encode(whole)).hexdigest()
