"""What can go wrong with a store, as the caller must tell it apart: the cause, and what to try next."""

from enum import StrEnum


class Kind(StrEnum):
    """`wrong`: cannot be meant. `later`: the same may work later. `denied`: a right is missing. `failed`: the rest."""

    FAILED = "failed"
    WRONG = "wrong"
    LATER = "later"
    DENIED = "denied"


class StoreError(Exception):
    """Something about a model or the store. `cause` is a clause without a full stop, `next_step` an imperative."""

    def __init__(self, cause: str, next_step: str | None = None, kind: Kind = Kind.FAILED) -> None:
        super().__init__(cause)
        self.cause = cause
        self.next_step = next_step
        self.kind = kind


def disk_fault(what: str, error: OSError) -> StoreError:
    """A foreign OSError as a sentence about `what`."""
    kind = Kind.DENIED if isinstance(error, PermissionError) else Kind.FAILED
    step = "run it as the owner of the store, or name another config with `--config`" if kind is Kind.DENIED else None
    return StoreError(f"{what}: {error.strerror or error}", step, kind)
