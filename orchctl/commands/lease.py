"""`orchctl lease`: GPUs for a command outside orchctl, given back when it ends, its time is over or it crashes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Self

import typer

from orchctl.client import Client
from orchctl.context import client_of
from orchctl.durations import duration_ms, lifetime_ms
from orchctl.exits import ExitCode, RefusedError, UnreachableError, VerbError, usage
from orchctl.lease_text import lease_lines
from orchctl.progress import WaitingLine
from orchctl.render import Output, OutputKind, say, show
from orchctl.spans import spoken
from orchctl.terminal import err_screen, out_screen
from supervisor.wire.leases import LEASE_MS_MAX, LEASE_MS_MIN, LeasePage, LeaseRequest, LeaseView

HELP = "Take GPUs out of service for a command, see who has which, give them back."

LOOK_S = 0.2
LEASE_LOOK_S = 1.0
DAEMON_AWAY_S_MAX = 60.0
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXIT_BY_SIGNAL = 128
EXIT_NOT_FOUND = 127
EXIT_NOT_EXECUTABLE = 126

LeaseId = Annotated[str, typer.Argument(metavar="LEASE_ID", help="The id that `orchctl lease list` shows.")]


def take(
    ctx: typer.Context,
    devices: Annotated[str, typer.Argument(metavar="GPU[,GPU…]", help="gpu:1, or a UUID; several with commas.")],
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND…]", help="What gets the GPUs; without it they are held.")
    ] = None,
    *,
    period: Annotated[str, typer.Option("--for", metavar="TIME", help="How long at most: 2h, 3d.")],
    drain: Annotated[str, typer.Option(metavar="TIME", help="What runs after this is ended.")] = "30s",
    drain_to: Annotated[
        str | None, typer.Option("--drain-to", metavar="POOL", help="Serves in place of the pools that give way.")
    ] = None,
    purpose: Annotated[str, typer.Option(metavar="TEXT", help="What it is for; shown to others.")] = "",
    output: Output = OutputKind.TABLE,
) -> None:
    """Take GPUs.

    The pools on them drain and stop, their memory is seen free, the command runs with CUDA_VISIBLE_DEVICES set, and the
    pools come back when it ends. Its exit code is that of this verb.
    """
    client = client_of(ctx)
    for_ms = lifetime_ms(period, "--for")
    if not LEASE_MS_MIN <= for_ms <= LEASE_MS_MAX:
        raise usage("--for is between 1s and 30d", "give another time")
    request = LeaseRequest(devices=devices.split(","), for_ms=for_ms, drain_ms=duration_ms(drain, "--drain"))
    request.until_exit = bool(command)
    request.purpose = purpose or " ".join(command or ())[:200]
    if drain_to is not None:
        request.drain_to = drain_to
    held = _take(client, request)
    if not command:
        text = f"lease {held.lease_id} holds {', '.join(held.devices)} for {spoken(held.expires_in_ms)}"
        show(held, output, lambda: [f"{text}; give it back with `orchctl lease return {held.lease_id}`"])
        return
    try:
        code = _run(client, held, command)
    finally:
        _give_back(client, held.lease_id)
    if code:
        raise typer.Exit(code)


def list_leases(ctx: typer.Context, *, output: Output = OutputKind.TABLE) -> None:
    """Show who has which GPU, and for how long."""
    page: LeasePage = client_of(ctx).leases()
    show(page, output, lambda: lease_lines(page, out_screen()))


def give_back(ctx: typer.Context, lease_id: LeaseId, *, output: Output = OutputKind.TABLE) -> None:
    """Give GPUs back before their time.

    The pools on them start again; they wait for a command that still holds memory.
    """
    client = client_of(ctx)
    lease = client.lease(lease_id)
    client.end_lease(lease_id)
    lease.state = "ended"
    text = f"lease {lease_id} is over; see the pools come back with `orchctl status --watch`"
    show(lease, output, lambda: [text])


ACTIONS = {"take": take, "list": list_leases, "return": give_back}


class _ToldToEnd(typer.Exit):
    """A signal that ends this verb, as an exception, so that what was begun is undone."""


@contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGTERM, and SIGHUP of a terminal that is closed, come as exceptions, as Ctrl-C does."""

    def tell(number: int, _: FrameType | None) -> None:
        raise _ToldToEnd(EXIT_BY_SIGNAL + number)

    before = {number: signal.signal(number, tell) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _take(client: Client, request: LeaseRequest) -> LeaseView:
    """A lease that is held. Whoever is told to end before gives it back, as soon as it has a name."""
    lease: LeaseView | None = None
    with _signals_raise():
        try:
            with _signals_wait():
                lease = client.take_lease(request)
            return _wait_held(client, lease)
        except (KeyboardInterrupt, _ToldToEnd):
            if lease is not None:
                _give_back(client, lease.lease_id)
            raise


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Until the daemon has answered, for seconds at most: a lease whose name nobody read is given back by nobody."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait_held(client: Client, lease: LeaseView) -> LeaseView:
    """The lease once its GPUs are free. Raises VerbError where it ended before."""
    words = [lease.state]
    try:
        with WaitingLine(err_screen(), lambda: f"waiting for {', '.join(lease.devices)}: {words[0]}"):
            while lease.state != "held":
                time.sleep(LOOK_S)
                lease = _look(client, lease)
                words[0] = f"{lease.state} ({', '.join(lease.pools) or 'no pool is on it'})"
    except RefusedError:
        cause = "the lease ended before its GPUs were free"
        raise VerbError(ExitCode.FAILED, cause, "the daemon's log says why") from None
    return lease


def _look(client: Client, lease: LeaseView) -> LeaseView:
    """The lease now. A daemon that is started again knows it still, so its absence is waited out."""
    until_s = time.monotonic() + DAEMON_AWAY_S_MAX
    while True:
        try:
            return client.lease(lease.lease_id)
        except UnreachableError:
            if time.monotonic() > until_s:
                raise
            time.sleep(LOOK_S)


def _give_back(client: Client, lease_id: str) -> None:
    """Where the daemon is away or the lease is over by now, there is nothing to be done: our end gives it back too."""
    try:
        client.end_lease(lease_id)
    except VerbError as error:
        if not isinstance(error, RefusedError):
            say(f"orchctl: {error}")


def _run(client: Client, lease: LeaseView, command: Sequence[str]) -> int:
    """Run the command on the GPUs; signals for us are signals for it. Gives its exit code as a shell does.

    When its time is over it gets SIGTERM: the pools take the GPUs back, and wait for the memory that it still holds.
    """
    environ = {
        **os.environ,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(lease.devices),
        "ORCHCTL_LEASE": lease.lease_id,
    }
    sys.stdout.flush()
    with _Forwarding() as forwarding:
        try:
            process = subprocess.Popen(command, env=environ)
        except OSError as error:
            say(f"orchctl: {command[0]}: {error.strerror}")
            return EXIT_NOT_FOUND if isinstance(error, FileNotFoundError) else EXIT_NOT_EXECUTABLE
        forwarding.to(process)
        code = _wait_end(client, lease, process)
    return code if code >= 0 else EXIT_BY_SIGNAL - code


def _wait_end(client: Client, lease: LeaseView, process: "subprocess.Popen[bytes]") -> int:
    is_over = False
    while True:
        try:
            return process.wait(None if is_over else LEASE_LOOK_S)
        except subprocess.TimeoutExpired:
            is_over = _is_over(client, lease)
            if is_over:
                say("orchctl: the lease is over, and the pools take the GPU back; the command gets SIGTERM")
                process.terminate()


def _is_over(client: Client, lease: LeaseView) -> bool:
    try:
        client.lease(lease.lease_id)
    except RefusedError:
        return True
    except VerbError:  # a daemon that is away comes back, and knows the lease still
        return False
    return False


class _Forwarding:
    """Signals for this verb go to the command; one that comes before it runs is kept for it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._kept: list[int] = []
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._forward) for number in FORWARDED}
        return self

    def to(self, process: "subprocess.Popen[bytes]") -> None:
        """The command runs."""
        self._process = process
        for number in self._kept:
            process.send_signal(number)

    def _forward(self, number: int, _: FrameType | None) -> None:
        if self._process is None:
            self._kept.append(number)
        elif number != signal.SIGINT or not sys.stdin.isatty():  # a terminal sends it to the whole group
            self._process.send_signal(number)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what it gave is what it takes
