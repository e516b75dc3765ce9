"""What each fault that a GPU reports means, and what is done about it: one total table, pure (ORCH-3038, ORCH-3053).

A fault is an XID (NVIDIA's number of an error, the same across drivers) or an alarm of NVML that has none. The table
follows the immediate action that NVIDIA's catalogue names; a number that is not in it is counted, and the workers are
probed. Nothing here knows a worker or a clock: `gpu_faults` does what is decided here. No GPU is ever reset by us.
"""

from enum import StrEnum

from msgspec import Struct


class Reaction(StrEnum):
    """What is done about a fault. The sentence is for operators and for the page about devices."""

    NOTE = "counted and logged"
    PROBE = "idle workers on the GPU are asked for a token, and replaced if none comes"
    RESTART_OWNER = "the worker that caused it is restarted; without a pid, all on the GPU; the GPU stays in service"
    AFTERMATH = "ignored beside another fault of the GPU within 5 s; alone, the worker that caused it is restarted"
    RESTART_ALL = "every worker on the GPU is restarted; the GPU stays in service"
    WITHHOLD = "the GPU is withheld until the driver names no recovery action any more"
    REBOOT = "the GPU is withheld until it was gone and is there again"
    LINK = "withheld from pools that span several GPUs, until the driver names no recovery action any more"
    FOLLOW = "the recovery action is read and followed"


class GpuAlarm(StrEnum):
    """What NVML reports of a GPU without an XID."""

    ECC_SINGLE_BIT = "single-bit ECC error"
    UNAVAILABLE = "GPU unavailable"
    POISON = "poisoned memory"


class EccKind(StrEnum):
    """The label of `ecc_events_total`."""

    SINGLE_BIT = "single_bit"
    DOUBLE_BIT = "double_bit"
    SINGLE_BIT_STORM = "single_bit_storm"
    CONTAINED = "contained"
    UNCONTAINED = "uncontained"
    ROW_REMAP = "row_remap"
    ROW_REMAP_FAILURE = "row_remap_failure"
    POISON = "poison"


class Meaning(Struct, frozen=True):
    """One fault: what it is, what is done, under which word it is counted.

    `is_application`: the program on the GPU may have done it, so that repeats are held against model and engine.
    `flag` stays on the GPU until the driver is reset.
    """

    text: str
    reaction: Reaction
    kind: str
    ecc: EccKind | None = None
    is_application: bool = False
    flag: str | None = None


Fault = int | GpuAlarm
"""An XID, or an alarm."""

XID_DOUBLE_BIT = 48
XID_OFF_THE_BUS = 79
XID_RECOVERY_CHANGED = 154

_UNKNOWN = Meaning("an XID that is not in the table", Reaction.PROBE, "unknown")


def _application(text: str) -> Meaning:
    return Meaning(text, Reaction.RESTART_OWNER, "application", is_application=True)


def _notice(text: str) -> Meaning:
    return Meaning(text, Reaction.NOTE, "notice")


def _broken(text: str) -> Meaning:
    return Meaning(text, Reaction.WITHHOLD, "reset_required")


def _memory(text: str) -> Meaning:
    return Meaning(text, Reaction.NOTE, "memory")


