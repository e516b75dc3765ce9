"""Every bad value of a config is refused at its own line, column and JSON pointer, and with a sentence that helps."""

import pytest

from supervisor.config.problems import Problem
from tests.config.texts import DIGEST, MODELS, OTHER_DIGEST, SOURCE, a_config, a_pool, problems_of

Case = tuple[str, str, int, int, str, str]

HIGH_CAP = ["admission:", "  priorities:", "    - { name: batch, queue_capacity: 9 }", "queue: { capacity: 8 }"]
TWICE = ["admission:", "  priorities:", "    - { name: batch }", "    - { name: batch }"]
TYPO_CLASS = ["admission: { priorities: [{ name: urgent }] }"]

IDS: list[Case] = [
    ("id with slash", a_config(a_pool(id="a/b")), 2, 9, "/pools/0/id", "is not a pool id"),
    ("id climbing", a_config(a_pool(id="..")), 2, 9, "/pools/0/id", "is not a pool id"),
    ("id with space", a_config(a_pool(id="a b")), 2, 9, "/pools/0/id", "is not a pool id"),
    ("id of 300", a_config(a_pool(id="x" * 300)), 2, 9, "/pools/0/id", "is not a pool id"),
    ("id upper case", a_config(a_pool(id="A")), 2, 9, "/pools/0/id", "is not a pool id"),
    ("id with newline", a_config(a_pool(id='"a\\n"')), 2, 9, "/pools/0/id", "is not a pool id"),
    ("id a number", a_config(a_pool(id="7")), 2, 9, "/pools/0/id", "should be a text (put it in quotes), not 7"),
    ("id twice", a_config(a_pool(), a_pool()), 6, 9, "/pools/1/id", "already used by pool 0"),
    ("no pools", "pools: []\n", 1, 8, "/pools", "at least 1 item"),
    ("pools missing", "mode: strict\n", 1, 1, "/pools", "is required"),
    ("pools a mapping", "pools: {}\n", 1, 8, "/pools", "should be a list, not a mapping"),
    ("pool a text", "pools:\n  - a\n", 2, 5, "/pools/0", "mapping"),
    ("engine missing", "pools:\n  - id: a\n    model: m\n    devices: [0]\n", 2, 5, "/pools/0/engine", "is required"),
    (
        "engine typo",
        a_config(a_pool(engine="llama")),
        3,
        13,
        "/pools/0/engine",
        "'llamacpp', 'vllm', 'tgi' or 'triton'",
    ),
    ("model a path", a_config(a_pool(model="../m.gguf")), 4, 12, "/pools/0/model", "is not a model"),
    ("model an option", a_config(a_pool(model="--help")), 4, 12, "/pools/0/model", "is not a model"),
    ("model short digest", a_config(a_pool(model="sha256:ab")), 4, 12, "/pools/0/model", "is not a model"),
    ("quant", a_config(a_pool("quant: 'q4 k'")), 6, 12, "/pools/0/quant", "quantisation"),
    ("profile", a_config(a_pool("sampler_profile_version: 1")), 6, 30, "/pools/0/sampler_profile_version", "a text"),
    ("ctx zero", a_config(a_pool("ctx: 0")), 6, 10, "/pools/0/ctx", "greater than or equal to 1, not 0"),
    ("ctx text", a_config(a_pool("ctx: '8'")), 6, 10, "/pools/0/ctx", "should be a whole number, not '8'"),
    ("ctx fraction", a_config(a_pool("ctx: 8.5")), 6, 10, "/pools/0/ctx", "should be a whole number, not 8.5"),
    ("ctx true", a_config(a_pool("ctx: true")), 6, 10, "/pools/0/ctx", "should be a whole number, not true"),
    ("ctx vast", a_config(a_pool(f"ctx: {'9' * 400}")), 6, 10, "/pools/0/ctx", "whole number"),
    ("preload", a_config(a_pool("preload: false")), 6, 14, "/pools/0/preload", "ORCH-3002"),
    (
        "versions mixed",
        a_config(a_pool("require_same_engine_version: false")),
        6,
        34,
        "/pools/0/require_same_engine_version",
        "ORCH-3046",
    ),
    ("preload no", a_config(a_pool("preload: no")), 6, 14, "/pools/0/preload", "should be true or false, not 'no'"),
]

