"""The launch plan of llama.cpp: what stands in the command line, and what an operator may not put there."""

import re
from collections.abc import Mapping, Sequence

import pytest

from adapters.base import LaunchPlan, PlanError, Workload
from adapters.llamacpp import LlamaCpp
from tests.adapters.builders import GPU, OTHER_GPU, launch


def value_of(plan: LaunchPlan, flag: str) -> str | None:
    """What follows a flag that stands exactly once, None where it does not stand."""
    found = [at for at, argument in enumerate(plan.argv) if argument == flag]
    assert len(found) <= 1, f"{flag} stands {len(found)} times"
    return plan.argv[found[0] + 1] if found else None


@pytest.mark.orch("ORCH-3054", "ORCH-3018")
def test_the_whole_command_line_of_a_pool_with_one_slot_on_one_gpu() -> None:
    plan = LlamaCpp().plan_launch(launch())

    assert " ".join(plan.argv) == (
        "llama-server -m /models/m.gguf -a m --host 127.0.0.1 --port 18080 -c 2048 -np 1 -no-kvu --metrics --slots "
        "--no-ui --offline --sse-ping-interval 1 -ngl 999 -fit off -kvo -sm none -mg 0 -b 512 -ub 512 -cram 256 -nocb"
    )
    assert plan.env == {
        "OMP_WAIT_POLICY": "PASSIVE",
        "GGML_NO_BACKTRACE": "1",
        "LLAMA_API_KEY": "key-of-this-worker",
    }


def test_the_context_is_given_as_the_sum_over_the_slots() -> None:
    plan = LlamaCpp().plan_launch(launch(ctx=1000, slots=4))

    assert (value_of(plan, "-c"), value_of(plan, "-np")) == ("4000", "4")
    assert "-nocb" not in plan.argv


def test_several_gpus_share_the_layers_in_the_stated_ratios() -> None:
    alike = LlamaCpp().plan_launch(launch(devices=(GPU, OTHER_GPU)))
    stated = LlamaCpp().plan_launch(launch(devices=(GPU, OTHER_GPU), tensor_split=(0.75, 0.25)))

    assert (value_of(alike, "-sm"), value_of(alike, "-ts")) == ("layer", None)
    assert (value_of(stated, "-sm"), value_of(stated, "-ts")) == ("layer", "0.75,0.25")


def test_the_key_is_never_in_the_command_line() -> None:
    plan = LlamaCpp().plan_launch(launch())

    assert "key-of-this-worker" not in " ".join(plan.argv)


@pytest.mark.parametrize(
    ("extra", "flag", "value"),
    [
        (("--batch-size", "256"), "-b", None),
        (("-b", "256"), "-b", "256"),
        (("--cache_ram", "0"), "-cram", None),
        (("-sm", "row"), "-sm", "row"),
        (("--threads", "3"), "-t", None),
        (("-t", "3"), "-t", "3"),
    ],
)
def test_a_default_gives_way_to_the_operators_own(extra: Sequence[str], flag: str, value: str | None) -> None:
    plan = LlamaCpp().plan_launch(launch(extra_args=extra, threads=2))

    assert value_of(plan, flag) == value
    assert plan.argv[-len(extra) :] == tuple(extra)


def test_binary_and_threads_of_the_config() -> None:
    plan = LlamaCpp().plan_launch(launch(binary="/opt/llama-server", threads=6))

    assert plan.argv[0] == "/opt/llama-server"
    assert value_of(plan, "-t") == "6"


def test_a_cpu_that_plays_a_gpu_gets_small_batches() -> None:
    plan = LlamaCpp().plan_launch(launch(simulated=True))

    assert (value_of(plan, "-b"), value_of(plan, "-ub")) == ("64", "64")


@pytest.mark.parametrize(("workload", "flag"), [(Workload.EMBEDDING, "--embeddings"), (Workload.RERANK, "--rerank")])
@pytest.mark.parametrize("simulated", [False, True])
def test_a_one_shot_pool_takes_each_input_in_one_batch(workload: Workload, flag: str, simulated: bool) -> None:
    plan = LlamaCpp().plan_launch(launch(ctx=2048, workloads=frozenset({workload}), simulated=simulated))

    assert [argument for argument in plan.argv if argument in {"--embeddings", "--rerank"}] == [flag]
    assert [value_of(plan, name) for name in ("-c", "-b", "-ub", "-np")] == ["2048", "2048", "2048", "1"]


