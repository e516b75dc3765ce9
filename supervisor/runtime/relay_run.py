"""The hot path: one run, from the engine's bytes to the readers' transports in one callback.

Bytes of one read are decoded, encoded as frames, appended to the task's log and written to its live readers before the
callback returns; no queue, task or event stands between. The run decides nothing: it reports how the engine's answer
ended, once. Completeness is the decoder's `Finished`, never the end of the connection.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from adapters.base import Decoded, EngineError, Fault, Finished, StreamDecoder, Token
from supervisor.runtime.engine_http import EngineHttpError, EngineUnreachableError, Exchange, ProtocolFaultError
from supervisor.runtime.relay_facts import RunFault, RunOrder, RunSink, RunTally, Stall
from supervisor.runtime.relay_watch import Watchdog
from supervisor.wire.frames import StreamMetrics, metrics_frame, token_frame

LOG_BYTES_MAX = 67_108_864
FRAMES_SLACK = 8
"""Frames allowed beyond the tokens asked for: an engine may end with text that it had held back."""

_FAULTS = {
    Fault.CLIENT: RunFault.CLIENT_ERROR,
    Fault.ENGINE: RunFault.ENGINE_ERROR,
    Fault.BUSY: RunFault.BUSY,
}
_KINDS = {"cut": RunFault.ENGINE_LOST, "overflow": RunFault.GARBAGE, "protocol": RunFault.GARBAGE}
"""Words of the adapters for an answer that says nothing itself: it stopped, or it is not the engine's protocol."""


