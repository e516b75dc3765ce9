"""Asks the daemon: HTTP/1.1 over its Unix socket, with the standard library, one connection for each request.

Gives typed replies and raises VerbError; every foreign exception is translated here, once. Prints nothing.
"""

import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlencode

import msgspec

from orchctl.exits import ExitCode, RefusedError, UnreachableError, VerbError, usage
from supervisor.wire.codes import Reason
from supervisor.wire.errors import ErrorEnvelope
from supervisor.wire.leases import LeasePage, LeaseRequest, LeaseView
from supervisor.wire.outlook import ChangeOutlook, OutlookRequest
from supervisor.wire.plan import MemoryPlan
from supervisor.wire.pools import DrainRequest, HostStatus, PoolChange, PoolHealth
from supervisor.wire.rollouts import (
    CanaryRequest,
    ConfigReloaded,
    ConfigReloadRequest,
    ReloadRequest,
    RolloutPage,
    RolloutStarted,
    ShareRequest,
)
from supervisor.wire.self_tests import SelfTestReport
from supervisor.wire.tasks import TaskView
from supervisor.wire.upgrades import UpgradeRequest, UpgradeStatus

CHECK_S = 90.0
"""The daemon tries the new program before it answers."""
ANSWER_S = 15.0
"""The longest wait for the daemon to answer a request."""

SELF_TEST_S = 180.0
"""A self-test lasts as long as its answers may."""

REPLY_BYTES_MAX = 64 * 2**20
PIECE_BYTES_MAX = 65_536
SOCKET_PATH_BYTES_MAX = 107

T = TypeVar("T")