DEVICES: list[Case] = [
    ("none", a_config(a_pool(devices="[]")), 5, 14, "/pools/0/devices", "at least 1 item"),
    ("missing", "pools:\n  - id: a\n    engine: vllm\n    model: m\n", 2, 5, "/pools/0/devices", "is required"),
    ("65", a_config(a_pool(devices=str(list(range(65))))), 5, 14, "/pools/0/devices", "should have at most 64 items"),
    ("twice", a_config(a_pool(devices="[0, 0]")), 5, 18, "/pools/0/devices/1", "already in this device mask"),
    ("negative", a_config(a_pool(devices="[-1]")), 5, 15, "/pools/0/devices/0", "neither a GPU index"),
    ("text", a_config(a_pool(devices="[gpu0]")), 5, 15, "/pools/0/devices/0", "neither a GPU index"),
    ("boolean", a_config(a_pool(devices="[true]")), 5, 15, "/pools/0/devices/0", "neither a GPU index"),
    ("bare", a_config(a_pool(devices="0")), 5, 14, "/pools/0/devices", "should be a list, not 0"),
    (
        "split short",
        a_config(a_pool("tensor_split: [1]", devices="[0, 1]")),
        6,
        19,
        "/pools/0/tensor_split",
        "2 devices",
    ),
    ("split zero", a_config(a_pool("tensor_split: [0]")), 6, 20, "/pools/0/tensor_split/0", "greater than 0"),
    ("split negative", a_config(a_pool("tensor_split: [-1]")), 6, 20, "/pools/0/tensor_split/0", "greater than 0"),
    ("split NaN", a_config(a_pool("tensor_split: [.nan]")), 6, 20, "/pools/0/tensor_split/0", "a finite number"),
    ("split inf", a_config(a_pool("tensor_split: [.inf]")), 6, 20, "/pools/0/tensor_split/0", "a finite number"),
    ("split 0.9", a_config(a_pool("tensor_split: [0.9]")), 6, 19, "/pools/0/tensor_split", "sum to 0.9 instead of 1"),
    ("split 1.1", a_config(a_pool("tensor_split: [1.1]")), 6, 19, "/pools/0/tensor_split", "sum to 1.1 instead of 1"),
]

QUEUES: list[Case] = [
    ("capacity 0", a_config(a_pool("queue: { capacity: 0 }")), 6, 24, "/pools/0/queue/capacity", "equal to 1, not 0"),
    ("capacity -1", a_config(a_pool("queue: { capacity: -1 }")), 6, 24, "/pools/0/queue/capacity", "not -1"),
    ("capacity 10^9", a_config(a_pool("queue: { capacity: 1000000000 }")), 6, 24, "/pools/0/queue/capacity", "1000000"),
    (
        "policy typo",
        a_config(a_pool("queue: { full_policy: drop }")),
        6,
        27,
        "/pools/0/queue/full_policy",
        "'drop-lru'",
    ),
    ("bytes 0", a_config(a_pool("queue: { bytes_max: 0 }")), 6, 25, "/pools/0/queue/bytes_max", "equal to 1024"),
    ("class cap", a_config(a_pool(*HIGH_CAP)), 8, 42, "/pools/0/admission/priorities/0/queue_capacity", "(8)"),
    ("class twice", a_config(a_pool(*TWICE)), 9, 19, "/pools/0/admission/priorities/1/name", "already listed"),
    ("class unknown", a_config(a_pool(*TYPO_CLASS)), 6, 39, "/pools/0/admission/priorities/0/name", "'interactive' or"),
    (
        "no classes",
        a_config(a_pool("admission: { priorities: [] }")),
        6,
        30,
        "/pools/0/admission/priorities",
        "at least",
    ),
    (
        "rate 0",
        a_config(a_pool("admission: { priorities: [{ name: batch, rate_limit_rps: 0 }] }")),
        6,
        62,
        "/pools/0/admission/priorities/0/rate_limit_rps",
        "equal to 0.001",
    ),
    (
        "rate next to 0",
        a_config(a_pool("admission: { priorities: [{ name: batch, rate_limit_rps: 1.0e-300 }] }")),
        6,
        62,
        "/pools/0/admission/priorities/0/rate_limit_rps",
        "equal to 0.001",
    ),
    (
        "burst alone",
        a_config(a_pool("admission: { priorities: [{ name: batch, burst: 2 }] }")),
        6,
        53,
        "/pools/0/admission/priorities/0/burst",
        "without a rate_limit_rps",
    ),
]