class Run:
    """A StreamSink. `on_over` takes it off the relay's books before its last report."""

    __slots__ = (
        "_decoder",
        "_exchange",
        "_first_s",
        "_index",
        "_loop",
        "_metrics_count",
        "_metrics_due_s",
        "_metrics_every_s",
        "_on_over",
        "_order",
        "_sink",
        "_start_s",
        "_tokens_out",
        "_watch",
        "is_over",
    )

    def __init__(
        self, order: RunOrder, sink: RunSink, on_over: Callable[[int], object], metrics_every_s: float
    ) -> None:
        self.is_over = False
        self._order = order
        self._sink = sink
        self._on_over = on_over
        self._loop = asyncio.get_running_loop()
        self._watch = Watchdog(self._loop, self._stalled)
        self._decoder: StreamDecoder | None = None
        self._index = 0
        self._tokens_out = 0
        self._start_s = self._loop.time()
        self._first_s = 0.0
        self._metrics_count = 0
        self._metrics_due_s = 0.0
        self._metrics_every_s = metrics_every_s
        self._exchange: Exchange = order.engine.stream(order.request, self)
        if order.first_token_ms is not None:
            self._watch.watch(Stall.FIRST_TOKEN, order.first_token_ms / 1000)

    def abort(self) -> RunTally:
        """Close the engine's request now. No frame of this run is appended after this returns (ORCH-3026)."""
        self._stop()
        self._exchange.abort()
        return RunTally(self._order.log.tokens, self._tokens_out, None, self._decode_ms())

    def on_status(self, status: int, headers: Mapping[str, str]) -> None:  # noqa: ARG002  (of the protocol)
        """The status says how the body is to be read."""
        self._decoder = self._order.decoder(status)

    def on_body(self, data: bytes) -> None:
        """All that one read brought."""
        if not self.is_over and self._decoder is not None:
            self._take(self._decoder.feed(data))

    def on_done(self) -> None:
        """HTTP is complete; the decoder knows whether the answer is."""
        if not self.is_over and self._decoder is not None:
            self._take(self._decoder.eof())
            if not self.is_over:
                self._failed(RunFault.ENGINE_LOST, "the engine's answer ended without its last event")

    def on_lost(self, error: EngineHttpError) -> None:
        """The connection is gone."""
        if self.is_over:
            return
        if isinstance(error, EngineUnreachableError):
            self._failed(RunFault.UNREACHABLE, str(error))
        elif isinstance(error, ProtocolFaultError):
            self._failed(RunFault.GARBAGE, str(error))
        else:
            self._failed(RunFault.ENGINE_LOST, str(error))

    def _take(self, decoded: Sequence[Decoded]) -> None:
        frames: list[bytes] = []
        index = self._index
        count = self._tokens_out
        end: Finished | EngineError | None = None
        for item in decoded:
            if isinstance(item, Token):
                frames.append(token_frame(item.text, index))
                index += 1
                count = item.count
            else:
                end = item
                break
        if frames:
            self._publish(frames, count)
        if end is not None and not self.is_over:
            self._end(end)

    def _publish(self, frames: list[bytes], count: int) -> None:
        """One append, one write per reader; then the counters and, at most once a second, a metrics frame."""
        order, index = self._order, self._index
        log = order.log
        if index + len(frames) > order.tokens_max + FRAMES_SLACK or log.size_bytes > LOG_BYTES_MAX:
            self._failed(RunFault.GARBAGE, "the engine gave more tokens than it was asked for")
            return
        self._index = index + len(frames)
        order.meter.tokens_total += count - self._tokens_out
        self._tokens_out = count
        now_s = self._watch.touched_s = self._loop.time()
        if index == log.tokens:
            log.append_tokens(frames)
        elif (differs := log.offer_tokens(index, frames)) is not None:
            self._failed(RunFault.DIVERGED, f"the re-run differs from what was streamed at token {differs}")
            return
        if index == 0:
            self._first_token(now_s)
        elif now_s >= self._metrics_due_s:
            self._push_metrics(now_s)

    def _first_token(self, now_s: float) -> None:
        if self.is_over:
            return
        self._first_s = now_s
        self._metrics_due_s = now_s + self._metrics_every_s
        self._metrics_count = self._tokens_out
        self._watch.watch(Stall.IDLE, self._order.idle_ms / 1000)
        self._sink.run_first_token(self._order.job_id, self._order.run_id)

    def _push_metrics(self, now_s: float) -> None:
        log = self._order.log
        since_s = now_s - self._metrics_due_s + self._metrics_every_s
        rate = (self._tokens_out - self._metrics_count) / since_s if since_s else 0.0
        self._metrics_due_s = now_s + self._metrics_every_s
        self._metrics_count = self._tokens_out
        if log.has_live_readers and not self.is_over:
            elapsed_ms = round((now_s - self._start_s) * 1000)
            metrics = StreamMetrics(tokens_out=self._tokens_out, tokens_per_s=round(rate, 2), elapsed_ms=elapsed_ms)
            log.push_metrics(metrics_frame(metrics, log.seq))

    def _end(self, end: Finished | EngineError) -> None:
        order = self._order
        if isinstance(end, EngineError):
            self._failed(_KINDS.get(end.kind, _FAULTS[end.fault]), end.message)
        elif self._index < order.log.tokens:
            self._failed(RunFault.DIVERGED, f"the re-run ended after {self._index} tokens, which is too early")
        else:
            self._stop()
            self._exchange.drain()
            decode_ms = end.decode_ms if end.decode_ms is not None else self._decode_ms(is_whole=bool(end.outputs))
            self._sink.run_finished(order.job_id, order.run_id, end, order.log.tokens, decode_ms)

    def _failed(self, kind: RunFault, message: str) -> None:
        order = self._order
        self._stop()
        self._exchange.abort()
        self._sink.run_failed(order.job_id, order.run_id, kind, message, order.log.tokens)

    def _stalled(self, which: Stall) -> None:
        """The run stays on the relay's books until it is aborted: that is how its tally is asked for."""
        self.is_over = True
        self._exchange.abort()
        self._sink.run_stalled(self._order.job_id, self._order.run_id, which)

    def _stop(self) -> None:
        self.is_over = True
        self._watch.stop()
        self._on_over(self._order.run_id)

    def _decode_ms(self, *, is_whole: bool = False) -> float:
        """From the first token to the last one; for outputs that came whole, from dispatch to now."""
        if is_whole:
            return (self._loop.time() - self._start_s) * 1000
        return (self._watch.touched_s - self._first_s) * 1000 if self._index else 0.0
