"""A llama.cpp-shaped engine for probes: it has a key, loads for a while, decodes, and may misbehave in named ways."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.runtime.runs import stop_event, token_event
from tests.runtime.scripted_engine import HEAD, LAST_CHUNK, Peer, Request, answer, chunk, scripted_engine

KEY = "the-workers-key"
PROPS = {"default_generation_settings": {"n_ctx": 2048}, "total_slots": 2, "build_info": "b11434-unknown"}
MODELS = {"object": "list", "data": [{"id": "tiny"}]}
METRICS = (
    b"# TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing 0\nllamacpp:tokens_predicted_total 9\n"
)


@dataclass
class LlamaPeer:
    """What the engine is like, and what it saw."""

    port: int = 0
    loading: int = 0
    """Health answers before it is ready."""
    takes_any_key: bool = False
    knows_key: bool = True
    ignores_cancel: bool = False
    tokens: int = 1000
    """What it decodes where it is not asked for less."""
    metrics: bytes = METRICS
    stuck_looks: int = 0
    """Looks at the slots that still see the last task."""
    busy: int = 0
    looks: int = 0
    completions: list[dict[str, object]] = field(default_factory=list)
    outputs_missing: int = 0
    """Vectors or scores that it leaves out of its answers."""
    tokenized: list[str] = field(default_factory=list)
    one_shots: list[int] = field(default_factory=list)
    """The number of texts of each embedding and rerank."""

    async def serve(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            path = request.head.split(b" ")[1].decode()
            if path == "/completion":
                await self._complete(peer, json.loads(request.body))
            else:
                await peer.send(self._answer(path, request))

    def _answer(self, path: str, request: Request) -> bytes:
        if path == "/health":
            self.loading -= 1
            return answer(b'{"status":"ok"}') if self.loading < 0 else answer(b"{}", "503 Loading")
        if not self._is_known(request):
            return answer(b'{"error":{"message":"Invalid API Key"}}', "401 Unauthorized")
        match path:
            case "/props":
                return answer(json.dumps(PROPS).encode())
            case "/v1/models":
                return answer(json.dumps(MODELS).encode())
            case "/slots":
                return answer(json.dumps(self._slots()).encode())
            case "/v1/embeddings":
                given = self._given(json.loads(request.body)["input"])
                rows = [{"index": index, "embedding": [0.6, 0.8]} for index in given]
                return answer(json.dumps({"data": rows, "usage": {"prompt_tokens": 4}}).encode())
            case "/v1/rerank":
                given = self._given(json.loads(request.body)["documents"])
                ranked = [{"index": index, "relevance_score": index / 2} for index in reversed(given)]
                return answer(json.dumps({"results": ranked, "usage": {"prompt_tokens": 4}}).encode())
            case "/tokenize":
                self.tokenized.append(json.loads(request.body)["content"])
                words = self.tokenized[-1].split()
                return answer(json.dumps({"tokens": list(range(len(words) + 1))}).encode())
            case "/metrics":
                return answer(self.metrics)
            case _:
                return answer(b"", "404 Not Found")

    def _is_known(self, request: Request) -> bool:
        return self.takes_any_key or (self.knows_key and f"Bearer {KEY}".encode() in request.head)

    def _given(self, texts: list[str]) -> range:
        self.one_shots.append(len(texts))
        return range(len(texts) - self.outputs_missing)

    def _slots(self) -> list[dict[str, object]]:
        self.looks += 1
        self.stuck_looks -= 1
        busy = self.busy or self.stuck_looks >= 0
        return [{"id": 0, "is_processing": bool(busy)}, {"id": 1, "is_processing": False}]

    async def _complete(self, peer: Peer, body: dict[str, object]) -> None:
        """One event for each turn of the loop, until the client is gone."""
        self.completions.append(body)
        asked = body["n_predict"]
        assert isinstance(asked, int)
        count = min(asked, self.tokens)
        self.busy += 1
        try:
            await peer.send(HEAD)
            for index in range(count):
                await peer.send(chunk(token_event("x", index + 1)))
                await asyncio.sleep(0)
            await peer.send(chunk(stop_event(count)) + LAST_CHUNK)
        finally:
            self.busy -= 0 if self.ignores_cancel else 1


@contextlib.asynccontextmanager
async def llama_peer(peer: LlamaPeer) -> AsyncIterator[LlamaPeer]:
    async with scripted_engine(peer.serve) as engine:
        peer.port = engine.port
        yield peer
