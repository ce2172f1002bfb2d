"""Which tile reads a weight fastest. Needs a CUDA device.

    python -m benchmarks.kernels.sweep --out sweep.json

Every product runs in a CUDA graph over 16 distinct weights, so that no weight comes from L2. One
line a shape and number of rows: cuBLAS, then the best tiles, in microseconds and TB/s.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from penstock_kernels.gpu.linear import Tile, linear, linear_one_row

# (n, k, gated) of Llama-3.1-8B and Llama-3.2-1B, and of one of two ranks of 8B
SHAPES = {
    "qkv": (6144, 4096, False),
    "o": (4096, 4096, False),
    "gate_up": (28672, 4096, True),
    "down": (4096, 14336, False),
    "head": (128256, 4096, False),
    "qkv_1b": (3072, 2048, False),
    "o_1b": (2048, 2048, False),
    "gate_up_1b": (16384, 2048, True),
    "down_1b": (2048, 8192, False),
    "head_1b": (128256, 2048, False),
    "qkv_tp2": (3072, 4096, False),
    "o_tp2": (4096, 2048, False),
    "gate_up_tp2": (14336, 4096, True),
    "down_tp2": (4096, 7168, False),
    "head_tp2": (64128, 4096, False),
}
COPIES = 16

Job = tuple[str, int, Tile | None]


def jobs(rows: list[int], shapes: list[str]) -> list[Job]:
    """Tiles worth a try: enough programs for the card, not more registers than it has."""
    found: list[Job] = []
    for name, count in itertools.product(shapes, rows):
        n, k, gated = SHAPES[name]
        wide = n // 2 if gated else n
        if count == 1:
            vectors = itertools.product((2, 4, 8), (1024, 2048, 4096), (4, 8))
            for bn, bk, warps in vectors:
                if k % bk == 0 and bn * bk <= 16384:
                    found.append((name, 1, Tile(bn, bk, 0, warps, 2)))
        dots = itertools.product((32, 64, 128), (64, 128, 256), (1, 2, 4), (4, 8), (3, 5))
        for bn, bk, splits, warps, stages in dots:
            tile = Tile(bn, bk, splits, warps, stages)
            programs = wide // bn * splits
            bytes_in_flight = (bn * (2 if gated else 1) + 16) * bk * 2 * stages
            if wide % bn or k % (bk * splits) or (gated or name.startswith("head")) and splits > 1:
                continue
            if programs < 96 or programs > 132 * 8 and bn < 128 or bytes_in_flight > 200_000:
                continue
            if bytes_in_flight < 40_000 or (bn < 64 and warps == 8):
                continue
            found.append((name, count, tile))
    return found


def runner(job: Job, copies: int) -> Callable[[int], None]:
    """A function that launches the job on its i-th weight."""
    name, rows, tile = job
    n, k, gated = SHAPES[name]
    copies = 2 if name.startswith("head") and copies > 1 else copies
    weights = weights_of(name, copies)
    x = torch.randn(rows, k, device="cuda", dtype=torch.bfloat16)
    width = n // 2 if gated else n
    if tile is None:
        wide = torch.empty(rows, n, device="cuda", dtype=torch.bfloat16)

        def cublas(i: int) -> None:
            torch.mm(x, weights[i % copies].t(), out=wide)

        return cublas
    if tile.splits > 1:
        out = torch.empty(tile.splits, rows, width, device="cuda", dtype=torch.float32)
    else:
        out = torch.empty(rows, width, device="cuda", dtype=torch.bfloat16)
    function = linear_one_row if tile.splits == 0 else linear
    return lambda i: function(x, weights[i % copies], out, tile, gated)


@functools.cache
def weights_of(name: str, copies: int) -> list[torch.Tensor]:
    n, k, _ = SHAPES[name]
    return [
        torch.randn(n, k, device="cuda", dtype=torch.bfloat16).mul_(k**-0.5) for _ in range(copies)
    ]


def compile_one(job: Job) -> str | None:
    """Fill Triton's cache on disk, in a process of its own."""
    try:
        runner(job, 1)(0)
        torch.cuda.synchronize()
    except Exception as error:
        return f"{job}: {error}"
    return None


def microseconds(launch: Callable[[int], object], count: int = COPIES, replays: int = 12) -> float:
    """Median time of one launch inside a graph of `count`."""
    for i in range(2):
        launch(i)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(count):
            launch(i)
    times: list[float] = []
    for _ in range(replays):
        event: Callable[..., Any] = torch.cuda.Event
        begin, end = (event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1000 / count)
    return sorted(times)[len(times) // 2]


def sweep_linear(rows: list[int], shapes: list[str], workers: int) -> list[dict[str, Any]]:
    todo = jobs(rows, shapes)
    print(f"{len(todo)} tiles", flush=True)
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        failures = [f for f in pool.map(compile_one, todo, chunksize=4) if f]
    print(f"compiled, {len(failures)} failed", *failures[:3], flush=True)
    broken = {failure.split(": ")[0] for failure in failures}
    results = []
    for name, count in itertools.product(shapes, rows):
        n, k, _ = SHAPES[name]
        size = n * k * 2
        timed = [("cublas", microseconds(runner((name, count, None), COPIES)))]
        for job in todo:
            if job[:2] == (name, count) and str(job) not in broken:
                timed.append((str(job[2]), microseconds(runner(job, COPIES))))
        best = sorted(timed[1:], key=lambda item: item[1])[:5]
        results.append(
            {"shape": name, "rows": count, "bytes": size, "cublas": timed[0][1], "best": best}
        )
        line = "  ".join(f"{t} {us:.1f}" for t, us in best[:2])
        library = f"cublas {timed[0][1]:.1f} us {size / timed[0][1] / 1e6:.2f} TB/s"
        speed = size / best[0][1] / 1e6
        print(f"{name:10} {count:4}  {library} | {speed:.2f} TB/s {line}", flush=True)
        weights_of.cache_clear()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES))
    parser.add_argument("--workers", type=int, default=min(14, os.cpu_count() or 1))
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    found = {
        "gpu": torch.cuda.get_device_name(),
        "linear": sweep_linear(arguments.rows, arguments.shapes, arguments.workers),
    }
    arguments.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
