"""Estimates the need of a pool, from the heads of its model files and what it will be launched with.

Nothing is believed beyond the bounds of the parsers; a model that says nothing is sized by its file.
"""

import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec
from msgspec import structs

from adapters.llamacpp_memory import MemoryFlags, read_memory_flags
from supervisor.core.memory_need import DeviceNeed, PoolNeed, ceil_mib
from supervisor.runtime.beside import plan_of
from supervisor.runtime.blueprint import PoolBlueprint
from supervisor.runtime.gguf_tensors import ModelFacts
from supervisor.runtime.model_heads import ModelHeads
from supervisor.runtime.needs_gguf import CUDA_OVERHEAD_MIB, cells_per_slot, estimate_devices
from supervisor.runtime.needs_safetensors import UTILIZATION_DEFAULT, FolderError, estimate_folder, read_folder
from supervisor.wire.codes import Engine

SHARDS_MAX = 1_024
HOST_FACTOR = 1.2
"""Without mmap the whole file goes through memory of the process, and a little more (ORCH-3003)."""
HOST_BASE_MIB = 256
"""Resident memory of an engine process with all its weights on GPUs."""
SIMULATED_MARK = "simulated-"
"""Begins every recipe of simulated GPUs: what is learned on them says nothing of real ones, nor the other way."""
_SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_UTILIZATION = re.compile(r"(--gpu-memory-utilization|--device-memory-utilization|--cuda-memory-fraction)")

log = logging.getLogger(__name__)


