"""The oracle's eye on leases: what a holder was promised is free, and stays so."""

from supervisor.core import effects as ef
from supervisor.core import events as ev
from supervisor.core.lease import LeasePhase
from tests.core.ledger import demand
from tests.core.worker_watch import BEFORE_A_PROCESS, Worker


class LeaseWatch:
    """All leases of one daemon, over the workers that another watch keeps. Raises BrokenPromiseError."""

    def __init__(self, workers: dict[str, Worker]) -> None:
        self._workers = workers
        self._devices: dict[str, frozenset[str]] = {}
        self._held: set[str] = set()

    def note_event(self, event: ev.Event) -> None:
        notes = event.intent.leases if isinstance(event, ev.IntentRestored) else ()
        if isinstance(event, ev.LeaseRequested):
            notes = (event.note,)
        self._devices |= {note.lease_id: frozenset(note.devices) for note in notes}

    def note_effect(self, effect: ef.Effect) -> None:
        match effect:
            case ef.NoteLease(lease_id=lease_id, phase=LeasePhase.HELD):
                self._held.add(lease_id)
                self._check(lease_id)
            case ef.NoteLease(lease_id=lease_id, phase="ended"):
                self._held.discard(lease_id)
                for worker in self._on(lease_id).values():
                    worker.starts.clear()  # that they were stopped for it does not count against them
            case ef.SpawnEngine():
                for lease_id in self._held:
                    self._check(lease_id)
            case _:
                pass

    def _on(self, lease_id: str) -> dict[str, Worker]:
        devices = self._devices[lease_id]
        return {name: worker for name, worker in self._workers.items() if not devices.isdisjoint(worker.devices)}

    def _check(self, lease_id: str) -> None:
        there = [name for name, worker in self._on(lease_id).items() if worker.last not in BEFORE_A_PROCESS]
        demand(that=not there, sentence=f"{lease_id} has its GPUs, and so have {there}")
