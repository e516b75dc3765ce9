"""Which pools can never work on the GPUs that are there, as they are configured: one sentence for each. Pure.

1. A mask of GPUs that differ in memory or in compute capability needs `tensor_split` (ORCH-3012).
2. A pool whose share of a GPU is larger than that GPU (ORCH-3052).
3. Pools whose masks overlap and whose needs together exceed a GPU: the later one in the configuration is refused.

Needs are estimates here: nothing was observed before a configuration is judged. What stands beside the revision that
serves is judged by rule 1 alone: a rollout decides whether both fit side by side.
"""

from collections.abc import Sequence

from supervisor.core.events import DeviceSeen
from supervisor.core.memory_need import reserve_mib
from supervisor.core.plan import PoolPlan

VRAM_TOLERANCE = 0.05


def find_refusals(
    plans: Sequence[PoolPlan], devices: Sequence[DeviceSeen], beside: Sequence[PoolPlan] = ()
) -> dict[str, str]:
    """The sentences, by the plan's key: of the revisions that serve, in their order, then of those `beside` them."""
    refused: dict[str, str] = {}
    taken: dict[str, dict[str, int]] = {}
    for plan in plans:
        mask = _mask_of(plan, devices)
        if mask is None:
            continue
        cause = _unequal(plan, mask) or _too_big(plan, mask) or _overcommitted(plan, mask, taken)
        if cause is not None:
            refused[plan.pool_id] = cause
            continue
        for device, need in _needs(plan, mask):
            taken.setdefault(device.uuid, {})[plan.public_id] = need
    for plan in beside:
        mask = _mask_of(plan, devices)
        if mask is not None and (cause := _unequal(plan, mask)) is not None:
            refused[plan.pool_id] = cause
    return refused


def _mask_of(plan: PoolPlan, devices: Sequence[DeviceSeen]) -> tuple[DeviceSeen, ...] | None:
    """The devices of a mask, None while one of them is not there."""
    by_name: dict[int | str, DeviceSeen] = {each.index: each for each in devices if each.parent is None}
    by_name |= {each.uuid: each for each in devices}
    mask = tuple(by_name[name] for name in plan.devices if name in by_name)
    return mask if len(mask) == len(plan.devices) else None


def _needs(plan: PoolPlan, mask: tuple[DeviceSeen, ...]) -> list[tuple[DeviceSeen, int]]:
    if plan.need is None or len(plan.need.devices) != len(mask):
        return []
    return [(device, need.on(device.vram_total_mib)) for device, need in zip(mask, plan.need.devices, strict=True)]


def _unequal(plan: PoolPlan, mask: tuple[DeviceSeen, ...]) -> str | None:  # 1
    if plan.tensor_split is not None or len(mask) < 2:
        return None
    sizes = [device.vram_total_mib for device in mask]
    kinds = {device.compute_capability for device in mask if device.compute_capability is not None}
    if min(sizes) < max(sizes) * (1 - VRAM_TOLERANCE):
        how = f"have {min(sizes)} to {max(sizes)} MiB"
    elif len(kinds) > 1:
        how = f"are of compute capability {' and '.join(f'{major}.{minor}' for major, minor in sorted(kinds))}"
    else:
        return None
    shares = ", ".join(f"{size / sum(sizes):.2f}" for size in sizes)
    return f"the GPUs of its mask {how}: say `tensor_split`, for example [{shares}]"


def _too_big(plan: PoolPlan, mask: tuple[DeviceSeen, ...]) -> str | None:  # 2
    for device, need in _needs(plan, mask):
        if need > device.vram_total_mib:
            text = f"it needs about {need} MiB of GPU {device.index}, which has {device.vram_total_mib}"
            return f"{text}: take a smaller ctx, fewer slots or another share"
    return None


def _overcommitted(plan: PoolPlan, mask: tuple[DeviceSeen, ...], taken: dict[str, dict[str, int]]) -> str | None:  # 3
    for device, need in _needs(plan, mask):
        others = taken.get(device.uuid, {})
        whole = need + sum(others.values()) + (reserve_mib(need) if others else 0)
        if others and whole > device.vram_total_mib:
            held = " and ".join(f"{pool} ({mib} MiB)" for pool, mib in others.items())
            return (
                f"{plan.public_id} ({need} MiB) and {held} do not fit together on GPU {device.index}, which has "
                f"{device.vram_total_mib} MiB: give it other devices, a smaller ctx or fewer slots"
            )
    return None