_TO_START_IT = "start it with `orchctl serve --config FILE`, or name its socket with `--socket PATH`"


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection whose other end is a path."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Open the socket. Raises OSError."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Client:
    """One daemon. Every method raises RefusedError, UnreachableError or another VerbError, and nothing else."""

    def __init__(self, path: Path) -> None:
        if len(str(path).encode(errors="surrogateescape")) > SOCKET_PATH_BYTES_MAX or "\0" in str(path):
            raise usage(f"a socket path is at most {SOCKET_PATH_BYTES_MAX} bytes long", "name a shorter one")
        self.path = path

    def status(self) -> HostStatus:
        """The whole host."""
        return self._ask("GET", "/v1/status", HostStatus)

    def plan(self) -> MemoryPlan:
        """What fits into the memory of the GPUs."""
        return self._ask("GET", "/v1/plan", MemoryPlan)

    def outlook(self, request: OutlookRequest) -> ChangeOutlook:
        """What a change of models or of the configuration would do."""
        body = msgspec.json.encode(request)
        return self._ask("POST", "/v1/plan", ChangeOutlook, body=body, not_found=_LIST_POOLS)

    def pool(self, pool_id: str) -> PoolHealth:
        """One pool."""
        return self._ask("GET", f"{_pool(pool_id)}/health", PoolHealth, not_found=_LIST_POOLS)

    def drain(self, pool_id: str, request: DrainRequest) -> PoolChange:
        """Stop giving tasks to a pool."""
        body = msgspec.json.encode(request)
        return self._ask("POST", f"{_pool(pool_id)}/drain", PoolChange, body=body, not_found=_LIST_POOLS)

    def resume(self, pool_id: str) -> PoolChange:
        """Undo a drain."""
        return self._ask("POST", f"{_pool(pool_id)}/resume", PoolChange, body=b"{}", not_found=_LIST_POOLS)

    def reload_config(self, request: ConfigReloadRequest) -> ConfigReloaded:
        """Take up the configuration file, or the configuration before this one."""
        try:
            return self._ask("POST", "/v1/config/reload", ConfigReloaded, body=msgspec.json.encode(request))
        except RefusedError as error:
            raise _said_of_rollouts(error) from None

    def change(
        self, pool_id: str, what: str, request: ReloadRequest | CanaryRequest | ShareRequest | None = None
    ) -> RolloutStarted:
        """Begin or end a rollout: `what` is reload, canary, rollback, rollout/promote, rollout/abort, rollout/share."""
        body = b"{}" if request is None else msgspec.json.encode(request)
        try:
            return self._ask("POST", f"{_pool(pool_id)}/{what}", RolloutStarted, body=body, not_found=_LIST_POOLS)
        except RefusedError as error:
            raise _said_of_rollouts(error) from None

    def rollout(self, pool_id: str) -> RolloutPage:
        """What serves a pool, what is under way, and what was."""
        return self._ask("GET", f"{_pool(pool_id)}/rollout", RolloutPage, not_found=_LIST_POOLS)

    def self_test(self, pool_id: str) -> SelfTestReport:
        """Test the worker of a pool while it serves."""
        route = f"{_pool(pool_id)}/selftest"
        return self._ask("POST", route, SelfTestReport, body=b"{}", not_found=_LIST_POOLS, answer_s=SELF_TEST_S)

    def upgrade(self, request: UpgradeRequest) -> UpgradeStatus:
        """Let the daemon replace itself; the answer comes once the new program was tried."""
        return self._ask("POST", "/v1/upgrade", UpgradeStatus, body=msgspec.json.encode(request), answer_s=CHECK_S)

    def upgrade_status(self) -> UpgradeStatus:
        """How far an upgrade is."""
        return self._ask("GET", "/v1/upgrade", UpgradeStatus)

    def task(self, task_id: str) -> TaskView:
        """One task."""
        return self._ask("GET", _task(task_id), TaskView, not_found=CHECK_TASK)

    def cancel(self, task_id: str) -> int:
        """End a task. Gives the number of token frames that its stream ever shows."""
        with self._open("POST", f"{_task(task_id)}/cancel", body=b"", not_found=CHECK_TASK) as reply:
            return _count(reply.headers.get("X-Tokens-Emitted"))

    def logs(self, pool_id: str, *, lines: int, follow: bool) -> Iterator[bytes]:
        """The last lines that the engine of a pool wrote, and with `follow` what it writes from now on, in pieces."""
        query = urlencode({"lines": lines, "follow": str(follow).lower()})
        silence_s = None if follow else ANSWER_S
        with self._open("GET", f"{_pool(pool_id)}/logs?{query}", silence_s=silence_s, not_found=_LIST_POOLS) as reply:
            yield from self._pieces(reply)

    def take_lease(self, request: LeaseRequest) -> LeaseView:
        """Begin a lease of GPUs; they are free once its state is held."""
        return self._ask("POST", "/v1/leases", LeaseView, body=msgspec.json.encode(request))

    def leases(self) -> LeasePage:
        """All leases."""
        return self._ask("GET", "/v1/leases", LeasePage)

    def lease(self, lease_id: str) -> LeaseView:
        """One lease."""
        return self._ask("GET", _lease(lease_id), LeaseView, not_found=_LIST_LEASES)

    def end_lease(self, lease_id: str) -> None:
        """Give a lease back."""
        with self._open("DELETE", _lease(lease_id), not_found=_LIST_LEASES):
            pass

    def _ask(
        self,
        method: str,
        route: str,
        shape: type[T],
        *,
        body: bytes | None = None,
        not_found: str | None = None,
        answer_s: float = ANSWER_S,
    ) -> T:
        with self._open(method, route, body=body, not_found=not_found, answer_s=answer_s) as reply:
            text = self._body(reply)
        try:
            return msgspec.json.decode(text, type=shape)
        except msgspec.DecodeError:
            raise nonsense(self.path) from None

    @contextmanager
    def _open(
        self,
        method: str,
        route: str,
        *,
        body: bytes | None = None,
        silence_s: float | None = ANSWER_S,
        not_found: str | None = None,
        answer_s: float = ANSWER_S,
    ) -> Iterator[http.client.HTTPResponse]:
        """The successful answer to one request, its body still to be read."""
        connection = UnixConnection(self.path, answer_s)
        sent = {"Content-Type": "application/json"} if body else {}
        try:
            with translated(self.path):
                connection.request(method, route, body=body, headers=sent)
                peer = connection.sock
                reply = connection.getresponse()
            if reply.status >= http.HTTPStatus.BAD_REQUEST:
                raise self._refusal(reply, not_found)
            peer.settimeout(silence_s)
            yield reply
        finally:
            connection.close()

    def _refusal(self, reply: http.client.HTTPResponse, not_found: str | None) -> VerbError:
        """The daemon's own words for an answer that is not a success."""
        body = self._body(reply)
        try:
            envelope = msgspec.json.decode(body, type=ErrorEnvelope)
        except msgspec.DecodeError:
            return nonsense(self.path)
        is_unknown = reply.status == http.HTTPStatus.NOT_FOUND and not isinstance(envelope.pool_id, str)
        return RefusedError(envelope, not_found if is_unknown else None)

    def _body(self, reply: http.client.HTTPResponse) -> bytes:
        with translated(self.path):
            body = reply.read(REPLY_BYTES_MAX + 1)
        if len(body) > REPLY_BYTES_MAX:
            raise nonsense(self.path)
        return body

    def _pieces(self, reply: http.client.HTTPResponse) -> Iterator[bytes]:
        """The body as it arrives: nothing is held back to fill a buffer."""
        while True:
            with translated(self.path):
                piece = reply.read1(PIECE_BYTES_MAX)
            if not piece:
                return
            yield piece