LIMITS: list[Case] = [
    ("wall 0", a_config(a_pool("timeouts: { wall_ms: 0 }")), 6, 26, "/pools/0/timeouts/wall_ms", "equal to 1, not 0"),
    ("idle 0", a_config(a_pool("timeouts: { idle_ms: 0 }")), 6, 26, "/pools/0/timeouts/idle_ms", "equal to 1, not 0"),
    (
        "idle above wall",
        a_config(a_pool("timeouts: { wall_ms: 10, idle_ms: 11 }")),
        6,
        39,
        "/pools/0/timeouts/idle_ms",
        "above wall_ms (10)",
    ),
    ("slots 0", a_config(a_pool("slots: 0")), 6, 12, "/pools/0/slots", "equal to 1, not 0"),
    ("slots 257", a_config(a_pool("slots: 257")), 6, 12, "/pools/0/slots", "equal to 256, not 257"),
    ("strict slots", a_config(a_pool("slots: 2")), 6, 12, "/pools/0/slots", "determinism: best_effort"),
    ("no workload", a_config(a_pool("workloads: []")), 6, 16, "/pools/0/workloads", "at least 1 item"),
    ("workload typo", a_config(a_pool("workloads: [embed]")), 6, 17, "/pools/0/workloads/0", "'embedding'"),
    ("workload bare", a_config(a_pool("workloads: rerank")), 6, 16, "/pools/0/workloads", "should be a list"),
    (
        "workload twice",
        a_config(a_pool("workloads: [rerank, rerank]", engine="vllm")),
        6,
        25,
        "/pools/0/workloads/1",
        "rerank is already listed",
    ),
    (
        "two workloads",
        a_config(a_pool("workloads: [completion, embedding]", "ctx: 512")),
        6,
        16,
        "/pools/0/workloads",
        "one workload per process",
    ),
    (
        "embedding slots",
        a_config(a_pool("workloads: [embedding]", "ctx: 512", "slots: 2", "determinism: best_effort")),
        8,
        12,
        "/pools/0/slots",
        "does embedding takes one slot",
    ),
    ("embedding ctx", a_config(a_pool("workloads: [embedding]")), 6, 16, "/pools/0/workloads", "needs `ctx`"),
    ("grace -2", a_config(a_pool("disconnect_grace_ms: -2")), 6, 26, "/pools/0/disconnect_grace_ms", "to -1, not -2"),
    ("port 70000", a_config(tail="listen: { port: 70000 }\n"), 6, 17, "/listen/port", "65535, not 70000"),
    ("port text", a_config(tail="listen: { port: '80' }\n"), 6, 17, "/listen/port", "a whole number, not '80'"),
    ("host name", a_config(tail="listen: { host: example.org }\n"), 6, 17, "/listen/host", "not an IP address"),
    ("socket long", a_config(tail=f"listen: {{ socket: /{'x' * 120} }}\n"), 6, 19, "/listen/socket", "at most 107"),
    ("home", a_config(tail="state_dir: ~/x\n"), 6, 12, "/state_dir", "'~' is not expanded"),
    ("durability", a_config(tail="durability: fast\n"), 6, 13, "/durability", "'full' or 'normal'"),
    ("mode", a_config(tail="mode: lax\n"), 6, 7, "/mode", "'strict' or 'compat'"),
    ("few ids", a_config(tail="retention: { ids_min: 9 }\n"), 6, 23, "/retention/ids_min", "10000, not 9"),
    ("drain", a_config(tail="shutdown: { drain_ms: -1 }\n"), 6, 23, "/shutdown/drain_ms", "equal to 0, not -1"),
    ("engine", a_config(tail="engines: { lama: {} }\n"), 6, 12, "/engines/lama", "'llamacpp', 'vllm'"),
]

MODEL_FILES: list[Case] = [
    ("no digest", a_config(tail="models: { m: { path: m } }\n"), 6, 14, "/models/m/digest", "is required"),
    (
        "bad digest",
        a_config(tail="models: { m: { path: m, digest: ab } }\n"),
        6,
        33,
        "/models/m/digest",
        "64 lower-case",
    ),
    ("no path", a_config(tail=f"models: {{ m: {{ digest: '{DIGEST}' }} }}\n"), 6, 14, "/models/m/path", "is required"),
    ("bad name", a_config(tail="models: { M/x: { path: m } }\n"), 6, 11, "/models/M~1x", "is not a model"),
    (
        "key and digest differ",
        a_config(tail=f"models:\n  '{DIGEST}': {{ path: m, digest: '{OTHER_DIGEST}' }}\n"),
        7,
        97,
        f"/models/{DIGEST}/digest",
        "contradicts",
    ),
]

