"""Verifies model files (ORCH-3037, ORCH-3042): sha256 through the opened files, off the loop, kept while unchanged.

Bit-rotted weights load and talk garbage; no engine notices. A digest is computed once for each (device, inode, size,
ctime), so that a restart of a worker does not read gigabytes again; ctime, as nobody can set it back.

An engine opens its model by name, some time after the name was verified. So what was verified stays open until the
worker ends (an inode in our hands is given to no other file), and `prove_loaded` sees that the engine loaded just that.

Models are read in threads of their own, few at one time: whatever else wants a thread never waits for gigabytes, and
nobody waits for the reading of a worker that is gone.
"""

import asyncio
import os
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from supervisor.config.models import ModelArtifact
from supervisor.runtime.beside import BESIDE_MAX, Identity, identity_of
from supervisor.runtime.model_use import FileHeld, find_swap
from supervisor.runtime.side_thread import NoThreadError, call_aside
from supervisor.store.digests import PREFIX, model_digest, read_sha256
from supervisor.store.holding import hold
from supervisor.store.parts import Part, open_model
from supervisor.store.shelf import note_use

WorkerKey = tuple[str, int]

MODELS_READ_AT_ONCE = 2
"""One disk gives no more to a third."""


class ModelFileError(Exception):
    """The file is missing, unreadable or not the one that was named. One sentence for the operator."""


@dataclass(slots=True)
class _Held:
    """The verified files of one worker, open until `stack` is closed."""

    stack: ExitStack
    files: tuple[FileHeld, ...]
    digest: str
    others: tuple[FileHeld, ...]
    beside: Mapping[Identity, str]


class _UnwantedError(Exception):
    """Nobody waits for this model any more."""


