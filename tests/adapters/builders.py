"""Launch specs and calls for the adapter tests, with sound values that a test changes where it matters."""

from collections.abc import Mapping, Sequence

from adapters import sampling
from adapters.base import CompletionCall, LaunchSpec, Workload

GPU = "GPU-5d3e2a10-0000-4000-8000-000000000001"
OTHER_GPU = "GPU-5d3e2a10-0000-4000-8000-000000000002"


def launch(
    *,
    ctx: int = 2048,
    slots: int = 1,
    devices: Sequence[str] = (GPU,),
    tensor_split: Sequence[float] | None = None,
    threads: int | None = None,
    extra_args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
    binary: str | None = None,
    simulated: bool = False,
    workloads: frozenset[Workload] = frozenset({Workload.COMPLETION}),
) -> LaunchSpec:
    return LaunchSpec(
        pool_id="chat",
        model_path="/models/m.gguf",
        model_name="m",
        ctx=ctx,
        slots=slots,
        port=18080,
        api_key="key-of-this-worker",
        devices=devices,
        tensor_split=tensor_split,
        threads=threads,
        extra_args=extra_args,
        env=env or {},
        command=command,
        binary=binary,
        config_dir="/etc/orchctl",
        python="/venv/bin/python",
        simulated=simulated,
        workloads=workloads,
    )


def call(*, prompt: str = "Hello", seed: int = 7, slot: int | None = 0, reuse_kv: bool = False) -> CompletionCall:
    return CompletionCall(
        prompt=prompt,
        max_tokens=16,
        seed=seed,
        sampler=sampling.profile("v1"),
        stop=("END",),
        reuse_kv=reuse_kv,
        slot=slot,
    )
