"""Which launch computes each product with an FP8 weight, measured behind a norm and checked.

    python -m benchmarks.kernels.fp8_variants --out fp8_variants.json

As `benchmarks.kernels.chain`, for Llama-3.1-8B: norm and product alternate in a CUDA graph over
distinct weights, with dependent launch; behind o and down follows the norm that adds parts up. One
block a shape and number of rows: what a server runs first, then the variants, fastest first, each
with microseconds, its rate, and its distance from the product in float32. Takes some
minutes on one card.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from benchmarks.kernels.timing import microseconds
from torch import Tensor

from penstock_kernels.gpu.launch.hopper import multiprocessors
from penstock_kernels.gpu.products import fp8 as table
from penstock_kernels.gpu.products.hopper_linear import (
    COLUMNS,
    DEPTH,
    MOST_FEW,
    SHARED,
    LinearConfig,
    hopper_linear,
    row_tile,
    widened_linear_config,
)
from penstock_kernels.gpu.products.linear import Tile, linear_one_row
from penstock_kernels.gpu.step.norm import add_norm, normalise
from penstock_kernels.ops import Act, Norm
from penstock_kernels.reference.activation import gate
from penstock_kernels.weight import Weight
from penstock_quantization.online import fp8

SHAPES = {  # (n, k, gated)
    "qkv": (6144, 4096, False),
    "o": (4096, 4096, False),
    "gate_up": (28672, 4096, True),
    "down": (4096, 14336, False),
}
VECTORS = [  # rows of the weight, depth, warps
    *((4, 4096, 8), (4, 4096, 4), (8, 4096, 4), (8, 4096, 8), (2, 4096, 4), (2, 4096, 8)),
    *((2, 2048, 4), (4, 2048, 4), (4, 2048, 8), (8, 2048, 4), (8, 2048, 8), (16, 2048, 8)),
    *((4, 1024, 4), (8, 1024, 4), (16, 1024, 4), (2, 1024, 2), (4, 2048, 2)),
]
LIMIT = 1e-4  # of `difference`: half precision gives 1e-5

Launch = Tile | LinearConfig


def launches(name: str, rows: int) -> list[Launch]:
    """Those that the shape divides into and that shared memory holds; the server's first."""
    n, k, gated = SHAPES[name]
    wide, halves = n // 2 if gated else n, 2 if gated else 1
    found: list[Launch] = [served(name, rows)]
    if rows == 1:
        found += [Tile(*tile, 2) for tile in VECTORS if not (wide % tile[0] or k % tile[1])]
    stage = (halves * COLUMNS + 2 * row_tile(rows)) * DEPTH
    most = 4 if name in ("o", "down") else 1
    ways = (False, True) if rows <= MOST_FEW else (False,)
    for splits, residents, share, few in itertools.product(
        range(1, most + 1), (1, 2, 3), (1.0, 0.5), ways
    ):
        stages = min(int(SHARED / residents * share) // stage, k // DEPTH)
        units = wide // COLUMNS * splits
        if stages >= 2 and units >= 60:
            found.append(LinearConfig(splits, stages, residents, few))
    return list(dict.fromkeys(found))


def served(name: str, rows: int) -> Launch:
    """As the table of products has it."""
    n, k, gated = SHAPES[name]
    split = name in ("o", "down")
    if rows == 1 and (name != "down"):
        return table.VECTORS[0]
    config = widened_linear_config(
        rows, n, k, gated, split, multiprocessors(torch.device("cuda", 0))
    )
    assert config is not None
    return config


def product(x: Tensor, weight: Weight, launch: Launch, gated: bool) -> Tensor:
    wide = weight.n // 2 if gated else weight.n
    if isinstance(launch, Tile):
        out = x.new_empty(len(x), wide)
        linear_one_row(x, weight, out, launch, gated, True)
    else:
        out = x.new_empty(len(x), wide)
        if launch.splits > 1:
            out = x.new_empty(launch.splits, len(x), wide, dtype=torch.float32)
        hopper_linear(x, weight, out, launch, gated, True)
    return out


def error_of(name: str, rows: int, launch: Launch) -> float:
    """1 - 2 xy / (xx + yy) of the product and the same in float32."""
    _, k, gated = SHAPES[name]
    weight = weights_of(name)[0]
    torch.manual_seed(rows)
    x = torch.randn(rows, k, device="cuda").bfloat16()
    found = product(x, weight, launch, gated)
    found = (found.sum(0) if found.dim() == 3 else found).double()
    exact = x.float() @ weight.dequantised().T
    exact = (gate(exact, Act.SILU) if gated else exact).double()
    return float(1 - 2 * (found * exact).sum() / ((found**2).sum() + (exact**2).sum()))


def chain(name: str, rows: int, launch: Launch) -> float:
    """Microseconds of norm, product and, behind o and down, the norm that follows."""
    n, k, gated = SHAPES[name]
    weights = weights_of(name)
    x, gain = (torch.randn(*shape, device="cuda").bfloat16() for shape in ((rows, k), (k,)))
    wide = n // 2 if gated else n
    residual, out_gain = x.new_zeros(rows, wide), x.new_ones(wide)

    def run(i: int) -> None:
        y = normalise(x, Norm(gain, 1e-5), True)
        out = product(y, weights[i % len(weights)], launch, gated)
        if name in ("o", "down"):
            add_norm(out, residual, Norm(out_gain, 1e-5), dependent=True)

    return microseconds(run)


@functools.cache
def weights_of(name: str) -> list[Weight]:
    """As many as L2 cannot hold."""
    n, k, _ = SHAPES[name]
    copies = max(2, min(32, -(-(1 << 29) // (n * k))))
    dense = torch.randn(n, k, device="cuda", dtype=torch.bfloat16).mul_(k**-0.5)
    one = fp8(Weight(dense), lambda largest: largest)
    return [one, *(replace(one, data=one.data.clone()) for _ in range(copies - 1))]


def compile_one(job: tuple[str, int, Launch]) -> str | None:
    """Fill Triton's cache on disk, in a process of its own."""
    name, rows, launch = job
    n, k, gated = SHAPES[name]
    try:
        x = torch.zeros(rows, k, device="cuda", dtype=torch.bfloat16)
        data = torch.zeros(n, k, device="cuda", dtype=torch.float8_e4m3fn)
        scale = torch.ones(n, 1, device="cuda")
        product(x, fp8_weight(data, scale), launch, gated)
        torch.cuda.synchronize()
    except Exception as error:
        return f"{job}: {error}"
    return None


def fp8_weight(data: Tensor, scale: Tensor) -> Weight:
    from penstock_kernels.weight import Layout

    return Weight(data, None, Layout.FP8, scale)


def measured(name: str, rows: int, broken: set[str]) -> Iterator[dict[str, Any]]:
    """Lines of the result, printed."""
    n, k, _ = SHAPES[name]
    own = served(name, rows)
    timed = []
    for launch in launches(name, rows):
        if str((name, rows, launch)) in broken:
            continue
        error = error_of(name, rows, launch)
        timed.append((chain(name, rows, launch), error, launch))
    timed.sort(key=lambda item: item[0])
    print(f"\n{name}: {rows} x {k} to {n}")
    for us, error, launch in timed:
        marks = " <- served" * (launch == own) + " WRONG" * (not error < LIMIT)
        print(f"  {us:8.2f} us {n * k / us / 1e6:6.2f} TB/s  {error:8.1e}  {launch}{marks}")
        yield {
            "shape": name, "rows": rows, "us": us, "error": error, "launch": str(launch),
            "served": launch == own,
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES))
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    cases = list(itertools.product(arguments.shapes, arguments.rows))
    jobs = [(*case, launch) for case in cases for launch in launches(*case)]
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        failures = [f for f in pool.map(compile_one, jobs, chunksize=4) if f]
    print(f"{len(jobs)} compiled, {len(failures)} failed", *failures[:3], flush=True)
    broken = {failure.split(": ")[0] for failure in failures}
    results = [line for case in cases for line in measured(*case, broken)]
    if arguments.out:
        content = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
        arguments.out.write_text(json.dumps(content | {"variants": results}, indent=1))


if __name__ == "__main__":
    main()
