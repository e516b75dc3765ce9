"""What a llama.cpp server needs of memory, from the head of its model and its command line. Pure arithmetic, in bytes.

Weights and KV cache are exact: they follow llama.cpp's own rules (layers are handed out in the ratios of the split, the
output layer comes last, the input embedding stays with the host; a cell of KV for each token, padded to 256). Compute
buffers are an upper bound: which tensors share memory in a graph is the allocator's secret.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from adapters.llamacpp_memory import MemoryFlags
from supervisor.core.memory_need import DeviceNeed, ceil_mib
from supervisor.runtime.gguf_tensors import ModelFacts, TensorFacts

CUDA_OVERHEAD_MIB = 450
"""What a process takes of each GPU beside its buffers: the CUDA context, the kernels that it loads, workspaces of
cuBLAS and conversions of a quantised KV cache. NVML counts it as used memory and no log names it. It differs by driver
and GPU (about 250 to 500 MiB), so this is an assumption that holds until a worker was observed."""

CELLS_PADDING = 256
F32_BYTES = 4
MASK_BYTES = 2
PIPELINE_COPIES = 4
"""llama.cpp keeps so many copies of a graph's inputs where several GPUs work in turn."""

_INPUTS = ("token_embd", "position_embd", "token_types", "token_embd_norm", "per_layer_token_embd")
_SWA_EVERY = {"gemma2": 2, "gemma3": 6, "gpt-oss": 2, "cohere2": 4, "olmo2": 4, "llama4": 4}
"""Of so many layers one looks at the whole context; where the file does not say and llama.cpp's code does."""
_RECURRENT_EVERY = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "minimax-01": 8}
"""Of so many layers one has attention at all."""


@dataclass(frozen=True, slots=True)
class BytesNeed:
    """One device's share, in bytes."""

    weights: int
    kv: int
    buffers: int

    def in_mib(self, overhead_mib: int = CUDA_OVERHEAD_MIB) -> DeviceNeed:
        """Rounded up, with what CUDA takes."""
        return DeviceNeed(ceil_mib(self.weights), ceil_mib(self.kv), ceil_mib(self.buffers), overhead_mib)


def estimate_devices(facts: ModelFacts, flags: MemoryFlags, ratios: Sequence[float]) -> tuple[BytesNeed, ...]:
    """The shares of the devices, in mask order. `ratios` has one number for each, of any sum."""
    blocks = facts.shape.block_count or 0
    homes = _homes(blocks, ratios)
    weights, kv = [0] * len(ratios), [0] * len(ratios)
    for tensor in facts.tensors:
        at = _layer_of(tensor, blocks)
        if at is not None:
            weights[homes[at]] += tensor.size_bytes
    if not any(tensor.name == "output.weight" for tensor in facts.tensors):
        weights[homes[blocks]] += _embedding_bytes(facts)  # a tied embedding is there twice
    for layer in range(blocks):
        kv[homes[layer]] += kv_layer_bytes(facts, flags, layer)
    buffers = _buffer_bytes(facts, flags, len(ratios))
    logits = _logits_bytes(facts, flags)
    return tuple(
        BytesNeed(weights[at], kv[at], buffers + (logits if at == homes[blocks] else 0)) for at in range(len(ratios))
    )


def host_bytes(facts: ModelFacts) -> int:
    """What stays with the host: the embedding of the input."""
    blocks = facts.shape.block_count or 0
    return sum(tensor.size_bytes for tensor in facts.tensors if _layer_of(tensor, blocks) is None)


def _homes(blocks: int, ratios: Sequence[float]) -> list[int]:
    """The device of each layer, and of the output layer behind them: llama.cpp's own rule for a split by layer."""
    ends = list(accumulate(ratios))
    return [
        min(bisect_right([end / ends[-1] for end in ends], at / (blocks + 1)), len(ratios) - 1)
        for at in range(blocks + 1)
    ]


def _layer_of(tensor: TensorFacts, blocks: int) -> int | None:
    """The layer of a tensor; the output layer for what is of none; None for what stays with the host."""
    head, _, rest = tensor.name.partition(".")
    if head == "blk":
        number = rest.partition(".")[0]
        return min(int(number), blocks) if number.isdecimal() and len(number) < 7 else blocks
    return None if head in _INPUTS else blocks


def _embedding_bytes(facts: ModelFacts) -> int:
    return next((tensor.size_bytes for tensor in facts.tensors if tensor.name == "token_embd.weight"), 0)


def _vocabulary(facts: ModelFacts) -> int:
    found = (tensor for tensor in facts.tensors if tensor.name in {"output.weight", "token_embd.weight"})
    return max((tensor.dimensions[1] for tensor in found if len(tensor.dimensions) > 1), default=0)


# KV -----------------------------------------------------------------------------------------------------------------


