"""The HTTP side of the fake engine: routes, the key, loading, and completions on their slots."""

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support import fake_engine_answers as answers
from tests.support.fake_engine_decode import Slots, tokenize
from tests.support.fake_engine_script import Script, load_script
from tests.support.fake_engine_stream import BadRequestError, Client, Completion, Decoding, StreamEndedError

PUBLIC = frozenset({"/health", "/v1/health"})


@dataclass(frozen=True)
class Options:
    """What the command line and the environment say."""

    model: str
    alias: str
    host: str
    port: int
    ctx_per_slot: int
    slots: int
    key: str | None
    ping_s: float
    has_metrics: bool
    script: str | None


@dataclass(frozen=True)
class Ask:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Engine:
    """The server's state."""

    def __init__(self, options: Options, script: Script, *, when_ready: Callable[[], None]) -> None:
        self._options = options
        self._began = asyncio.get_running_loop().time()
        self._when_ready = when_ready
        self._is_ready = False
        self._version = script.version
        self._tasks = 0
        self._tokens_in = 0
        self._tokens_out = 0
        self._slots = Slots(options.slots)
        self._in_flight: set[asyncio.Task[Any]] = set()

    def script(self) -> Script:
        """As it stands now."""
        return load_script(self._options.script).for_model(self._options.model)

    def is_loading(self, script: Script) -> bool:
        """Whether the model is still being loaded."""
        if not self._is_ready:
            now = asyncio.get_running_loop().time()
            if script.never_ready or now < self._began + script.ready_after_s:
                return True
            self._is_ready = True
            self._when_ready()
        return False

    async def wait_idle(self, within_s: float) -> None:
        """Until no completion is under way, or the time is over."""
        if self._in_flight:
            await asyncio.wait(self._in_flight, timeout=within_s)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, as many requests as it brings."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, StreamEndedError):
            while (ask := await _read(reader)) is not None:
                if not await self._answer(ask, reader, writer):
                    break
        with contextlib.suppress(ConnectionError):
            writer.close()
            await writer.wait_closed()

    async def _answer(self, ask: Ask, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection stays open."""
        script = self.script()
        if ask.path in PUBLIC and script.health_hangs:
            await reader.read(1)
            return False
        is_scripted = ask.path in script.answers
        if (ask.method, ask.path) == ("POST", "/completion") and self._may_enter(ask, script) and not is_scripted:
            try:
                wanted = self._completion(ask.body)
                script = script.for_prompt(wanted.prompt)
            except _TooLongError as long:
                data = answers.refusal(400, str(long), **long.numbers)
            except (BadRequestError, ValueError) as bad:
                data = answers.refusal(400, str(bad))
            else:
                completing = asyncio.create_task(self._complete(wanted, script, reader, writer))
                self._in_flight.add(completing)
                completing.add_done_callback(self._in_flight.discard)
                return await completing
        else:
            data = self._control(ask, script)
        writer.write(data)
        await writer.drain()
        return data.startswith(b"HTTP/1.1 200")

    def _may_enter(self, ask: Ask, script: Script) -> bool:
        given = ask.headers.get("authorization", "").removeprefix("Bearer ") or ask.headers.get("x-api-key", "")
        return not self.is_loading(script) and (script.ignore_key or self._options.key in {None, given})

    def _control(self, ask: Ask, script: Script) -> bytes:
        if (fixed := script.answers.get(ask.path)) is not None:
            return answers.response(fixed.get("status", 200), fixed.get("body", "").encode())
        if self.is_loading(script):
            return answers.refusal(503, "Loading model")
        if ask.path not in PUBLIC and not self._may_enter(ask, script):
            return answers.refusal(401, "Invalid API Key")
        if ask.path == "/metrics" and not self._options.has_metrics:
            message = "This server does not support metrics endpoint. Start it with `--metrics`"
            return answers.refusal(501, message)
        if (ask.method, ask.path) == ("GET", "/metrics"):
            page = answers.metrics(self._slots, tokens_in=self._tokens_in, tokens_out=self._tokens_out)
            return answers.response(200, page, "text/plain; version=0.0.4")
        try:
            said = self._said(ask)
        except (BadRequestError, ValueError) as bad:
            return answers.refusal(400, str(bad))
        return answers.refusal(404, "File Not Found") if said is None else answers.response(200, answers.dumps(said))

    def _said(self, ask: Ask) -> object | None:
        options = self._options
        match ask.method, ask.path:
            case "GET", "/health" | "/v1/health":
                return {"status": "ok"}
            case "GET", "/props":
                return answers.props(
                    ctx=options.ctx_per_slot,
                    slots=options.slots,
                    alias=options.alias,
                    model=options.model,
                    version=self._version,
                )
            case "GET", "/v1/models" | "/models":
                return answers.models(alias=options.alias, ctx=options.ctx_per_slot)
            case "GET", "/slots":
                return [slot.report(options.ctx_per_slot) for slot in self._slots.all]
            case "POST", "/tokenize":
                content = _object(ask.body).get("content", "")
                return {"tokens": tokenize(content) if isinstance(content, str) else []}
        return None

    def _completion(self, body: bytes) -> Completion:
        asked = _object(body)
        if "prompt" not in asked:
            raise BadRequestError("[json.exception.out_of_range.403] key 'prompt' not found")
        prompt, limit = asked["prompt"], asked.get("n_predict", -1)
        if not isinstance(limit, int):
            raise BadRequestError("Field 'n_predict': [json.exception.type_error.302] type must be number")
        tokens = tokenize(prompt) if isinstance(prompt, str) else [int(one) for one in prompt]
        if len(tokens) >= self._options.ctx_per_slot:
            raise _TooLongError(len(tokens), self._options.ctx_per_slot)
        return Completion(
            prompt=prompt if isinstance(prompt, str) else json.dumps(prompt),
            tokens=tokens,
            seed=int(asked.get("seed", 0)),
            n_predict=limit,
            stop=tuple(asked.get("stop") or ()),
            is_streamed=bool(asked.get("stream", False)),
            id_slot=int(asked.get("id_slot", -1)),
            cache_prompt=bool(asked.get("cache_prompt", True)),
            ignore_eos=bool(asked.get("ignore_eos", False)),
            settings={key: value for key, value in asked.items() if key != "prompt"},
        )

    async def _complete(
        self, wanted: Completion, script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        if script.logs_prompts:
            sys.stderr.write(f"{wanted.prompt}\n")
            sys.stderr.flush()
        client = Client(reader, writer, ping_s=self._options.ping_s, is_heeded=not script.slot_sticks)
        slot = await self._slots.take(wanted.id_slot)
        self._tasks += 1
        slot.begin(wanted.tokens, task=self._tasks, remaining=wanted.n_predict, may_reuse=wanted.cache_prompt)
        decoding = Decoding(
            wanted, slot, script, client, ctx=self._options.ctx_per_slot, alias=self._options.alias
        )  # fmt: skip
        try:
            if wanted.is_streamed:
                await client.send(answers.STREAM_HEAD)
                client.is_streaming = True
            last = await decoding.run()
            sent = (
                answers.event(last) + b"0\r\n\r\n" if wanted.is_streamed else answers.response(200, answers.dumps(last))
            )
            await client.send(sent if not decoding.is_canceled else b"")
        finally:
            self._tokens_in += len(wanted.tokens) - slot.cached
            self._tokens_out += slot.decoded
            await self._slots.give(slot)
            has_left = client.is_gone
            await client.release()
        return not has_left


class _TooLongError(Exception):
    def __init__(self, tokens: int, ctx: int) -> None:
        size = f"request ({tokens} tokens) exceeds the available context size ({ctx} tokens), try increasing it"
        super().__init__(size)
        self.numbers = {"type": "exceed_context_size_error", "n_prompt_tokens": tokens, "n_ctx": ctx}


def _object(body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body)
    except ValueError as error:
        raise BadRequestError(f"[json.exception.parse_error.101] parse error: {error}") from error
    if not isinstance(asked, dict):
        raise BadRequestError("[json.exception.type_error.302] type must be object")
    return asked


async def _read(reader: asyncio.StreamReader) -> Ask | None:
    """The next request; None where the client has closed."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
    method, target, _ = first.split(" ", 2)
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Ask(method, target.partition("?")[0], headers, body)
