"""Fetches one file over HTTP into an open file, and goes on where an earlier try stopped, also after a kill.

`Range` asks for the rest; with `If-Range` a file that changed meanwhile comes whole, and is begun again. What arrives
is bounded by what was announced. Whether it is the right file is for its digest to say, not for this module.
"""

import contextlib
import email.utils
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx2

from supervisor.store.faults import Kind, StoreError
from supervisor.store.names import shown
from supervisor.store.reach import target_of

TRIES_MAX = 5
"""In a row without a single new byte."""

WAIT_S_MAX = 30.0
"""A server that wants a longer pause is asked again by the operator."""

CHUNK_BYTES = 1024 * 1024
_CONTENT_RANGE = re.compile(r"bytes (?P<first>[0-9]{1,18})-[0-9]{1,18}/(?P<total>[0-9]{1,18}|\*)")
RESERVE_LOOK_BYTES = 4 * 1024 * 1024
"""So often it is looked whether there is still room."""


def _allow(_: int) -> None:
    """Nothing is asked of it."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to fetch. `size` None: whatever the server announces, up to `bytes_max`.

    `validator` is the strong ETag that an earlier try saw; without one nothing is resumed unless `is_immutable`.
    `announce` is told the size of the file before its first byte is kept, and `require_room` the bytes that are still
    to come, then and every few MiB; both may raise StoreError. What comes unannounced is bounded by the last field too.
    """

    url: str
    size: int | None
    bytes_max: int
    is_immutable: bool = False
    validator: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    require_room: Callable[[int], None] = _allow
    announce: Callable[[int], None] = _allow
    unannounced_bytes_max: int | None = None

    @property
    def end_unannounced(self) -> int:
        """Where a file without a size must end."""
        quota = self.unannounced_bytes_max
        return self.bytes_max if quota is None else min(quota, self.bytes_max)