def cells_per_slot(facts: ModelFacts, flags: MemoryFlags) -> int:
    """Cells of KV that one slot has: its context, padded."""
    ctx = flags.ctx_total or facts.shape.context_length or 0
    return _padded(_padded(ctx) // flags.slots) if not flags.is_unified else _padded(ctx)


def kv_layer_bytes(facts: ModelFacts, flags: MemoryFlags, layer: int) -> int:
    """KV cache and recurrent state of one layer, over all slots."""
    shape = facts.shape
    if not shape.is_causal:
        return 0
    streams = 1 if flags.is_unified else flags.slots
    if _is_recurrent(facts, layer):
        return _state_bytes(facts) * flags.slots
    cells = cells_per_slot(facts, flags)
    if _is_windowed(facts, layer) and not flags.is_swa_full:
        window = facts.number("attention.sliding_window") or 0
        reach = window * (flags.slots if flags.is_unified else 1) + flags.ubatch
        cells = min(cells, _padded(min(cells, reach)))
    heads = shape.kv_head_counts[layer] if shape.kv_head_counts else 0
    keys = _row_bytes(heads * (shape.key_length or 0), flags.key_type)
    values = 0 if _has_latent_attention(facts) else _row_bytes(heads * (shape.value_length or 0), flags.value_type)
    return cells * streams * (keys + values)


def _row_bytes(elements: int, kind: tuple[int, int]) -> int:
    return -(-elements // kind[0]) * kind[1]


def _padded(cells: int) -> int:
    return -(-cells // CELLS_PADDING) * CELLS_PADDING


def _has_latent_attention(facts: ModelFacts) -> bool:
    """MLA: keys and values are one latent row, kept once."""
    return bool(facts.number("attention.key_length_mla") and facts.number("attention.value_length_mla"))


def _is_windowed(facts: ModelFacts, layer: int) -> bool:
    """Whether a layer looks back over its sliding window only."""
    if not facts.number("attention.sliding_window"):
        return False
    stated = facts.values.get(f"{facts.shape.architecture}.attention.sliding_window_pattern")
    if isinstance(stated, tuple):
        return layer < len(stated) and bool(stated[layer])
    every = stated if isinstance(stated, int) and stated > 0 else _SWA_EVERY.get(facts.shape.architecture, 0)
    return bool(every) and layer % every < every - 1


def _is_recurrent(facts: ModelFacts, layer: int) -> bool:
    """Whether a layer keeps a state of fixed size in place of a row for each token."""
    heads = facts.shape.kv_head_counts
    if heads is not None and heads[layer] == 0:
        return True
    if heads is None and (facts.number("ssm.state_size") or facts.number("wkv.head_size")):
        return True
    architecture = facts.shape.architecture
    every = facts.number("full_attention_interval") or _RECURRENT_EVERY.get(architecture, 0)
    return bool(every) and (layer + 1) % every != 0


def _state_bytes(facts: ModelFacts) -> int:
    """State of one recurrent layer for one sequence, as llama.cpp counts it; 32-bit floats."""
    width = facts.shape.embedding_length or 0
    if head := facts.number("wkv.head_size"):
        return (2 * width + width * head) * F32_BYTES
    if cache := facts.number("shortconv.l_cache"):
        return width * (cache - 1) * F32_BYTES
    inner, state = facts.number("ssm.inner_size") or 0, facts.number("ssm.state_size") or 0
    kernel, groups = facts.number("ssm.conv_kernel") or 0, facts.number("ssm.group_count") or 0
    return (max(kernel - 1, 0) * (inner + 2 * groups * state) + state * inner) * F32_BYTES


# Buffers ------------------------------------------------------------------------------------------------------------


def _buffer_bytes(facts: ModelFacts, flags: MemoryFlags, devices: int) -> int:
    """Compute buffers of one device, logits aside: mask, scores where there is no flash attention, activations."""
    shape = facts.shape
    width = shape.embedding_length or 0
    heads = max(shape.head_counts or (0,))
    cells = cells_per_slot(facts, flags) if shape.is_causal else flags.ubatch
    inner = (facts.number("feed_forward_length") or 0) + (facts.number("expert_feed_forward_length") or 0) * (
        facts.number("expert_used_count") or 0
    )
    mask_bytes = MASK_BYTES if flags.has_flash_attention else F32_BYTES
    mask = cells * flags.ubatch * mask_bytes * (PIPELINE_COPIES if devices > 1 else 1)
    scores = 0 if flags.has_flash_attention else heads * cells * flags.ubatch * F32_BYTES
    attention = heads * max(shape.key_length or 0, shape.value_length or 0)
    return mask + scores + flags.ubatch * F32_BYTES * (6 * width + 3 * inner + 3 * attention)


def _logits_bytes(facts: ModelFacts, flags: MemoryFlags) -> int:
    """Older builds size this buffer for a whole batch, newer ones for one row of each slot: the larger one counts."""
    return _vocabulary(facts) * flags.ubatch * F32_BYTES
