"""A hub of Hugging Face's kind, for the real client: API, tree, resolve, redirects to a CDN, and every kind of trouble.

It serves one repository on a thread of its own. What it is to do wrong stands in `Trouble`, which a test may change
while it runs. It counts what it sent, so that a test can say how often a byte was fetched.
"""

import asyncio
import contextlib
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "acme/tiny"
CHUNK_BYTES = 64 * 1024


@dataclass
class Trouble:
    """`status`: (code, headers) for each of the next requests for a file. `cut_after`: bytes, then the line breaks.

    `listed_content` is what the listing describes in place of the bytes that are sent.
    """

    status: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    cut_after: int | None = None
    stall_after: int | None = None
    redirect: str | None = None
    api_status: int | None = None
    listed_paths: dict[str, str] = field(default_factory=dict)
    oversend: int = 0
    ignores_range: bool = False
    listed_content: bytes | None = None


class Hub:
    """One repository. `lfs` files are redirected to `/cdn/...`, others are sent at once."""

    def __init__(self, files: dict[str, bytes], *, lfs: bool = True, token: str | None = None) -> None:
        self.files = dict(files)
        self.lfs = lfs
        self.token = token
        self.trouble = Trouble()
        self.bytes_sent = 0
        self.requests: list[tuple[str, str]] = []
        self.tokens_at_cdn: list[str | None] = []
        self.resumed = threading.Event()
        self.stalled = threading.Event()
        self.port = 0
        self._loop = asyncio.new_event_loop()

    @property
    def endpoint(self) -> str:
        """The address of the hub."""
        return f"http://127.0.0.1:{self.port}"

    # API --------------------------------------------------------------------------------------------------------

    async def info(self, request: web.Request) -> web.StreamResponse:
        """GET /api/models/{repo}/revision/{rev}."""
        if (refusal := self._refuse_api(request)) is not None:
            return refusal
        if request.match_info["revision"] not in {"main", COMMIT}:
            return web.json_response({"error": "no"}, status=404, headers={"X-Error-Code": "RevisionNotFound"})
        return web.json_response({"id": REPO, "sha": COMMIT, "siblings": []})

    async def tree(self, request: web.Request) -> web.StreamResponse:
        """GET /api/models/{repo}/tree/{rev}?recursive=true."""
        if (refusal := self._refuse_api(request)) is not None:
            return refusal
        return web.json_response([self._node(path, data) for path, data in self.files.items()])

    def _node(self, path: str, data: bytes) -> dict[str, Any]:
        data = self.trouble.listed_content or data
        git_id = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        shown = self.trouble.listed_paths.get(path, path)
        node: dict[str, Any] = {"type": "file", "path": shown, "size": len(data), "oid": git_id}
        if self.lfs:
            node["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return node

    def _refuse_api(self, request: web.Request) -> web.Response | None:
        self.requests.append((request.method, request.path))
        if self.trouble.api_status is not None:
            return web.json_response({"error": "no"}, status=self.trouble.api_status, headers={"Retry-After": "7"})
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            headers = {"X-Error-Code": "GatedRepo", "X-Error-Message": "secret words of a stranger"}
            return web.json_response({"error": "no"}, status=401, headers=headers)
        if request.match_info["repo"] != REPO:
            return web.json_response({"error": "no"}, status=404, headers={"X-Error-Code": "RepoNotFound"})
        return None

    # Files ------------------------------------------------------------------------------------------------------

    async def resolve(self, request: web.Request) -> web.StreamResponse:
        """GET /{repo}/resolve/{rev}/{path}."""
        self.requests.append((request.method, request.path))
        if self.trouble.status:
            code, headers = self.trouble.status.pop(0)
            return web.Response(status=code, headers=headers)
        if self.trouble.redirect is not None:
            return web.Response(status=302, headers={"Location": self.trouble.redirect})
        path = request.match_info["path"]
        if path not in self.files:
            return web.Response(status=404)
        if not self.lfs:
            return await self._send(request, self.files[path])
        sha256 = hashlib.sha256(self.files[path]).hexdigest()
        headers = {
            "Location": f"/cdn/{path}",
            "X-Repo-Commit": COMMIT,
            "X-Linked-Etag": f'"{sha256}"',
            "X-Linked-Size": str(len(self.files[path])),
        }
        return web.Response(status=302, headers=headers)

    async def cdn(self, request: web.Request) -> web.StreamResponse:
        """GET /cdn/{path}: the bytes."""
        self.requests.append((request.method, request.path))
        self.tokens_at_cdn.append(request.headers.get("Authorization"))
        if self.trouble.status:
            code, headers = self.trouble.status.pop(0)
            return web.Response(status=code, headers=headers)
        data = self.files.get(request.match_info["path"])
        return web.Response(status=404) if data is None else await self._send(request, data)

    async def _send(self, request: web.Request, data: bytes) -> web.StreamResponse:
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        start = self._start(request, etag)
        if start > len(data):
            return web.Response(status=416)
        headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Length": str(len(data) - start)}
        if start:
            self.resumed.set()
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if self.trouble.oversend:
            del headers["Content-Length"]
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        await response.prepare(request)
        await self._body(request, response, data[start:] + b"x" * self.trouble.oversend)
        return response

    def _start(self, request: web.Request, etag: str) -> int:
        wanted = request.headers.get("Range", "")
        if not wanted.startswith("bytes=") or self.trouble.ignores_range:
            return 0
        if request.headers.get("If-Range", etag) != etag:
            return 0
        return int(wanted.removeprefix("bytes=").partition("-")[0])

    async def _body(self, request: web.Request, response: web.StreamResponse, body: bytes) -> None:
        sent = 0
        cut, self.trouble.cut_after = self.trouble.cut_after, None
        for at in range(0, len(body), CHUNK_BYTES):
            if cut is not None and sent >= cut:
                assert request.transport is not None
                request.transport.abort()
                return
            if self.trouble.stall_after is not None and sent >= self.trouble.stall_after:
                self.stalled.set()
                await self._until_unstalled()
            piece = body[at : at + CHUNK_BYTES]
            await response.write(piece)
            sent += len(piece)
            self.bytes_sent += len(piece)
        await response.write_eof()

    async def _until_unstalled(self) -> None:
        while self.trouble.stall_after is not None:  # noqa: ASYNC110  (a test changes it from another thread)
            await asyncio.sleep(0.01)

    # Life -------------------------------------------------------------------------------------------------------

    def _serve(self, is_up: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        application = web.Application()
        application.router.add_get("/api/models/{repo:[^/]+/[^/]+}/revision/{revision:.+}", self.info)
        application.router.add_get("/api/models/{repo:[^/]+/[^/]+}/tree/{revision:[^/]+}", self.tree)
        application.router.add_get("/{repo:[^/]+/[^/]+}/resolve/{revision:[^/]+}/{path:.+}", self.resolve)
        application.router.add_get("/cdn/{path:.+}", self.cdn)
        runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.port = runner.addresses[0][1]
        is_up.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    @contextlib.contextmanager
    def serving(self) -> Iterator["Hub"]:
        """Listen on a port of 127.0.0.1 while inside."""
        is_up = threading.Event()
        thread = threading.Thread(target=self._serve, args=(is_up,), name="hub")
        thread.start()
        assert is_up.wait(10)
        try:
            yield self
        finally:
            self.trouble.stall_after = None
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join(10)