class _Again(Exception):  # noqa: N818  (not an error yet)
    """This try failed in a way that may pass. `wait_s` is the server's own wish."""

    def __init__(self, cause: str, wait_s: float | None = None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.wait_s = wait_s


def fetch(
    client: httpx2.Client,
    order: Order,
    fd: int,
    note: Callable[[int], None],
    keep_validator: Callable[[str | None], None] = lambda _: None,
) -> None:
    """Fill the file behind `fd`, which may hold a beginning; `note` is told what is there. Raises StoreError.

    `keep_validator` is told the ETag of the answer before its first byte is kept.
    """
    tries, had = 0, -1
    validator = order.validator

    def keep(etag: str | None) -> None:  # also of a try that breaks off: the next one goes on from there
        nonlocal validator
        validator = etag
        keep_validator(etag)

    while True:
        offset = _resume_at(fd, order, validator)
        note(offset)
        if order.size is not None and offset == order.size:
            return
        tries = tries + 1 if offset <= had else 1
        had = max(offset, had)
        try:
            _try_once(client, order, fd, offset, validator, note, keep)
            return
        except _Again as again:
            if tries >= TRIES_MAX or (again.wait_s or 0) > WAIT_S_MAX:
                later = f" in {again.wait_s:.0f} s" if again.wait_s else ""
                raise StoreError(
                    again.cause, f"try the same again{later}: it goes on where it is", Kind.LATER
                ) from None
            time.sleep(again.wait_s if again.wait_s is not None else min(0.25 * 2**tries, 8.0))


def _resume_at(fd: int, order: Order, validator: str | None) -> int:
    """Where to go on. What is too long, or can be of another version, is thrown away."""
    offset = os.fstat(fd).st_size
    if (order.size is not None and offset > order.size) or not (order.is_immutable or validator):
        os.ftruncate(fd, 0)
        return 0
    return offset


def _try_once(
    client: httpx2.Client,
    order: Order,
    fd: int,
    offset: int,
    validator: str | None,
    note: Callable[[int], None],
    keep_validator: Callable[[str | None], None],
) -> None:
    headers = {**order.headers, "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if validator and not order.is_immutable:
            headers["If-Range"] = validator
    try:
        with client.stream("GET", order.url, headers=headers) as response:
            _require_usable(response, order.url)
            if response.status_code == 416:
                os.ftruncate(fd, 0)
                raise _Again("the server does not have the rest of the file")
            start, total = _part_of(response)
            if start not in (0, offset):
                raise _Again("the server sends another part of the file than was asked for")
            if start and not order.is_immutable and response.headers.get("ETag") != validator:
                os.ftruncate(fd, 0)  # it ignored If-Range: nothing is put together of two files
                raise _Again("the file changed while it was fetched")
            if start != offset:
                os.ftruncate(fd, start)
            size = _announced(response, order, start, total)
            if size is not None:
                order.announce(size)
            order.require_room(max(0, (size or 0) - start))
            etag = response.headers.get("ETag", "")
            strong = etag if etag.startswith('"') and len(etag) < 1024 else None
            keep_validator(strong)
            _write_all(response, order, fd, start, size, note)
    except (httpx2.TransportError, httpx2.TooManyRedirects) as error:
        raise _Again(f"{target_of(order.url).host} is not reachable or broke off ({type(error).__name__})") from None
    have = os.fstat(fd).st_size
    if size is not None and have < size:
        raise _Again(f"the server stopped after {have} of {size} bytes")


def _require_usable(response: httpx2.Response, url: str) -> None:
    status, host = response.status_code, target_of(url).host
    if status in (200, 206, 416):
        return
    if status in (401, 403):
        raise StoreError(
            f"{host} wants a token, or one with more rights", "set `hub.token_file` or HF_TOKEN", Kind.DENIED
        )
    if status in (404, 410):
        raise StoreError(f"{host} has no such file ({status})", "check the name and the revision")
    if status == 429 or status >= 500:
        raise _Again(f"{host} answers {status}", retry_after_s(response.headers.get("Retry-After")))
    raise StoreError(f"{host} answers {status}", "check the address")


def _part_of(response: httpx2.Response) -> tuple[int, int | None]:
    """Where the answer begins in the file, -1 where it does not say; and the size of the file, where a part says it."""
    if response.status_code != 206:
        return 0, None
    said = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if said is None:
        return -1, None
    return int(said["first"]), None if said["total"] == "*" else int(said["total"])


def _announced(response: httpx2.Response, order: Order, start: int, total: int | None) -> int | None:
    """The size of the whole file as this answer says it. Raises StoreError where that cannot be right."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise StoreError("the server packs the file though it was asked not to", "fetch it from elsewhere")
    length = response.headers.get("Content-Length", "")
    size = total
    if size is None:
        size = start + int(length) if length.isdecimal() and len(length) < 19 else order.size
    if size is None and "chunked" not in response.headers.get("Transfer-Encoding", ""):
        cause = "the server does not say where the file ends, so a part would pass for the whole"
        raise StoreError(cause, "fetch it from elsewhere")
    if order.size is not None and size != order.size:
        raise StoreError(f"the server announces {size} bytes, and the listing {order.size}", "pull it again")
    if size is not None and size > order.bytes_max:
        raise too_large(size, order.bytes_max)
    return size


def _write_all(
    response: httpx2.Response, order: Order, fd: int, start: int, size: int | None, note: Callable[[int], None]
) -> None:
    offset = looked_at = start
    end = size if size is not None else order.end_unannounced
    for chunk in response.iter_raw(CHUNK_BYTES):
        if offset + len(chunk) > end:
            os.ftruncate(fd, 0)
            raise StoreError(f"the server sends more than the {end} bytes that are allowed", "fetch it from elsewhere")
        if offset - looked_at >= RESERVE_LOOK_BYTES:
            order.require_room(max(0, (size or 0) - offset))
            looked_at = offset
        view = memoryview(chunk)
        while view:
            written = os.pwrite(fd, view, offset)
            view, offset = view[written:], offset + written
        note(offset)


def too_large(size: int, bytes_max: int) -> StoreError:
    """The refusal of a model above the bound."""
    return StoreError(f"the model has {size} bytes, above `hub.model_bytes_max` ({bytes_max})", "raise that bound")


def retry_after_s(text: str | None) -> float | None:
    """Seconds that a server asks to wait, by number or by date."""
    if text is None:
        return None
    if text.isdecimal() and len(text) < 10:
        return float(text)
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return None


def shown_url(url: str) -> str:
    """A URL for a message: without its query, which may hold a secret."""
    return shown(url.partition("?")[0])