@pytest.mark.parametrize("extra", [("-b", "64"), ("-ub", "64"), ("--ubatch-size=64",), ("--batch_size", "64")])
def test_the_batch_of_a_one_shot_pool_is_not_the_operators(extra: Sequence[str]) -> None:
    with pytest.raises(PlanError, match=r"^extra_args may not hold -.*: the batch of this pool is its ctx$"):
        LlamaCpp().plan_launch(launch(workloads=frozenset({Workload.EMBEDDING}), extra_args=extra))


def test_the_pooling_of_an_embedding_pool_is_the_models_or_the_operators() -> None:
    silent = LlamaCpp().plan_launch(launch(workloads=frozenset({Workload.EMBEDDING})))
    stated = LlamaCpp().plan_launch(launch(workloads=frozenset({Workload.EMBEDDING}), extra_args=("--pooling", "cls")))

    assert (value_of(silent, "--pooling"), value_of(stated, "--pooling")) == (None, "cls")


@pytest.mark.parametrize(
    ("workloads", "slots", "says"),
    [
        (frozenset(Workload), 1, "one workload per process"),
        (frozenset[Workload](), 1, "one workload per process"),
        (frozenset({Workload.EMBEDDING}), 2, "takes one slot"),
        (frozenset({Workload.RERANK}), 4, "takes one slot"),
    ],
)
def test_what_one_process_cannot_do_at_once(workloads: frozenset[Workload], slots: int, says: str) -> None:
    with pytest.raises(PlanError, match=says):
        LlamaCpp().plan_launch(launch(workloads=workloads, slots=slots))


def test_the_operators_variables_are_added() -> None:
    plan = LlamaCpp().plan_launch(launch(env={"OMP_WAIT_POLICY": "ACTIVE", "LLAMA_ARG_FLASH_ATTN": "on"}))

    assert (plan.env["OMP_WAIT_POLICY"], plan.env["LLAMA_ARG_FLASH_ATTN"]) == ("ACTIVE", "on")


SPILLING_ARGS = [
    ("-ngl", "0"),
    ("-ngl", "auto"),
    ("-ngl", "-1"),
    ("-ngl", "998"),
    ("-ngl",),
    ("--gpu-layers", "20"),
    ("--n-gpu-layers", "20"),
    ("--n_gpu_layers", "20"),
    ("--n-gpu-layers=20",),
    ("-ngld", "0"),
    ("--spec-draft-ngl", "auto"),
    ("-fit", "on"),
    ("--fit", "on"),
    ("--fit",),
    ("--fit=on",),
    ("-nkvo",),
    ("--no-kv-offload",),
    ("--no_kv_offload",),
    ("--no-op-offload",),
    ("-ot", ".*=CPU"),
    ("--override-tensor", "exps=CUDA0,attn=CPU"),
    ("-ot", "x=CUDA_Host"),
    ("-otd", "x=CPU"),
    ("-cmoe",),
    ("--cpu-moe",),
    ("-ncmoe", "4"),
    ("--n-cpu-moe", "4"),
    ("-ncffn", "4"),
    ("--n-cpu-ffn", "4"),
    ("--cpu-moe-draft",),
    ("--spec-draft-n-cpu-moe", "4"),
    ("-dev", "none"),
    ("--device", "CPU"),
    ("--device", "CUDA0,CPU"),
    ("--device-draft", "none"),
    ("--mmproj-device", "none"),
    ("--no-mmproj-offload",),
    ("--rpc", "10.0.0.7:50052"),
    ("-ot=.*=CPU",),
    ("--override_tensor", ".*=CPU"),
    ("-otd", "x=CUDA0,y=CPU"),
    ("--override-tensor-draft", "x=CPU"),
    ("--spec-draft-override-tensor", "x=CPU"),
    ("--gpu-layers-draft", "4"),
    ("--n-gpu-layers-draft", "4"),
    ("-cmoed",),
    ("--spec-draft-cpu-moe",),
    ("-ncmoed", "2"),
    ("--n-cpu-moe-draft", "2"),
    ("--spec-draft-ncmoe", "2"),
    ("-devd", "CPU"),
    ("--spec-draft-device", "none"),
    ("-mmdev", "CPU"),
    ("-dev",),
    ("-dev", "Vulkan0"),
    ("-dev", "RPC0[10.0.0.7:50052]"),
    ("-b", "256", "-ngl", "0"),
]


