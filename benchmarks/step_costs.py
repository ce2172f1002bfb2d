"""What steps with prompts take by their rows, as shards measure it at start, several times.

    python -m benchmarks.step_costs --shape llama-3.1-8b --times 5

Prints a line a measurement: how long it took, the times, and the sizes that the router would choose
by them. The model has random weights. Needs a GPU.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from benchmarks.configs import SHAPES, write_model_folder

from penstock_proto.shard_pb2 import WarmupRequest
from penstock_router.scheduler.costs import step_rows
from penstock_shard.config import ShardConfig
from penstock_shard.memory.warmup import warm_up
from penstock_shard.steps.runner import Runner
from penstock_shard.weights.loaded_model import load


def started(shape: str, quantize: str | None, folder: Path) -> Runner:
    """A shard's runner with its graphs, of the size that `benchmarks.h100` serves."""
    config = ShardConfig(
        model_path=str(write_model_folder(shape, folder)),
        dtype=None,
        device="cuda",
        load_format="dummy",
        quantize=quantize,
        kv_cache_dtype="auto",
        kv_block_size=None,
        cuda_memory_fraction=1.0,
        cuda_graphs=None,
        disable_dependent_launch=False,
        socket_folder=str(folder),
    )
    sizes = {"max_prefill_tokens": 4096, "max_slots": 256, "max_sequence_length": 8192}
    runner, _ = warm_up(load(config), WarmupRequest(**sizes, max_top_n=20, max_chunks=64))
    return runner


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_costs", description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.1-8b")
    parser.add_argument("--quantize")
    parser.add_argument("--times", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runner = started(arguments.shape, arguments.quantize, Path(folder))
        for _ in range(arguments.times):
            torch.cuda.synchronize()
            start = time.perf_counter()
            costs = runner.step_costs()
            took = time.perf_counter() - start
            told = " ".join(f"{rows}:{seconds * 1e3:.2f}" for rows, seconds in costs.items())
            print(f"{took:.2f} s; ms {told}; sizes {step_rows(costs)}", flush=True)


if __name__ == "__main__":
    main()
