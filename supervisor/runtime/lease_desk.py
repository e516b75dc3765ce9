"""Leases of GPUs at the edge of the core: asked for, shown, given back; their holders watched, their memory seen free.

Whether a lease is given is the core's to say (`leases`). The process that holds one is known by pid and start time, as
the kernel gave them when it connected, and watched through a pidfd: its end, however it comes, gives the lease back.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Mapping

from msgspec import structs

from supervisor.core.effects import AnswerLease, NoteLease, VerifyRelease
from supervisor.core.events import LeaseEnded, LeaseRequested, ReleaseVerified
from supervisor.core.intent import LeaseNote
from supervisor.core.lease import Lease
from supervisor.core.refusals import Refused
from supervisor.runtime.answers import Answers
from supervisor.runtime.caller import Caller
from supervisor.runtime.fresh_ids import fresh_id
from supervisor.runtime.loop import CoreLoop
from supervisor.runtime.worker_records import process_facts
from supervisor.wire.codes import Code, Reason
from supervisor.wire.leases import DRAIN_MS_DEFAULT, LeasePage, LeaseRequest, LeaseView

LOOK_S = 0.2
WATCH_AGAIN_S = 1.0
_GPU = "gpu:"
log = logging.getLogger("orchctl")

Holders = Callable[[str], Awaitable[Mapping[int, int] | None]]
"""Gives the pids of ours that hold memory on a GPU, with MiB; None where nobody can say."""


class LeaseDesk:
    """`verify` and `note` are hands of the core; the rest is asked by the service."""

    def __init__(self, core: CoreLoop, answers: Answers, holders: Holders) -> None:
        self._core = core
        self._answers = answers
        self._holders = holders
        self._pidfds: dict[str, int] = {}
        self._looking: set[asyncio.Task[None]] = set()

    # Asked ------------------------------------------------------------------------------------------------------

    async def take(self, caller: Caller, request: LeaseRequest) -> LeaseView | Refused:
        """Begin a lease; its GPUs are free once it is held."""
        devices = [self._uuid(name) for name in request.devices]
        unknown = [name for name, uuid in zip(request.devices, devices, strict=True) if uuid is None]
        if unknown or len(set(devices)) < len(devices):
            return _no_device(unknown)
        note = LeaseNote(
            lease_id=fresh_id(),
            devices=tuple(uuid for uuid in devices if uuid is not None),
            owner=caller.client_id,
            purpose=request.purpose or "",
            expires_ms=self._core.now_ms() + request.for_ms,
            drain_to=request.drain_to or None,
        )
        if request.until_exit:
            tied = _tie(note, caller)
            if isinstance(tied, Refused):
                return tied
            note = tied
        drain_ms = request.drain_ms if isinstance(request.drain_ms, int) else DRAIN_MS_DEFAULT
        ticket = fresh_id()
        future = self._answers.expect(ticket)
        self._core.post(LeaseRequested(ticket, note, drain_ms))
        answer = await future
        return answer if isinstance(answer, Refused) else self._view_note(note)

    def _uuid(self, name: str) -> str | None:
        wanted = name.removeprefix(_GPU)
        seen = self._core.state.devices.seen
        return next((each.uuid for each in seen if wanted in (each.uuid, str(each.index))), None)

    def page(self) -> LeasePage:
        """All leases."""
        return LeasePage(leases=[self._view(lease) for lease in self._core.state.leases.values()])

    def find(self, lease_id: str) -> LeaseView | Refused:
        """One lease."""
        lease = self._core.state.leases.get(lease_id)
        return _not_found() if lease is None else self._view(lease)

    def end(self, lease_id: str) -> Refused | None:
        """Give a lease back."""
        if lease_id not in self._core.state.leases:
            return _not_found()
        self._core.post(LeaseEnded(lease_id, "it was given back"))
        return None

    def _view_note(self, note: LeaseNote) -> LeaseView:
        lease = self._core.state.leases.get(note.lease_id)
        return self._view(lease) if lease is not None else self._show(note, "ended", ())

    def _view(self, lease: Lease) -> LeaseView:
        replicas = self._core.state.replicas
        gone = dict.fromkeys(replicas[key].plan.public_id for key in lease.pools or () if key in replicas)
        return self._show(lease.note, lease.phase, tuple(gone))

    def _show(self, note: LeaseNote, state: str, pools: tuple[str, ...]) -> LeaseView:
        return LeaseView(
            lease_id=note.lease_id,
            state=state,
            devices=list(note.devices),
            owner=note.owner,
            purpose=note.purpose,
            expires_in_ms=max(round(note.expires_ms - self._core.now_ms()), 0),
            pools=list(pools),
            drain_to=note.drain_to,
            holder_pid=note.holder_pid,
        )

    # Performed --------------------------------------------------------------------------------------------------

    def answer(self, effect: AnswerLease) -> None:
        """A lease is begun."""
        self._answers.give(effect)

    def note(self, effect: NoteLease) -> None:
        """Write down how far a lease has come, and watch its holder while it lasts."""
        lease = self._core.state.leases.get(effect.lease_id)
        fields: dict[str, object] = {"lease_id": effect.lease_id, "phase": effect.phase, "cause": effect.cause}
        if lease is None:
            self._unwatch(effect.lease_id)
        else:
            fields |= {"owner": lease.note.owner, "devices": list(lease.note.devices), "purpose": lease.note.purpose}
            self._watch(lease.note)
        log.info("lease", extra=fields)

    def _watch(self, note: LeaseNote) -> None:
        if note.holder_pid is None or note.lease_id in self._pidfds:
            return
        try:
            pidfd = os.pidfd_open(note.holder_pid)
        except ProcessLookupError:
            self._note_gone(note.lease_id)
            return
        except OSError:  # no descriptor is left: that says nothing about the holder
            asyncio.get_running_loop().call_later(WATCH_AGAIN_S, self._watch_again, note.lease_id)
            return
        facts = process_facts(note.holder_pid)
        if facts is None or facts.start_ticks != note.holder_ticks:
            os.close(pidfd)
            self._note_gone(note.lease_id)
            return
        self._pidfds[note.lease_id] = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._note_gone, note.lease_id)

    def _watch_again(self, lease_id: str) -> None:
        lease = self._core.state.leases.get(lease_id)
        if lease is not None:
            self._watch(lease.note)

    def _note_gone(self, lease_id: str) -> None:
        self._unwatch(lease_id)
        self._core.post(LeaseEnded(lease_id, "its holder is gone"))

    def _unwatch(self, lease_id: str) -> None:
        if (pidfd := self._pidfds.pop(lease_id, None)) is not None:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)

    def verify(self, effect: VerifyRelease) -> None:
        """See that no process of ours holds memory on these GPUs."""
        task = asyncio.create_task(self._verify(effect))
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _verify(self, effect: VerifyRelease) -> None:
        """Ends in ReleaseVerified whatever happens: a lease that waits for ever keeps its pools away."""
        try:
            cause = await self._find_holder(effect)
        except Exception as bug:
            log.exception("the look at a leased GPU broke", extra={"lease_id": effect.lease_id})
            cause = f"a bug in the daemon: {type(bug).__name__}"
        self._core.post(ReleaseVerified(effect.lease_id, cause))

    async def _find_holder(self, effect: VerifyRelease) -> str | None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + effect.within_ms / 1000
        while (holder := await self._first_holder(effect.devices)) is not None:
            if loop.time() >= until_s:
                uuid, pid, mib = holder
                return f"process {pid} of an ended worker still holds {mib} MiB on GPU {uuid}"
            await asyncio.sleep(LOOK_S)
        return None

    async def _first_holder(self, uuids: tuple[str, ...]) -> tuple[str, int, int] | None:
        for uuid in uuids:
            held = await self._holders(uuid)
            if held is None:
                log.warning("that a leased GPU is free cannot be proved", extra={"device": uuid})
            for pid, mib in (held or {}).items():
                return uuid, pid, mib
        return None

    async def close(self) -> None:
        """Stop looking and watching; the leases stay."""
        for task in tuple(self._looking):
            task.cancel()
        if self._looking:
            await asyncio.wait(self._looking)
        for lease_id in tuple(self._pidfds):
            with contextlib.suppress(OSError):
                self._unwatch(lease_id)


def _tie(note: LeaseNote, caller: Caller) -> LeaseNote | Refused:
    """The lease with its holder: the process at the other end of the socket."""
    facts = process_facts(caller.pid) if caller.pid is not None else None
    if facts is None:
        message = "until_exit: the process that asks cannot be seen from here."
        return Refused(code=Code.INVALID_PARAMS, reason=Reason.FIELD, message=message)
    return structs.replace(note, holder_pid=caller.pid, holder_ticks=facts.start_ticks)


def _no_device(unknown: list[str]) -> Refused:
    what = f"there is no GPU {unknown[0]} on this host" if unknown else "one GPU is named twice"
    return Refused(code=Code.INVALID_PARAMS, reason=Reason.DEVICE, message=f"devices: {what}.")


def _not_found() -> Refused:
    return Refused(code=Code.INVALID_PARAMS, reason=Reason.NOT_FOUND, message="There is no such lease.")
