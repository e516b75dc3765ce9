"""Who asks. The HTTP edge finds it out; the service uses it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """`is_operator` is true on the control socket, where peer credentials stand in for a key."""

    tenant: str
    is_operator: bool = False
