"""Which launch computes each product of a decode step, measured where it runs: behind a norm.

    python -m benchmarks.kernels.chain --out chain.json

Norm and product alternate in a CUDA graph over distinct weights, with dependent launch; behind what
`Step.linear_add_norm` computes, o and down, follows its norm. One line a shape and number of rows:
cuBLAS, what a server runs, and the best of the others, in microseconds for all of it.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from benchmarks.kernels.served import served_gated, served_linear, served_parts
from benchmarks.kernels.timing import microseconds
from torch import Tensor

from penstock_kernels.gpu.products.hopper_linear import (
    COLUMNS,
    DEPTH,
    SHARED,
    LinearConfig,
    hopper_linear,
    row_tile,
)
from penstock_kernels.gpu.products.linear import Tile, linear, linear_one_row
from penstock_kernels.gpu.step.activation import gate
from penstock_kernels.gpu.step.norm import add_norm, normalise
from penstock_kernels.ops import Act, Norm
from penstock_kernels.weight import Weight

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
VECTORS = [(1, 4096, 8), (2, 1024, 4), (2, 2048, 8), (2, 2048, 4), (2, 4096, 8), (4, 1024, 4)]
VECTORS += [(4, 1024, 8), (4, 2048, 8), (8, 1024, 8), (8, 512, 4), (1, 2048, 4)]
DOTS = [(64, 128, 4, 3), (64, 128, 4, 5), (64, 64, 4, 8), (128, 128, 8, 3)]

Launch = Tile | LinearConfig


def launches(name: str, rows: int) -> list[Launch]:
    """Those that the shape divides into and that shared memory holds."""
    n, k, gated = SHAPES[name]
    wide, halves = n // 2 if gated else n, 2 if gated else 1
    if rows == 1:
        return [Tile(bn, bk, warps, 2) for bn, bk, warps in VECTORS if not (wide % bn or k % bk)]
    found: list[Launch] = []
    for bn, bk, warps, stages in DOTS:
        stage = (halves * bn + max(16, row_tile(rows))) * bk * 2
        if rows <= 64 and not wide % bn and stage * (stages + 1) <= SHARED:
            found.append(Tile(bn, bk, warps, stages))
    if wide % COLUMNS or k % DEPTH:
        return found
    stage = (halves * COLUMNS + row_tile(rows)) * DEPTH * 2
    for splits, residents, part in itertools.product((1, 2, 3, 4), (1, 2), (2, 1)):
        stages = min(SHARED // max(residents, part) // stage, k // DEPTH)
        units = wide // COLUMNS * splits
        joined = name.startswith(("o", "down"))
        if stages < 2 or units < 48 or splits > 1 and (not joined or units > 300):
            continue
        if residents > 1 and units <= 132:
            continue
        if (config := LinearConfig(splits, stages, residents)) not in found:
            found.append(config)
    return found


def product(x: Tensor, weight: Tensor, launch: Launch, gated: bool) -> Tensor:
    """By one way."""
    wide = len(weight) // 2 if gated else len(weight)
    if isinstance(launch, Tile):
        out = x.new_empty(len(x), wide)
        (linear_one_row if len(x) == 1 else linear)(x, Weight(weight), out, launch, gated, True)
    elif launch.splits > 1:
        out = x.new_empty(launch.splits, len(x), wide, dtype=torch.float32)
        hopper_linear(x, Weight(weight), out, launch, gated, True)
    else:
        out = x.new_empty(len(x), wide)
        hopper_linear(x, Weight(weight), out, launch, gated, True)
    return out


def served(x: Tensor, weight: Tensor, gated: bool, joined: bool) -> Tensor:
    """As a server computes it."""
    if gated:
        return served_gated(x, weight)
    return served_parts(x, weight) if joined else served_linear(x, weight)


def library(x: Tensor, weight: Tensor, gated: bool) -> Tensor:
    """By cuBLAS, and a kernel for the activation."""
    out = F.linear(x, weight)
    return gate(out, Act.SILU, dependent=True) if gated else out


def chain(name: str, rows: int, multiply: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Microseconds of norm, product and, behind o and down, the norm that follows."""
    n, k, gated = SHAPES[name]
    weights = weights_of(name)
    x, gain = (torch.randn(*shape, device="cuda").bfloat16() for shape in ((rows, k), (k,)))
    wide = n // 2 if gated else n
    residual, out_gain = x.new_zeros(rows, wide), x.new_ones(wide)
    joined = name.startswith(("o", "down"))

    def launch(i: int) -> None:
        y = normalise(x, Norm(gain, 1e-5), True)
        out = multiply(y, weights[i % len(weights)])
        if joined:
            add_norm(out, residual, Norm(out_gain, 1e-5), dependent=True)

    return microseconds(launch)


def compile_one(job: tuple[str, int, Launch]) -> str | None:
    """Fill Triton's cache on disk, in a process of its own."""
    name, rows, launch = job
    n, k, gated = SHAPES[name]
    try:
        x = torch.zeros(rows, k, device="cuda", dtype=torch.bfloat16)
        product(x, x.new_zeros(n, k), launch, gated)
        torch.cuda.synchronize()
    except Exception as error:
        return f"{job}: {error}"
    return None


@functools.cache
def weights_of(name: str) -> list[Tensor]:
    """As many as L2 cannot hold."""
    n, k, _ = SHAPES[name]
    copies = max(2, min(32, -(-(1 << 30) // (2 * n * k))))
    return [
        torch.randn(n, k, device="cuda", dtype=torch.bfloat16).mul_(k**-0.5) for _ in range(copies)
    ]


def measured(name: str, rows: int, broken: set[str]) -> dict[str, Any]:
    """A line of the result."""
    n, k, gated = SHAPES[name]
    joined = name.startswith(("o", "down"))
    cublas = chain(name, rows, lambda x, weight: library(x, weight, gated))
    server = chain(name, rows, lambda x, weight: served(x, weight, gated, joined))
    timed = []
    for launch in launches(name, rows):
        if str((name, rows, launch)) not in broken:
            multiply = functools.partial(product, launch=launch, gated=gated)
            timed.append((chain(name, rows, multiply), launch))
    timed.sort(key=lambda item: item[0])
    best = "  ".join(f"{us:.1f} {launch}" for us, launch in timed[:3])
    size = 2 * n * k
    print(
        f"{name:11} {rows:3} rows: cuBLAS {cublas:6.1f} us, server {server:6.1f} us, "
        f"{size / server / 1e6:.2f} TB/s | {best}",
        flush=True,
    )
    found = {"shape": name, "n": n, "k": k, "rows": rows, "cublas_us": cublas, "server_us": server}
    return found | {"best": [[us, str(launch)] for us, launch in timed[:6]]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32, 64, 128])
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES))
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    cases = list(itertools.product(arguments.shapes, arguments.rows))
    jobs = [(*case, launch) for case in cases for launch in launches(*case)]
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        failures = [f for f in pool.map(compile_one, jobs, chunksize=4) if f]
    print(f"{len(jobs)} compiled, {len(failures)} failed", *failures[:3], flush=True)
    broken = {failure.split(": ")[0] for failure in failures}
    results = []
    for name, rows in cases:
        results.append(measured(name, rows, broken))
        if rows == arguments.rows[-1]:
            weights_of.cache_clear()
    content = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "chains": results}
    arguments.out.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