class NeedsReader:
    """Blocks; used from a side thread while the daemon runs."""

    def __init__(self, heads: ModelHeads, *, is_simulated: bool) -> None:
        self._heads = heads
        self._is_simulated = is_simulated

    def with_needs(self, blueprints: Mapping[str, PoolBlueprint]) -> dict[str, PoolBlueprint]:
        """The same blueprints, each plan with its need."""
        return {
            key: replace(each, plan=structs.replace(each.plan, need=self.need_of(each)))
            for key, each in blueprints.items()
        }

    def need_of(self, blueprint: PoolBlueprint) -> PoolNeed | None:
        """What a worker of this pool needs; None where there is no model file yet, or none that can be sized."""
        if blueprint.artifact is None or blueprint.plan.unplannable is not None:
            return None
        count = len(blueprint.plan.devices)
        plan = plan_of(blueprint, is_simulated=self._is_simulated)
        argv = () if plan is None else plan.argv
        flags = read_memory_flags(argv, {} if plan is None else plan.env).below(blueprint.config_dir)
        recipe = self._recipe_of(blueprint, argv, flags)
        path = blueprint.artifact.path
        try:
            if blueprint.plan.engine is not Engine.LLAMACPP and path.is_dir():
                return self._folder_need(blueprint, path, argv, recipe)
            return self._file_need(blueprint, path, flags, recipe, count)
        except (OSError, FolderError) as error:
            log.warning("a need is not known", extra={"model": path.name, "cause": str(error)})
            return None

    def _folder_need(self, blueprint: PoolBlueprint, path: Path, argv: tuple[str, ...], recipe: str) -> PoolNeed:
        plan = blueprint.plan
        share = UTILIZATION_DEFAULT
        for flag, value in pairwise(argv):
            if _UTILIZATION.fullmatch(flag) and re.fullmatch(r"[01]?\.?\d{1,6}", value):
                share = min(float(value), 1.0)
        facts = read_folder(path)
        return estimate_folder(
            facts, recipe=recipe, ctx=plan.ctx or 0, slots=plan.slots, devices=len(plan.devices), utilization=share
        )

    def _recipe_of(self, blueprint: PoolBlueprint, argv: tuple[str, ...], flags: MemoryFlags) -> str:
        """All that decides a need: also the sizes of the files beside the model, which may be replaced under a name."""
        plan, artifact = blueprint.plan, blueprint.artifact
        assert artifact is not None
        arguments = [part.replace(str(artifact.path), "MODEL") for part in argv]
        count = len(plan.devices)
        whole: tuple[object, ...] = (artifact.digest, plan.ctx, plan.slots, plan.tensor_split, count, arguments)
        sizes = [_size_of(Path(name)) for name in flags.others]
        if sizes or flags != read_memory_flags(argv):
            whole = (*whole, sizes, repr(flags))
        recipe = hashlib.sha256(msgspec.json.encode(whole)).hexdigest()[:24]
        return f"{SIMULATED_MARK}{recipe}" if self._is_simulated else recipe

    def _file_need(self, blueprint: PoolBlueprint, path: Path, flags: MemoryFlags, recipe: str, count: int) -> PoolNeed:
        ratios = blueprint.plan.tensor_split or (1.0,) * count
        size = sum(each.stat().st_size for each in shards_of(path))
        facts = self._facts_of(path)
        if facts is None:
            each = DeviceNeed(ceil_mib(size / count), 0, 0, CUDA_OVERHEAD_MIB)
            return PoolNeed(recipe, (each,) * count, self._host_mib(size, flags))
        parts = [share.in_mib() for share in estimate_devices(facts, flags, ratios)]
        size += self._add_others(parts, flags, ratios)
        return PoolNeed(
            recipe,
            tuple(parts),
            self._host_mib(size, flags),
            cells_per_slot=cells_per_slot(facts, flags),
            slots=flags.slots,
        )

    def _add_others(self, parts: list[DeviceNeed], flags: MemoryFlags, ratios: tuple[float, ...]) -> int:
        """A draft model beside the model (ORCH-3020), a projector and adapters on the first device; their bytes."""
        size = 0
        if flags.draft is not None:
            size += self._add_draft(parts, flags, ratios)
        for name in (*([flags.mmproj] if flags.mmproj else []), *flags.loras):
            extra = _size_of(Path(name))
            size += extra
            parts[0] = structs.replace(parts[0], weights_mib=parts[0].weights_mib + ceil_mib(extra))
        return size

    def _add_draft(self, parts: list[DeviceNeed], flags: MemoryFlags, ratios: tuple[float, ...]) -> int:
        path = Path(flags.draft or "")
        facts, size = self._facts_of(path), _size_of(path)
        if facts is None:
            parts[0] = structs.replace(parts[0], weights_mib=parts[0].weights_mib + ceil_mib(size))
            return size
        own = _draft_flags(flags)
        for at, share in enumerate(estimate_devices(facts, own, ratios)):
            extra = share.in_mib(overhead_mib=0)
            parts[at] = DeviceNeed(
                parts[at].weights_mib + extra.weights_mib,
                parts[at].kv_mib + extra.kv_mib,
                parts[at].buffers_mib + extra.buffers_mib,
                parts[at].overhead_mib,
            )
        return size

    def _host_mib(self, size: int, flags: MemoryFlags) -> int:
        """Mapped weights are page cache, which gives way; without mmap they are the process's own."""
        weights = 0 if flags.has_mmap else ceil_mib(size * HOST_FACTOR)
        return HOST_BASE_MIB + weights + flags.prompt_cache_mib

    def _facts_of(self, path: Path) -> ModelFacts | None:
        """The facts of a model in one file or many; None where they cannot be told."""
        try:
            first, *rest = [self._heads.facts_of(each) for each in shards_of(path)]
        except OSError:
            return None
        if first is None or None in rest:
            return None
        tensors = (*first.tensors, *(tensor for each in rest if each for tensor in each.tensors))
        return ModelFacts(first.shape, first.values, tensors, 1)


def _draft_flags(flags: MemoryFlags) -> MemoryFlags:
    return replace(
        flags,
        ctx_total=flags.draft_ctx * flags.slots if flags.draft_ctx else flags.ctx_total,
        key_type=flags.draft_key_type,
        value_type=flags.draft_value_type,
    )


def shards_of(path: Path) -> list[Path]:
    """All files of a model whose first file is `path`: `name-00001-of-00003.gguf` and its siblings."""
    match = _SHARD.fullmatch(path.name)
    if match is None or match["number"] != "00001" or not 1 < int(match["count"]) <= SHARDS_MAX:
        return [path]
    count = int(match["count"])
    return [path.with_name(f"{match['stem']}-{at:05d}-of-{count:05d}.gguf") for at in range(1, count + 1)]


def _size_of(path: Path) -> int:
    try:
        return sum(each.stat().st_size for each in shards_of(path))
    except OSError:
        return 0
