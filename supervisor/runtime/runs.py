"""Between the core's runs and the relay: sends a task to its worker, and turns the relay's facts into events."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial

from adapters import sampling
from adapters.base import Adapter, CompletionCall, EngineRequest, Finished, StreamDecoder
from supervisor.core import events as ev
from supervisor.core.effects import AbortRun, StartRun
from supervisor.core.plan import public_id_of
from supervisor.runtime.blueprint import PoolBlueprint
from supervisor.runtime.calls import one_shot_call
from supervisor.runtime.engine_http import EngineHttp
from supervisor.runtime.outputs import OutputShelf
from supervisor.runtime.relay import Relay
from supervisor.runtime.relay_facts import RunFault, RunOrder, Stall, TokenMeter
from supervisor.runtime.stream_logs import StreamLogs
from supervisor.runtime.task_codec import read_body
from supervisor.wire.codes import FinishReason, Workload
from supervisor.wire.frames import Started, started_frame

_LOST = frozenset({RunFault.UNREACHABLE, RunFault.ENGINE_LOST})
_REASONS = {RunFault.CLIENT_ERROR: "token_budget", RunFault.DIVERGED: "determinism"}


class Runs:
    """Performs StartRun and AbortRun; is the relay's sink."""

    def __init__(
        self,
        blueprints: Mapping[str, PoolBlueprint],
        logs: StreamLogs,
        engine_of: Callable[[str, int], EngineHttp | None],
        post: Callable[[ev.Event], None],
        outputs: OutputShelf,
    ) -> None:
        self._blueprints = blueprints
        self._logs = logs
        self._engine_of = engine_of
        self._post = post
        self._outputs = outputs
        self._relay = Relay(self)
        self.meters: defaultdict[str, TokenMeter] = defaultdict(TokenMeter)
        """By the public id of the pool: its tokens are its own, whichever revision made them."""

    def start(self, effect: StartRun) -> None:
        """Publish `started` and send the request."""
        task = effect.task
        stream = self._logs.begin(task.job_id, task.attempt)
        stream.append_started(_started(effect))
        engine = self._engine_of(effect.pool_id, effect.incarnation)
        adapter = self._blueprints[effect.pool_id].adapter
        if engine is None or adapter is None:
            gone = "The worker is gone."
            self._post(ev.RunFailed(effect.run_id, "engine", gone, stream.tokens, is_worker_lost=True, is_unseen=True))
            return
        request, decoder = self._asked(effect, adapter)
        order = RunOrder(
            job_id=task.job_id,
            run_id=effect.run_id,
            engine=engine,
            request=request,
            decoder=decoder,
            log=stream,
            idle_ms=effect.idle_ms,
            first_token_ms=effect.first_token_ms,
            tokens_max=task.max_tokens,
            meter=self.meters[public_id_of(effect.pool_id)],
        )
        self._relay.start(order)

    def _asked(self, effect: StartRun, adapter: Adapter) -> tuple[EngineRequest, Callable[[int], StreamDecoder]]:
        """What is sent to the engine, and how its answer is read."""
        if effect.task.workload is Workload.COMPLETION:
            return adapter.request_completion(self._completion(effect)), adapter.decoder
        call = one_shot_call(effect.task.workload, read_body(effect.task).inputs)
        return adapter.request_outputs(call), partial(adapter.outputs_decoder, call)

    def _completion(self, effect: StartRun) -> CompletionCall:
        blueprint = self._blueprints[effect.pool_id]
        part = read_body(effect.task)
        return CompletionCall(
            prompt=part.prompt,
            max_tokens=effect.task.max_tokens,
            seed=part.seed,
            sampler={**sampling.profile(blueprint.plan.sampler_profile_version), **part.sampler},
            stop=part.stop,
            reuse_kv=effect.kv_warmth,  # a cold run reads nobody's KV: of no ended session, of no other tenant
            slot=effect.slot,
        )

    def abort(self, effect: AbortRun) -> None:
        """Close the engine's request; the tally is the answer."""
        tally = self._relay.abort(effect.run_id)
        if tally is None:  # it ended in this very turn; what it emitted is known to its task already
            self._post(ev.RunAborted(effect.run_id, None, 0, 0, 0.0))
            return
        self._post(
            ev.RunAborted(effect.run_id, tally.tokens_in, tally.tokens_out, tally.tokens_emitted, tally.decode_ms)
        )

    # The relay's facts ------------------------------------------------------------------------------------------

    def run_first_token(self, job_id: str, run_id: int) -> None:  # noqa: ARG002  (of the protocol)
        """The first token is in the log."""
        self._post(ev.FirstTokenCame(run_id))

    def run_finished(self, job_id: str, run_id: int, finished: Finished, tokens_emitted: int, decode_ms: float) -> None:
        """The engine said that the answer is complete."""
        if finished.outputs:
            self._outputs.keep(job_id, finished.outputs)
        reason = FinishReason(finished.reason)
        self._post(
            ev.RunFinished(
                run_id,
                reason,
                finished.tokens_in,
                finished.tokens_out,
                tokens_emitted,
                decode_ms,
                finished.tokens_cached,
            )
        )

    def run_failed(self, job_id: str, run_id: int, kind: RunFault, message: str, tokens_emitted: int) -> None:  # noqa: ARG002
        """The run broke."""
        self._post(
            ev.RunFailed(
                run_id,
                _REASONS.get(kind, "engine"),
                message,
                tokens_emitted,
                is_client_fault=kind is RunFault.CLIENT_ERROR,
                is_worker_lost=kind in _LOST,
                is_busy=kind is RunFault.BUSY,
                is_unseen=kind is RunFault.UNREACHABLE,
            )
        )

    def run_stalled(self, job_id: str, run_id: int, which: Stall) -> None:  # noqa: ARG002
        """No token came in time."""
        self._post(ev.RunStalled(run_id, which))


def _started(effect: StartRun) -> bytes:
    task = effect.task
    return started_frame(
        Started(
            queue_position=task.queue_position,
            predicted_start_ms=task.predicted_start_ms,
            queue_time_ms=round(task.queue_time_ms),
            pool_id=public_id_of(effect.pool_id),
            replica_id=effect.replica_id,
            engine_version=effect.engine_version,
            model_digest=effect.model_digest,
            kv_warmth=effect.kv_warmth,
        )
    )
