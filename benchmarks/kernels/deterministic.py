"""What `--deterministic` costs. Needs a CUDA device.

    python -m benchmarks.kernels.deterministic tiles     products: tiles, their bits and their time
    python -m benchmarks.kernels.deterministic steps     whole steps, with and without

Steps are those of Llama-3.1-8B's shape with a few of its layers and random weights, as CUDA graphs:
rows that decode behind 700 tokens each, and prompts of 512 tokens.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.configs import SHAPES, write_model_folder
from benchmarks.kernels.timing import microseconds

from penstock_kernels.gpu.launch.ahead import compile_only
from penstock_kernels.gpu.products.invariant_linear import Tile, invariant_linear
from penstock_kernels.gpu.products.invariant_tiles import (
    FEW,
    LARGE,
    LARGEST,
    REFERENCE,
    SOME,
    TALL,
    all_equal,
    probe,
)
from penstock_kernels.weight import Weight
from penstock_shard.config import ShardConfig
from penstock_shard.memory import kv_cache
from penstock_shard.steps.graphs import Capture, Capturer, DecodeGraphs, SlotTensors, StepOutputs
from penstock_shard.steps.limits import ShardLimits
from penstock_shard.steps.mixed_graphs import MixedGraphs
from penstock_shard.steps.operations import operations
from penstock_shard.steps.rows import Chunks
from penstock_shard.steps.sharing import SharingTensors
from penstock_shard.weights.loaded_model import LoadedModel, load

SHAPE = "llama-3.1-8b"
CONTEXT, PROMPT, PROMPTS = 700, 512, 8
LIMITS = ShardLimits(
    max_prefill_tokens=PROMPT * PROMPTS, max_slots=128, max_sequence_length=1024, max_top_n=0,
    vocab_size=128_256, block_size=64, num_blocks=1 + 128 * 16,
)  # fmt: skip
DECODED = (1, 8, 32, 64, 128)
CANDIDATES = (
    REFERENCE,
    FEW,
    Tile(64, 16, 128, 4, 8),
    Tile(32, 16, 128, 4, 8),
    Tile(32, 16, 256, 4, 4),
    SOME,
    Tile(64, 32, 128, 4, 8),
    TALL,
    LARGE,
    LARGEST,
    Tile(128, 256, 64, 8, 4),
)
PRODUCTS = ((4096, 4096), (28_672, 4096), (4096, 14_336))


def tiles() -> None:
    """Whether candidates come to the same bits, and what they take for 1, 64 and 4,096 rows."""
    device = torch.device("cuda")
    x, probed = probe(device, torch.bfloat16)
    row = invariant_linear(x, probed, REFERENCE)[:1]
    matrices = {shape: [_random(*shape) for _ in range(4)] for shape in PRODUCTS}
    for tile in CANDIDATES:
        try:
            bits = "same bits" if all_equal(x, probed, tile, row) else "other bits"
            times = [
                microseconds(partial(_multiply, _random(rows, shape[1]), weights, tile), 4, 5)
                for shape, weights in matrices.items()
                for rows in (1, 64, 4096)
            ]
            text = " ".join(f"{time:8.1f}" for time in times)
        except Exception as error:  # one that does not fit tells us so
            bits, text = type(error).__name__, str(error)[:60]
        print(f"{_name(tile):22} {bits:12} {text}", flush=True)


def _multiply(x: torch.Tensor, weights: list[torch.Tensor], tile: Tile, i: int) -> object:
    return invariant_linear(x, Weight(weights[i % 4]), tile, True)


def _name(tile: Tile) -> str:
    return f"{tile.n}x{tile.rows}x{tile.k} {tile.warps} {tile.stages}"


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16) * 0.02


class Run:
    """In place of a graph, while kernels are compiled."""

    def __init__(self, step: Callable[[], None]) -> None:
        step()

    def replay(self) -> None:
        raise NotImplementedError


class Graphs:
    """The steps that are timed."""

    def __init__(self, loaded: LoadedModel, limits: ShardLimits) -> None:
        device = loaded.device
        cache = kv_cache.allocate(loaded.decoder, limits.num_blocks, loaded.block_size, device)
        ops: Any = operations(loaded, loaded.decoder, limits, cache)[0]
        slots = SlotTensors.empty(limits.max_slots, limits.table_width, device)
        width = limits.table_width
        blocks = torch.arange(limits.max_slots * width, device=device) + 1
        slots.block_table[:-1] = blocks.view(-1, width)
        slots.length[:-1] = CONTEXT
        outputs = StepOutputs.empty(
            limits.max_slots, limits.vocab_size, True, True, loaded.dtype, device
        )
        sharing = SharingTensors(limits.max_slots, ops.tile_rows, device)
        parts = (loaded.decoder, ops, slots, cache, outputs, sharing)
        self.slots, self.decode = slots, DecodeGraphs(*parts, DECODED)
        self.mixed = MixedGraphs(*parts, limits.max_prefill_tokens, limits.max_chunks)
        numbers = np.arange(PROMPTS)
        self.chunks = Chunks(
            numbers, np.zeros(PROMPTS, np.int64), np.full(PROMPTS, PROMPT), np.ones(PROMPTS, bool)
        )
        tokens = [np.arange(PROMPT, dtype=np.int32)] * PROMPTS
        self.prompts = self.mixed.step(np.empty(0, np.int64), self.chunks, tokens)

    def capture(self, capture: Capturer) -> Any:
        self.decode.capture(capture)
        bucket = self.mixed.load(self.prompts)
        return capture(lambda: self.mixed.run(bucket))


def steps(layers: int, modes: list[bool]) -> dict[str, dict[str, float]]:
    """Milliseconds of steps by mode."""
    found: dict[str, dict[str, float]] = {}
    SHAPES[SHAPE] = replace(SHAPES[SHAPE], layers=layers)
    with tempfile.TemporaryDirectory() as folder:
        model = write_model_folder(SHAPE, Path(folder))
        for deterministic in modes:
            loaded = load(_config(model, folder, deterministic))
            mode = "on" if deterministic else "off"
            found[mode] = _timed(loaded)
            print(mode, {step: round(time, 3) for step, time in found[mode].items()}, flush=True)
            del loaded
            torch.cuda.empty_cache()
    return found


@torch.inference_mode()
def _timed(loaded: LoadedModel) -> dict[str, float]:
    """Milliseconds of each step."""
    graphs, times = Graphs(loaded, LIMITS), {}
    with compile_only():
        graphs.capture(Run)
    prompts = graphs.capture(Capture())
    for rows in DECODED:
        graphs.decode.load(np.arange(rows))
        graphs.slots.length[:-1] = CONTEXT
        times[f"decode {rows}"] = _milliseconds(partial(graphs.decode.replay, rows))
    graphs.mixed.load(graphs.prompts)
    times[f"prefill {PROMPT * PROMPTS}"] = _milliseconds(prompts.replay)
    return times


def _config(model: Path, folder: str, deterministic: bool) -> ShardConfig:
    return ShardConfig(
        model_path=str(model), dtype=None, device="cuda", load_format="dummy", quantize=None,
        kv_cache_dtype="auto", kv_block_size=None, cuda_memory_fraction=1.0, cuda_graphs=None,
        disable_dependent_launch=False, socket_folder=folder, deterministic=deterministic,
    )  # fmt: skip


def _milliseconds(launch: Callable[[], None], times: int = 20) -> float:
    """The median of some launches."""
    found = []
    for _ in range(times):
        event: Any = torch.cuda.Event
        begin, end = (event(enable_timing=True) for _ in range(2))
        begin.record()
        launch()
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end))
    return float(sorted(found)[times // 2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("tiles", "steps"))
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--only", choices=("on", "off"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "tiles":
        tiles()
        return
    modes = [True, False] if arguments.only is None else [arguments.only == "on"]
    found = steps(arguments.layers, modes)
    if arguments.out is not None:
        gpu = torch.cuda.get_device_name()
        result = {"gpu": gpu, "shape": SHAPE, "layers": arguments.layers, "milliseconds": found}
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
