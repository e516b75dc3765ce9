"""What a finished one-shot task gave, read back from the last frame of its stream: it is kept nowhere else."""

import msgspec
from msgspec import UNSET, UnsetType

from supervisor.runtime.tasklog import TaskLog

_END = b"\nevent: end\ndata: "


class _EndData(msgspec.Struct):
    outputs: msgspec.Raw | UnsetType = UNSET


_decode_end = msgspec.json.Decoder(_EndData).decode


def read_outputs(log: TaskLog) -> msgspec.Raw | UnsetType:
    """The outputs in the `end` frame, UNSET where there are none."""
    frame, _ = log.read(log.seq - 1)
    _, found, data = frame.partition(_END)
    return _decode_end(data).outputs if found else UNSET
