"""The shards: how many, where, and how they compute."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_launcher.kinds import boolean, integer, number, one_of, path, sizes, switch
from penstock_launcher.options.option import option


@dataclass(frozen=True, kw_only=True)
class Hardware:
    sharded: bool | None = option(
        None, boolean(), "true: over all visible GPUs; false: one shard unless num-shard says more"
    )
    num_shard: int | None = option(
        None,
        integer(1, 64),
        "Tensor-parallel shards, one process and on a GPU machine one GPU each",
        default_text="the GPUs in CUDA_VISIBLE_DEVICES, else NVIDIA_VISIBLE_DEVICES, else all; "
        "1 on a CPU",
        also=("SM_NUM_GPUS",),
    )
    device: str | None = option(
        None, one_of("cpu", "cuda"), "Where the shards run", default_text="cuda if there is one"
    )
    cuda_graphs: tuple[int, ...] | None = option(
        None,
        sizes(4096),
        "Batch sizes whose decode step is captured as a CUDA graph; larger ones run without. Steps "
        "with prompts, and draws of tokens, are captured as well. 0: no graphs at all",
        default_text="some 20 sizes up to max-batch-size",
    )
    disable_dependent_launch: bool = option(
        False,
        switch(),
        "Start each kernel of a step only when the one before it has ended. Slower; for finding "
        "faults. Results are the same",
    )
    deterministic: bool = option(
        False,
        switch(),
        "The same request gets the same tokens bit for bit, whatever else is computed, whatever "
        "the prefix cache holds and however its prompt is cut. Slower",
    )
    step_timeout: float = option(
        60.0,
        number(0.1, 86_400),
        "Seconds that one step of the shards may take before they are taken for dead",
    )
    shard_uds_path: str = option(
        "/tmp/text-generation-server",
        path(),
        "Prefix of the folder with the shards' sockets; process id and a random part are added, "
        "so that launchers never collide",
    )