@pytest.mark.orch("ORCH-3018", "ORCH-3011")
@pytest.mark.parametrize("args", SPILLING_ARGS, ids=" ".join)
def test_arguments_that_spill_are_refused_on_real_gpus(args: Sequence[str]) -> None:
    with pytest.raises(PlanError, match=r"^extra_args may not hold .*outside the pool's GPUs$"):
        LlamaCpp().plan_launch(launch(extra_args=args))


@pytest.mark.parametrize("args", SPILLING_ARGS, ids=" ".join)
def test_a_simulated_gpu_has_nothing_else_than_a_cpu(args: Sequence[str]) -> None:
    plan = LlamaCpp().plan_launch(launch(extra_args=args, simulated=True))

    assert plan.argv[-len(args) :] == tuple(args)


@pytest.mark.orch("ORCH-3018")
@pytest.mark.parametrize("args", SPILLING_ARGS, ids=" ".join)
def test_a_command_may_not_spill_either(args: Sequence[str]) -> None:
    with pytest.raises(PlanError, match=r"^launch\.command may not hold "):
        LlamaCpp().plan_launch(launch(command=("llama-server", "-m", "{model_path}", *args)))
    with pytest.raises(PlanError, match=r"^launch\.command may not hold "):
        LlamaCpp().plan_launch(launch(command=("sh", "-c", f"exec llama-server -m m {' '.join(args)}")))


@pytest.mark.parametrize(
    "args",
    [
        ("-ngl", "all"),
        ("-ngl", "-2"),
        ("-ngl", "999"),
        ("--fit", "off"),
        ("-kvo",),
        ("-ot", "exps=CUDA1"),
        ("--device", "CUDA0,CUDA1"),
        ("--temp", "-1"),
        ("-fa", "on"),
        ("-sm", "row"),
        ("--lora", "/models/fit.gguf"),
    ],
    ids=" ".join,
)
def test_arguments_that_do_not_spill_are_passed_on(args: Sequence[str]) -> None:
    assert LlamaCpp().plan_launch(launch(extra_args=args)).argv[-len(args) :] == tuple(args)


@pytest.mark.parametrize("simulated", [True, False])
@pytest.mark.parametrize(
    "args",
    [
        ("-m", "other.gguf"),
        ("--model", "other.gguf"),
        ("--model=other.gguf",),
        ("-c", "99"),
        ("--ctx_size", "99"),
        ("-np", "9"),
        ("--host", "0.0.0.0"),
        ("--port", "1"),
        ("--api-key", "mine"),
        ("--api-key-file", "f"),
        ("-hf", "a/b"),
        ("--models-dir", "d"),
        ("-hfd", "a/b"),
        ("--spec-draft-hf", "a/b"),
        ("--mmproj-url", "https://example.org/x"),
        ("--gpt-oss-20b-default",),
        ("--fim-qwen-1.5b-default",),
        ("--no-slots",),
        ("--sse-ping-interval", "-1"),
        ("--sleep-idle-seconds", "9"),
        ("--tools", "all"),
        ("--log-disable",),
        ("-kvu",),
        ("--embedding",),
        ("--embeddings",),
        ("--rerank",),
        ("--reranking",),
        ("--help",),
    ],
    ids=" ".join,
)
def test_arguments_that_are_ours_are_always_refused(args: Sequence[str], simulated: bool) -> None:
    with pytest.raises(PlanError, match=r"^extra_args may not hold -"):
        LlamaCpp().plan_launch(launch(extra_args=args, simulated=simulated))


@pytest.mark.orch("ORCH-3018")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GGML_CUDA_ENABLE_UNIFIED_MEMORY", "1"),
        ("GGML_CUDA_ENABLE_UNIFIED_MEMORY", "0"),
        ("LLAMA_ARG_N_GPU_LAYERS", "10"),
        ("LLAMA_ARG_FIT", "on"),
        ("LLAMA_ARG_KV_OFFLOAD", "0"),
        ("LLAMA_ARG_NO_KV_OFFLOAD", ""),
        ("LLAMA_ARG_OVERRIDE_TENSOR", "x=CPU"),
        ("LLAMA_ARG_CPU_MOE", "1"),
        ("LLAMA_ARG_N_CPU_MOE", "3"),
        ("LLAMA_ARG_DEVICE", "none"),
        ("LLAMA_ARG_RPC", "h:1"),
        ("LLAMA_ARG_N_GPU_LAYERS_DRAFT", "0"),
        ("LLAMA_ARG_N_CPU_FFN", "1"),
        ("LLAMA_ARG_SPEC_DRAFT_CPU_MOE", "1"),
        ("LLAMA_ARG_SPEC_DRAFT_N_CPU_MOE", "1"),
        ("LLAMA_ARG_MMPROJ_OFFLOAD", "off"),
        ("LLAMA_ARG_NO_MMPROJ_OFFLOAD", "1"),
        ("LLAMA_ARG_OVERRIDE_TENSOR", "x=CUDA0,y=CPU"),
        ("LLAMA_ARG_DEVICE", "CUDA0,Vulkan0"),
        ("MTMD_BACKEND_DEVICE", "CPU"),
    ],
)
def test_variables_that_spill_are_refused_on_real_gpus(name: str, value: str) -> None:
    with pytest.raises(PlanError, match=rf"^env may not hold {name}="):
        LlamaCpp().plan_launch(launch(env={name: value}))
    with pytest.raises(PlanError, match=rf"^launch\.command may not hold {name}="):
        LlamaCpp().plan_launch(launch(command=("env", f"{name}={value}", "llama-server")))

    assert LlamaCpp().plan_launch(launch(env={name: value}, simulated=True)).env[name] == value


