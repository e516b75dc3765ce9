"""The way to the daemon's own replacement: the new program is tried, then the core comes to rest, then `leave`.

1. The program on disk must be able to load this configuration: it is run with `--check`.
2. The core comes to rest (`core.quiesce`), while tasks are still admitted; answers ask clients to connect anew.
3. Where that took a while the program is tried once more: file or program may be others by now.
4. `leave` is called: the daemon closes and hands its sockets over. What fails before that changes nothing.
Decides nothing about tasks, and replaces nothing itself: see `handover`.
"""

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol

from supervisor.core.effects import CompleteQuiesce, RefuseQuiesce
from supervisor.core.events import Event, QuiesceEnded, QuiesceRequested
from supervisor.core.refusals import Refused
from supervisor.runtime.side_thread import NoThreadError, call_aside
from supervisor.runtime.signals import signals_let_through
from supervisor.wire.codes import Code, Reason
from supervisor.wire.upgrades import UpgradeState, UpgradeStatus

CHECK_S_MAX = 60.0
LAST_CHECK_S_MAX = 20.0
"""Tasks wait for this one."""
FRESH_S = 1.0
"""So long a check holds: what breaks in the moment after it is for the next image, which is given the old config."""
REST_S_MAX = 5.0
REST_LOOK_S = 0.005
SENTENCE_CHARS_MAX = 400
BUSY_RETRY_MS = 5_000
CHECK = "--check"

log = logging.getLogger(__name__)


class Announce(Protocol):
    """Tells the edge that the daemon is about to go, or that it stays."""

    def __call__(self, *, is_leaving: bool) -> None:
        """Answers ask clients to connect anew while it `is_leaving`."""


class UpgradeDesk:
    """One for each life of the daemon. `command` is its own command line; `announce` tells the edge that it may go.

    `leave` gives the cause where the daemon cannot go at this moment; `start` owns what takes time.
    """

    def __init__(
        self,
        life: str,
        version: str,
        command: Sequence[str],
        post: Callable[[Event], None],
        announce: Announce,
        leave: Callable[[], str | None],
        start: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._life = life
        self._version = version
        self._command = tuple(command)
        self._post = post
        self._announce = announce
        self._leave = leave
        self._start = start
        self._checked_at_s = 0.0
        self._state = UpgradeState.NONE
        self._cause: str | None = None

    def status(self) -> UpgradeStatus:
        """How far it is."""
        return UpgradeStatus(life=self._life, version=self._version, state=self._state, cause=self._cause)

    async def begin(self, deadline_ms: int) -> UpgradeStatus | Refused:
        """Try the new program and begin to come to rest."""
        if self._state not in {UpgradeState.NONE, UpgradeState.REFUSED}:
            message = "An upgrade is under way."
            return Refused(
                code=Code.ADMISSION_REJECT, reason=Reason.BUSY, message=message, retry_after_ms=BUSY_RETRY_MS
            )
        self._enter(UpgradeState.CHECKING)
        flaw = await find_flaw_of_program(self._command)
        if flaw is not None:
            self._enter(UpgradeState.REFUSED, flaw)
            return Refused(code=Code.INVALID_PARAMS, reason=Reason.FIELD, message=flaw)
        self._checked_at_s = asyncio.get_running_loop().time()
        self._enter(UpgradeState.QUIESCING)
        self._announce(is_leaving=True)
        self._post(QuiesceRequested(deadline_ms))
        return self.status()

    def note_quiet(self, effect: CompleteQuiesce) -> None:
        """The core is at rest."""
        self._start(self._go(effect.cut))

    async def _go(self, cut: int) -> None:
        loop = asyncio.get_running_loop()
        is_fresh = loop.time() - self._checked_at_s < FRESH_S
        flaw = None if is_fresh else await find_flaw_of_program(self._command, LAST_CHECK_S_MAX)
        if flaw is not None:
            self.abandon(flaw)
            return
        log.info("the daemon replaces itself", extra={"cut_tasks": cut})
        self._enter(UpgradeState.LEAVING)
        until_s = loop.time() + REST_S_MAX
        while (cause := self._leave()) is not None:
            if loop.time() >= until_s:
                self.abandon(cause)
                return
            await asyncio.sleep(REST_LOOK_S)

    def note_refused(self, effect: RefuseQuiesce) -> None:
        """The core went on."""
        running = "1 task that cannot" if effect.kept == 1 else f"{effect.kept} tasks that cannot"
        cause = f"{running} be run again did not end in time" if effect.kept else "the daemon was told to stop"
        self._enter(UpgradeState.REFUSED, cause)
        self._announce(is_leaving=False)

    def abandon(self, cause: str) -> None:
        """It could not leave after all."""
        self._enter(UpgradeState.REFUSED, cause)
        self._announce(is_leaving=False)
        self._post(QuiesceEnded())

    def _enter(self, state: UpgradeState, cause: str | None = None) -> None:
        self._state, self._cause = state, cause
        if cause is not None:
            log.warning("an upgrade is refused", extra={"cause": cause})


async def find_flaw_of_program(command: Sequence[str], within_s: float = CHECK_S_MAX) -> str | None:
    """Why the program on disk cannot take over with this configuration; None where it can."""
    try:
        return await call_aside(lambda: _find_flaw(command, within_s), name="check of the program")
    except NoThreadError as error:
        return f"The new program cannot be started: {error}."


def _find_flaw(command: Sequence[str], within_s: float) -> str | None:
    """Blocks. Not the event loop's own subprocess: that loses descriptors where it cannot open all that it needs."""
    try:
        with Path(os.devnull).open("r+b", buffering=0) as null, signals_let_through():
            check = subprocess.Popen([*command, CHECK], stdin=null, stdout=null, stderr=subprocess.PIPE)
    except OSError as error:
        return f"The new program cannot be started: {error.strerror}."
    with check:
        try:
            _, said = check.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            check.kill()
            return f"The new program did not load the configuration within {within_s:g} s."
    if check.returncode == 0:
        return None
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
    last = lines[-1].strip()[:SENTENCE_CHARS_MAX] if lines else f"exit code {check.returncode}"
    return f"The new program would not start: {last}"


def own_command() -> tuple[str, ...]:
    """What this daemon was started with, for the same interpreter."""
    return (sys.executable, *sys.orig_argv[1:])
