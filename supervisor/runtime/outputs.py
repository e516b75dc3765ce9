"""Results of one-shot runs, from the end of the run to the end of its task: the core decides without them.

Kept encoded, as they stand in the `end` frame. They are about as long as the engine's answer, which OUTPUTS_BYTES_MAX
of the adapters bounds.
"""

import msgspec

from adapters.oneshot import Outputs

_encode = msgspec.json.Encoder().encode


class OutputShelf:
    """Outputs by job id. What is kept is taken when its task ends, whatever it ends as."""

    def __init__(self) -> None:
        self._kept: dict[str, msgspec.Raw] = {}

    def keep(self, job_id: str, outputs: Outputs) -> None:
        """The run is over; its task is about to end."""
        self._kept[job_id] = msgspec.Raw(_encode(outputs))

    def take(self, job_id: str) -> msgspec.Raw | None:
        """The outputs of a task, once."""
        return self._kept.pop(job_id, None)