OUR_VARIABLES = [
    "LLAMA_API_KEY",
    "LLAMA_ARG_PORT",
    "CUDA_VISIBLE_DEVICES",
    "LLAMA_ARG_TOOLS",
    "LLAMA_ARG_HF_REPO",
    "LLAMA_ARG_SPEC_DRAFT_HF_REPO",
    "LLAMA_ARG_MMPROJ_URL",
    "LLAMA_ARG_EMBEDDINGS",
    "LLAMA_ARG_RERANKING",
]


@pytest.mark.parametrize("name", OUR_VARIABLES)
def test_variables_that_are_ours_are_always_refused(name: str) -> None:
    with pytest.raises(PlanError, match=rf"^env may not hold {name}:"):
        LlamaCpp().plan_launch(launch(env={name: "x"}, simulated=True))


@pytest.mark.orch("ORCH-1101", "ORCH-3018")
def test_without_a_gpu_nothing_is_planned() -> None:
    with pytest.raises(PlanError, match="at least one GPU"):
        LlamaCpp().plan_launch(launch(devices=()))


def test_ratios_must_fit_the_devices() -> None:
    with pytest.raises(PlanError, match="1 ratios for 2 devices"):
        LlamaCpp().plan_launch(launch(devices=(GPU, OTHER_GPU), tensor_split=(1.0,)))


def test_a_command_is_filled_in_and_nothing_is_added_to_it() -> None:
    names = "{port} {model_path} {model_name} {ctx} {ctx_total} {slots} {api_key} {config_dir} {python} {pool_id}"
    command = ("wrap", *names.split(" "), "a{port}b{ctx}", '{"json": {}}')
    plan = LlamaCpp().plan_launch(launch(ctx=512, slots=3, command=command))

    assert plan.argv == (
        "wrap", "18080", "/models/m.gguf", "m", "512", "1536", "3", "key-of-this-worker", "/etc/orchctl",
        "/venv/bin/python", "chat", "a18080b512", '{"json": {}}',
    )  # fmt: skip


def test_what_a_command_leaves_out_does_not_spill() -> None:
    plan = LlamaCpp().plan_launch(launch(command=("llama-server", "-m", "{model_path}")))

    expected: Mapping[str, str] = {
        "LLAMA_ARG_N_GPU_LAYERS": "999",
        "LLAMA_ARG_FIT": "off",
        "LLAMA_ARG_KV_OFFLOAD": "on",
        "LLAMA_API_KEY": "key-of-this-worker",
    }
    assert expected.items() <= plan.env.items()


@pytest.mark.parametrize(
    ("command", "extra_args", "message"),
    [
        (("x", "{prot}"), (), r"unknown placeholder \{prot\}; known are api_key, config_dir, ctx"),
        ((), (), "launch.command is empty"),
        (("x",), ("-b", "1"), "extra_args cannot be combined with launch.command"),
    ],
)
def test_a_command_that_cannot_be_meant(command: Sequence[str], extra_args: Sequence[str], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        LlamaCpp().plan_launch(launch(command=command, extra_args=extra_args))


def test_a_refusal_is_one_sentence() -> None:
    with pytest.raises(PlanError) as refused:
        LlamaCpp().plan_launch(launch(extra_args=("-ngl", "0")))

    assert not re.search(r"[\n.]", str(refused.value))


def test_it_is_stopped_gently_then_at_once_then_by_force() -> None:
    signals = [number for number, _ in LlamaCpp().plan_stop().steps]

    assert signals == [15, 15, 9]