class ModelFiles:
    """Knows the digests of the files that it has read, and holds those of the workers that run."""

    def __init__(self) -> None:
        self._known: dict[Identity, str] = {}
        self._read_as: dict[Path, Identity] = {}
        self._held: dict[WorkerKey, _Held] = {}
        self._turns = asyncio.Semaphore(MODELS_READ_AT_ONCE)

    def identity(self, path: Path) -> Identity | None:
        """Which file it was that `verify` last found at this path; None before it did, and for a model of several."""
        return self._read_as.get(path)

    def trust(self, identity: Identity, digest: str) -> None:
        """An earlier daemon has read this file: a new one need not read gigabytes before it adopts an engine."""
        self._known.setdefault(identity, digest.removeprefix(PREFIX))

    async def verify(self, artifact: ModelArtifact, worker: WorkerKey, beside: tuple[Path, ...] = ()) -> str:
        """Give the digest (`sha256:<hex>`) of the model and hold its files for a worker. Raises ModelFileError.

        The files `beside` it are read and held too: see `beside`. What digests they should have nobody says.

        Those of the earlier workers of its pool are let go: a worker is verified once they are over, also where they
        never came to a process (no room, no fork) and so nobody stopped them.
        """
        async with self._turns:
            held = await self._read_aside(artifact, beside)
        self.release_all(worker[0])
        self._held[worker] = held
        return held.digest

    async def _read_aside(self, artifact: ModelArtifact, beside: tuple[Path, ...]) -> _Held:
        """In a thread that stops at its next look once this is cancelled."""
        unwanted = threading.Event()
        try:
            reading = call_aside(lambda: self._read(artifact, beside, unwanted), name="model digest")
        except NoThreadError as error:
            raise ModelFileError(f"model file {artifact.path.name} was not read: {error}") from error
        try:
            await asyncio.wait([reading])
        except asyncio.CancelledError:
            unwanted.set()
            reading.add_done_callback(_let_go)
            raise
        return reading.result()

    def size_bytes(self, worker: WorkerKey) -> int | None:
        """Of the files that were verified for this worker, whatever has become of their names since."""
        held = self._held.get(worker)
        return None if held is None else sum(file.status.st_size for file in held.files)

    def beside(self, worker: WorkerKey) -> Mapping[Identity, str]:
        """The files beside the model that were read for this worker, with their sha256 in hex, in order."""
        held = self._held.get(worker)
        return {} if held is None else held.beside

    async def prove_loaded(self, worker: WorkerKey, pid: int) -> str:
        """See that the engine loaded the files that were verified; gives how that is known. Raises ModelFileError."""
        held = self._held.get(worker)
        if held is None:
            raise ModelFileError("the model file was not verified for this worker")
        swap = await asyncio.to_thread(find_swap, (*held.files, *held.others), pid)
        if swap.cause is not None:
            raise ModelFileError(swap.cause)
        return swap.proof

    def release(self, worker: WorkerKey) -> None:
        """The worker is gone."""
        held = self._held.pop(worker, None)
        if held is not None:
            held.stack.close()

    def release_all(self, key: str) -> None:
        """All workers of this key are over, whatever they came to."""
        for worker in [each for each in self._held if each[0] == key]:
            self.release(worker)

    def _read(self, artifact: ModelArtifact, beside: tuple[Path, ...], unwanted: threading.Event) -> _Held:
        """Open and read the files. Blocks; whoever has the result closes them."""
        with ExitStack() as stack:
            digest, files = self._read_into(stack, artifact, unwanted)
            _require_digest(artifact, digest)
            others, known = self._read_others(stack, beside, unwanted)
            return _Held(stack.pop_all(), files, digest, others, known)

    def _read_others(
        self, stack: ExitStack, beside: tuple[Path, ...], unwanted: threading.Event
    ) -> tuple[tuple[FileHeld, ...], Mapping[Identity, str]]:
        """The files beside a model, and their digests."""
        if len(beside) > BESIDE_MAX:
            raise ModelFileError(f"the engine would load {len(beside)} files beside its model, above {BESIDE_MAX}")
        held: list[FileHeld] = []
        known: dict[Identity, str] = {}
        for path in beside:
            try:
                parts = stack.enter_context(open_model(path, None))
                for part in parts:
                    hold(part.fd, lambda: _require_wanted(unwanted))
                    known[identity_of(os.fstat(part.fd))] = self._sha256(part, unwanted)
                    held.append(FileHeld(part.path, part.fd, os.fstat(part.fd)))
            except OSError as error:
                raise ModelFileError(f"file {path.name} beside the model: {error.strerror}") from error
        return tuple(held), known

    def _read_into(
        self, stack: ExitStack, artifact: ModelArtifact, unwanted: threading.Event
    ) -> tuple[str, tuple[FileHeld, ...]]:
        path = artifact.path
        try:
            parts = stack.enter_context(open_model(path, artifact.root))
            for part in parts:
                hold(part.fd, lambda: _require_wanted(unwanted))
                part.path.stat()  # who had it alone until now may have thrown it away
            digest = model_digest([(part.name, self._sha256(part, unwanted)) for part in parts])
        except OSError as error:
            raise ModelFileError(f"model file {path.name}: {error.strerror}") from error
        if len(parts) == 1:
            self._read_as[path] = identity_of(os.fstat(parts[0].fd))
        else:
            self._read_as.pop(path, None)
        if artifact.root is not None:
            note_use(artifact.root, digest)
        return digest, tuple(FileHeld(part.path, part.fd, os.fstat(part.fd)) for part in parts)

    def _sha256(self, part: Part, unwanted: threading.Event) -> str:
        """The digest of one file; one that changes while it is read is read to no end."""
        identity = identity_of(os.fstat(part.fd))
        if identity not in self._known:
            sha256 = read_sha256(part.fd, lambda _: _require_wanted(unwanted))
            if identity_of(os.fstat(part.fd)) != identity:
                raise ModelFileError(f"model file {part.path.name} changes while it is read")
            self._known[identity] = sha256
        return self._known[identity]


def _require_wanted(unwanted: threading.Event) -> None:
    if unwanted.is_set():
        raise _UnwantedError


def _let_go(reading: asyncio.Future[_Held]) -> None:
    """Close what was opened for nobody."""
    if reading.exception() is None:
        reading.result().stack.close()


def _require_digest(artifact: ModelArtifact, found: str) -> None:
    if found != artifact.digest:
        name = artifact.path.name
        raise ModelFileError(f"{name} is not the model that is configured: its digest is {found[:19]}…")
