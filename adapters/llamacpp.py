"""The llama.cpp adapter: a pure description of `llama-server` (ORCH-3054).

Puts together the launch plan, the requests, the readers and the exit explanation of the sibling modules, as the
protocol of `adapters.base` asks for. Decides nothing else; opens, reads and runs nothing.
"""

from collections.abc import Mapping, Sequence

import msgspec

from adapters import llamacpp_answers as answers
from adapters import llamacpp_exits as exits
from adapters.base import (
    BadAnswerError,
    CompletionCall,
    EngineProps,
    EngineRequest,
    ExitExplanation,
    LaunchPlan,
    LaunchSpec,
    Liveness,
    SlotState,
    StopPlan,
    StreamDecoder,
    Workload,
)
from adapters.llamacpp_launch import plan_launch
from adapters.llamacpp_offload import find_spill
from adapters.llamacpp_outputs import OutputsDecoder
from adapters.llamacpp_stream import CompletionDecoder, ErrorDecoder
from adapters.oneshot import EmbeddingCall, OneShotCall

STOP_PLAN = StopPlan(steps=((15, 3.0), (15, 1.0), (9, 5.0)))
"""SIGTERM ends an idle server in 0.1 s, one with a reader within 2.7 s; the second ends it at once, with status 1."""

_JSON = (("Content-Type", "application/json"),)
_SAMPLERS = ("penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature")
_DRY_BREAKERS = ("\n", ":", '"', "*")
_SEED_BITS = 32
_SEED_RANDOM = 0xFFFF_FFFF
"""llama.cpp takes this seed for "choose one yourself"."""
_NORM_EUCLIDEAN = 2
"""llama.cpp's number for vectors of length 1; others are the largest absolute value, or a p-norm."""

_encode = msgspec.json.Encoder().encode


class LlamaCpp:
    """llama.cpp's HTTP server. Holds no state: one instance serves every pool."""

    name = "llamacpp"
    is_batch_invariant = False
    can_pin_slots = True
    workloads = frozenset(Workload)
    sse_headers: tuple[tuple[str, str], ...] = ()

    def plan_launch(self, spec: LaunchSpec) -> LaunchPlan:
        """The command line and environment. Raises PlanError for what is refused."""
        return plan_launch(spec)

    def plan_stop(self) -> StopPlan:
        """The signals that end it, once its readers are gone."""
        return STOP_PLAN

    def request_completion(self, call: CompletionCall) -> EngineRequest:
        """A streaming completion with every parameter stated.

        Always streamed: llama.cpp notices late that the reader of a plain answer has left. X-Conversation-Id is never
        sent: it makes the engine decode on after that. Without a slot the engine chooses one.
        """
        body = {
            "prompt": call.prompt,
            "n_predict": call.max_tokens,
            "seed": fold_seed(call.seed),
            "stop": list(call.stop),
            "stream": True,
            "cache_prompt": call.reuse_kv,
            "id_slot": -1 if call.slot is None else call.slot,
            "ignore_eos": call.ignore_eos,
            "n_keep": 0,
            "n_probs": 0,
            "logit_bias": [],
            "samplers": _SAMPLERS,
            "dry_sequence_breakers": _DRY_BREAKERS,
            "return_progress": False,
            "timings_per_token": False,
            **call.sampler,
        }
        return EngineRequest("POST", "/completion", _JSON, _encode(body))

    def decoder(self, status: int) -> StreamDecoder:
        """Events for a 200, one JSON error for anything else."""
        return CompletionDecoder() if status == 200 else ErrorDecoder(status)

    def request_outputs(self, call: OneShotCall) -> EngineRequest:
        """All vectors or all scores in one answer; a score's place in it is of no meaning."""
        if isinstance(call, EmbeddingCall):
            body = {"input": call.inputs, "encoding_format": "float", "embd_normalize": _NORM_EUCLIDEAN}
            return EngineRequest("POST", "/v1/embeddings", _JSON, _encode(body))
        ranking = {"query": call.query, "documents": call.documents, "top_n": len(call.documents)}
        return EngineRequest("POST", "/v1/rerank", _JSON, _encode(ranking))

    def outputs_decoder(self, call: OneShotCall, status: int) -> StreamDecoder:
        """One JSON document for a 200, one JSON error for anything else."""
        return OutputsDecoder(call) if status == 200 else ErrorDecoder(status)

    def request_health(self) -> EngineRequest:
        """Public even where a key is set; it proves that the process answers, not that it decodes."""
        return EngineRequest("GET", "/health")

    def read_health(self, status: int, body: bytes) -> Liveness:
        """503 while the model is loading, 200 with the word ok afterwards."""
        return answers.read_health(status, body)

    def request_props(self) -> tuple[EngineRequest, ...]:
        """Properties and the model card; both need the key, so that a stranger on the port is found out."""
        return EngineRequest("GET", "/props"), EngineRequest("GET", "/v1/models")

    def read_props(self, bodies: Sequence[bytes]) -> EngineProps:
        """Parse both. Raises BadAnswerError."""
        if len(bodies) != len(self.request_props()):
            msg = f"llama.cpp's properties are {len(self.request_props())} answers, not {len(bodies)}"
            raise BadAnswerError(msg)
        return answers.read_props(bodies[0], bodies[1])

    def request_slots(self) -> EngineRequest:
        """The state of the slots; ask a few times a second at most, for each answer delays the sight of a cancel."""
        return EngineRequest("GET", "/slots")

    def read_slots(self, body: bytes) -> tuple[SlotState, ...]:
        """Parse it. Raises BadAnswerError."""
        return answers.read_slots(body)

    def request_tokenize(self, text: str) -> EngineRequest:
        """Tokens as in a completion: the start token is added, and special tokens in the text count as such."""
        body = {"content": text, "add_special": True, "parse_special": True}
        return EngineRequest("POST", "/tokenize", _JSON, _encode(body))

    def read_tokenize(self, body: bytes) -> int:
        """Number of tokens. Raises BadAnswerError."""
        return answers.read_tokenize(body)

    def request_metrics(self) -> EngineRequest:
        """Its Prometheus page. One scraper only: each scrape starts the gauges' window anew."""
        return EngineRequest("GET", "/metrics")

    def read_metrics(self, body: bytes) -> Mapping[str, float]:
        """Parse it. Raises BadAnswerError."""
        return answers.read_metrics(body)

    def find_spill(self, tail: str) -> str | None:
        """What its log says of layers that stayed with the host."""
        return find_spill(tail)

    def explain_exit(self, returncode: int, tail: str) -> ExitExplanation:
        """Why it is gone."""
        return exits.explain_exit(returncode, tail)


def fold_seed(seed: int) -> int:
    """A signed 64-bit seed as llama.cpp's 32 bits: the upper half is xored into the lower one.

    0 to 2**32 - 2 stay as they are. 2**32 - 1, which would mean a random seed, becomes 2**32 - 2.
    """
    bits = seed & 0xFFFF_FFFF_FFFF_FFFF
    folded = (bits ^ (bits >> _SEED_BITS)) & _SEED_RANDOM
    return folded if folded != _SEED_RANDOM else folded - 1