XIDS: dict[int, Meaning] = {
    13: _application("graphics engine exception"),
    31: _application("GPU memory page fault"),
    32: _application("invalid or corrupted push buffer"),
    37: _notice("driver firmware error"),
    38: _notice("driver firmware error"),
    39: _application("copy engine error"),
    40: _application("copy engine error"),
    41: _application("copy engine error"),
    43: Meaning("GPU stopped processing", Reaction.PROBE, "application", is_application=True),
    44: _notice("graphics engine fault during context switch"),
    45: Meaning("preemptive cleanup after an earlier error", Reaction.AFTERMATH, "aftermath"),
    46: _broken("GPU stopped processing"),
    48: Meaning("double-bit ECC error", Reaction.WITHHOLD, "ecc", EccKind.DOUBLE_BIT),
    62: _broken("internal micro-controller halt"),
    63: Meaning("row remapping recorded", Reaction.NOTE, "ecc", EccKind.ROW_REMAP, flag="reset pending"),
    64: Meaning(
        "row remapping failed", Reaction.WITHHOLD, "ecc", EccKind.ROW_REMAP_FAILURE, flag="row remapping failed"
    ),
    66: _notice("illegal access by driver"),
    67: _notice("illegal access by driver"),
    69: _application("graphics engine class error"),
    74: Meaning("NVLink error", Reaction.LINK, "nvlink"),
    79: Meaning("GPU has fallen off the bus", Reaction.REBOOT, "lost"),
    92: Meaning(
        "high rate of single-bit ECC errors", Reaction.NOTE, "ecc", EccKind.SINGLE_BIT_STORM, flag="degraded memory"
    ),
    94: Meaning("contained ECC error", Reaction.RESTART_OWNER, "ecc", EccKind.CONTAINED),
    95: Meaning("uncontained ECC error", Reaction.WITHHOLD, "ecc", EccKind.UNCONTAINED),
    109: _broken("context switch timeout"),
    110: _broken("security fault"),
    119: _broken("GSP RPC timeout"),
    120: _broken("GSP error"),
    121: _notice("corrected C2C link error"),
    136: _broken("link training failed"),
    137: _notice("NVLink flow control error"),
    140: Meaning("unrecovered ECC error", Reaction.WITHHOLD, "ecc", EccKind.UNCONTAINED),
    141: _notice("fabric notice"),
    143: _broken("GPU initialization failed"),
    151: Meaning("key rotation error", Reaction.REBOOT, "lost"),
    152: _notice("fabric notice"),
    153: _notice("fabric notice"),
    154: Meaning("recovery action changed", Reaction.FOLLOW, "recovery_action"),
    155: _broken("NVLink software-defined error"),
    156: _broken("resource retirement event"),
    157: _notice("resource retirement failure"),
    158: _broken("fatal GPU timeout"),
    160: _notice("channel retirement event"),
    161: _notice("channel retirement failure"),
    168: _memory("reduced memory capacity"),
    169: _memory("internal micro-controller halt"),
    170: _memory("interrupt of the memory"),
    171: _memory("uncorrectable DRAM error, in addition to another fault"),
    172: _memory("uncorrectable SRAM error, in addition to another fault"),
}
"""Every XID that is known. After 168 to 172 the total memory is read again, as after every fault: where it shrank, the
workers are restarted and must fit into what is left."""

ALARMS: dict[GpuAlarm, Meaning] = {
    GpuAlarm.ECC_SINGLE_BIT: Meaning("single-bit ECC error, corrected", Reaction.NOTE, "ecc", EccKind.SINGLE_BIT),
    GpuAlarm.UNAVAILABLE: _broken("NVML says that the GPU is unavailable"),
    GpuAlarm.POISON: Meaning("poisoned memory was read", Reaction.RESTART_ALL, "ecc", EccKind.POISON),
}


def meaning_of(fault: Fault) -> Meaning:
    """What a fault means; total: an XID that nobody has seen before is counted and probed."""
    return ALARMS[fault] if isinstance(fault, GpuAlarm) else XIDS.get(fault, _UNKNOWN)


def name_of(fault: Fault) -> str:
    """As an operator reads it: the number, and what it means."""
    return str(fault) if isinstance(fault, GpuAlarm) else f"XID {fault} ({meaning_of(fault).text})"


class RecoveryAction(StrEnum):
    """What the driver says is needed before a GPU can be used again (NVML field 230), in its order."""

    NONE = "none"
    GPU_RESET = "a GPU reset"
    NODE_REBOOT = "a reboot of the host"
    DRAIN_P2P = "an end of all peer-to-peer work"
    DRAIN_AND_RESET = "a drain and a GPU reset"
    IMEX_DOMAIN = "a recovery of the IMEX domain"
    BUS_RESET = "a bus reset"
    SYSTEM_REBOOT = "a power cycle of the host"
    OTHER = "a recovery action that is not known"


_OF_LINKS = frozenset({RecoveryAction.DRAIN_P2P, RecoveryAction.IMEX_DOMAIN})


def recovery_of(value: int) -> RecoveryAction:
    """The action behind a value of field 230; total."""
    actions = tuple(RecoveryAction)
    return actions[value] if 0 <= value < len(actions) - 1 else RecoveryAction.OTHER


def is_link_action(action: RecoveryAction) -> bool:
    """Whether it concerns the work between GPUs alone, so that a single one may go on."""
    return action in _OF_LINKS