def _said_of_rollouts(error: RefusedError) -> RefusedError:
    """Who finds a pool in a change is told where to see it: a canary may stand for days."""
    if error.envelope.reason != Reason.BUSY or not isinstance(error.envelope.pool_id, str):
        return error
    return RefusedError(error.envelope, f"see how far it is with `orchctl rollout status {error.envelope.pool_id}`")


_LIST_POOLS = "list the pools with `orchctl status`"
CHECK_TASK = "check the id; finished tasks are forgotten after a while"


_LIST_LEASES = "list the leases with `orchctl lease list`"


def _lease(lease_id: str) -> str:
    return f"/v1/leases/{quote(lease_id, safe='', errors='surrogateescape')}"


def _pool(pool_id: str) -> str:
    return f"/v1/pools/{quote(pool_id, safe='', errors='surrogateescape')}"


def _task(task_id: str) -> str:
    return f"/v1/tasks/{quote(task_id, safe='', errors='surrogateescape')}"


def _count(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() else 0


def nonsense(path: Path) -> VerbError:
    """What answers there is no daemon of this version."""
    return UnreachableError(
        f"what answers at {path} does not speak as this version of orchctl does",
        "compare `orchctl --version` with the daemon's",
    )


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """What the operating system and http.client raise, as sentences."""
    try:
        yield
    except FileNotFoundError:
        raise UnreachableError(f"no daemon answers at {path} (there is no such socket)", _TO_START_IT) from None
    except (ConnectionRefusedError, NotADirectoryError):
        raise UnreachableError(f"no daemon answers at {path} (nothing listens there)", _TO_START_IT) from None
    except PermissionError:
        cause = f"this user may not use the socket {path}"
        raise VerbError(ExitCode.NOT_PERMITTED, cause, "run it as root or as the user of the daemon") from None
    except TimeoutError:
        raise UnreachableError(f"the daemon at {path} does not answer", "look at its log, or try again") from None
    except (OSError, http.client.HTTPException):
        raise broken_off(path) from None


def broken_off(path: Path) -> VerbError:
    """The daemon was reached and then lost: what was asked may have been done or not."""
    return UnreachableError(f"the daemon at {path} broke the connection", "see whether it runs with `orchctl status`")