LAUNCHES: list[Case] = [
    ("shell", a_config(a_pool("launch: { command: llama-server }")), 6, 24, "/pools/0/launch/command", "a list, not"),
    ("no port", a_config(a_pool("launch: { command: [x] }")), 6, 24, "/pools/0/launch/command", "{port}"),
    (
        "placeholder",
        a_config(a_pool("launch: { command: ['{port}', '{prt}'] }")),
        6,
        35,
        "/pools/0/launch/command/1",
        "{prt} is unknown",
    ),
    (
        "two ways",
        a_config(a_pool("launch: { command: ['{port}'], extra_args: ['-x'] }")),
        6,
        48,
        "/pools/0/launch/extra_args",
        "no effect beside `command`",
    ),
    (
        "visible devices",
        a_config(a_pool("launch: { env: { CUDA_VISIBLE_DEVICES: '1' } }")),
        6,
        44,
        "/pools/0/launch/env/CUDA_VISIBLE_DEVICES",
        "`devices` decides",
    ),
    ("env name", a_config(a_pool("launch: { env: { a=b: x } }")), 6, 22, "/pools/0/launch/env/a=b", "variable"),
    ("env number", a_config(a_pool("launch: { env: { A: 1 } }")), 6, 25, "/pools/0/launch/env/A", "put it in quotes"),
    ("NUL", a_config(a_pool('launch: { extra_args: ["a\\0"] }')), 6, 28, "/pools/0/launch/extra_args/0", "NUL"),
]

SETS: list[Case] = [
    (
        "policies",
        a_config(a_pool(), a_pool("queue: { full_policy: drop-lru }", id="b")),
        10,
        27,
        "/pools/1/queue/full_policy",
        "same as in pool a",
    ),
    (
        "one says nothing",
        a_config(a_pool("queue: { full_policy: drop-lru }"), a_pool(id="b")),
        7,
        5,
        "/pools/1/queue/full_policy",
        "same as in pool a",
    ),
    (
        "limits",
        a_config(a_pool(), a_pool("admission: { priorities: [{ name: batch, rate_limit_rps: 1 }] }", id="b")),
        10,
        30,
        "/pools/1/admission/priorities",
        "they form one replica set",
    ),
    (
        "workloads",
        a_config(a_pool("ctx: 8"), a_pool("ctx: 8", "workloads: [embedding]", id="b")),
        12,
        16,
        "/pools/1/workloads",
        "same as in pool a",
    ),
    (
        "determinism",
        a_config(a_pool(), a_pool("determinism: best_effort", id="b")),
        10,
        18,
        "/pools/1/determinism",
        "same as in pool a",
    ),
    (
        "name and digest",
        a_config(a_pool(), a_pool("queue: { full_policy: drop-lru }", id="b", model=DIGEST), tail=MODELS),
        10,
        27,
        "/pools/1/queue/full_policy",
        "same as in pool a",
    ),
]


@pytest.mark.orch("ORCH-3030", "ORCH-3002", "ORCH-3004", "ORCH-3005", "ORCH-3012", "ORCH-3016", "ORCH-3037")
@pytest.mark.parametrize(
    ("text", "line", "column", "pointer", "sentence"),
    [
        pytest.param(*case[1:], id=case[0])
        for case in [*IDS, *DEVICES, *QUEUES, *LIMITS, *MODEL_FILES, *LAUNCHES, *SETS]
    ],
)
def test_is_refused_where_it_stands(text: str, line: int, column: int, pointer: str, sentence: str) -> None:
    [problem] = problems_of(text)

    assert problem == Problem(str(SOURCE), line, column, pointer, problem.message)
    assert sentence in problem.message


def test_everything_wrong_is_said_at_once_in_file_order() -> None:
    text = a_config(a_pool("ctx: 0", "slots: 0", engine="x"), tail="durability: x\nmode: x\n")

    problems = problems_of(text)

    assert [problem.line for problem in problems] == [3, 6, 7, 8, 9]


def test_a_secret_in_the_environment_of_an_engine_is_not_repeated() -> None:
    [problem] = problems_of(a_config(a_pool("launch: { env: { A: 987654321 } }")))

    assert "987654321" not in str(problem)


def test_a_bad_wall_is_not_also_reported_as_a_bad_default_of_idle() -> None:
    problems = problems_of(a_config(a_pool("timeouts: { wall_ms: -5 }")))

    assert [problem.pointer for problem in problems] == ["/pools/0/timeouts/wall_ms"]
