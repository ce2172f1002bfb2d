"""Which tile computes each product of a decode step, measured where it runs: behind a norm.

    python -m benchmarks.kernels.chain --out chain.json

Norm and product alternate in a CUDA graph over distinct weights, with and without dependent launch.
One line a shape and number of rows: cuBLAS, then the best tiles, microseconds for the pair.
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
from benchmarks.kernels.sweep import SHAPES, microseconds, weights_of

from penstock_kernels.gpu.activation import silu_mul
from penstock_kernels.gpu.linear import Tile, linear, linear_one_row, row_tile
from penstock_kernels.gpu.norm import rms_norm

SHARED_BYTES = 227 << 10
VECTORS = [(1, 4096, 8), (2, 1024, 4), (2, 2048, 8), (2, 2048, 4), (2, 4096, 8), (4, 1024, 4)]
VECTORS += [(4, 1024, 8), (4, 2048, 8), (8, 1024, 8), (8, 512, 4), (1, 2048, 4)]
DOTS = [(16, 256, 4, 4), (16, 512, 4, 2), (32, 128, 4, 5), (32, 128, 4, 8), (32, 256, 4, 3)]
DOTS += [(32, 256, 4, 5), (32, 256, 8, 4), (64, 128, 4, 3), (64, 128, 4, 5), (64, 128, 8, 5)]
DOTS += [(64, 256, 8, 2), (64, 64, 4, 8), (128, 64, 4, 5), (128, 64, 8, 6), (128, 128, 8, 3)]

Job = tuple[str, int, Tile, bool]


def tiles(name: str, rows: int) -> list[Tile]:
    """Those that the shape divides into and that shared memory holds."""
    n, k, gated = SHAPES[name]
    wide = n // 2 if gated else n
    if rows == 1:
        return [Tile(bn, bk, 0, warps, 2) for bn, bk, warps in VECTORS if not (wide % bn or k % bk)]
    found = []
    for bn, bk, warps, stages in DOTS:
        stage = ((2 if gated else 1) * bn + row_tile(rows)) * bk * 2
        if wide % bn or k % bk or stage * (stages + 1) > SHARED_BYTES or wide // bn < 60:
            continue
        found.append(Tile(bn, bk, 1, warps, stages))
    return found


def pair(name: str, rows: int, tile: Tile | None, dependent: bool) -> Callable[[int], None]:
    """A norm and the product of what it leaves; None: by cuBLAS."""
    n, k, gated = SHAPES[name]
    copies = 2 if name.startswith("head") else 16
    weights = weights_of(name, copies)
    x, gain = (torch.randn(*shape, device="cuda").bfloat16() for shape in ((rows, k), (k,)))
    y, wide = torch.empty_like(x), x.new_empty(rows, n)
    out = x.new_empty(rows, n // 2 if gated else n)

    def launch(i: int) -> None:
        rms_norm(x, gain, 1e-5, y, dependent)
        weight = weights[i % copies]
        if tile is None:
            torch.mm(y, weight.t(), out=wide)
            if gated:
                silu_mul(wide, out)
        else:
            function = linear_one_row if rows == 1 else linear
            function(y, weight, out, tile, gated, dependent)

    return launch


def compile_one(job: Job) -> str | None:
    """Fill Triton's cache on disk, in a process of its own."""
    name, rows, tile, dependent = job
    n, k, gated = SHAPES[name]
    try:
        x = torch.zeros(rows, k, device="cuda", dtype=torch.bfloat16)
        out = x.new_empty(rows, n // 2 if gated else n)
        function = linear_one_row if rows == 1 else linear
        function(x, _weight(n, k), out, tile, gated, dependent)
        torch.cuda.synchronize()
    except Exception as error:
        return f"{job}: {error}"
    return None


@functools.cache
def _weight(n: int, k: int) -> torch.Tensor:
    return torch.zeros(n, k, device="cuda", dtype=torch.bfloat16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES))
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    cases = list(itertools.product(arguments.shapes, arguments.rows))
    jobs = [(*case, tile, on) for case in cases for tile in tiles(*case) for on in (True, False)]
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        failures = [f for f in pool.map(compile_one, jobs, chunksize=4) if f]
    print(f"{len(jobs)} compiled, {len(failures)} failed", *failures[:3], flush=True)
    broken = {failure.split(": ")[0] for failure in failures}
    results: list[dict[str, Any]] = []
    for name, rows in cases:
        n, k, _ = SHAPES[name]
        library = microseconds(pair(name, rows, None, False))
        timed = []
        for tile in tiles(name, rows):
            if str((name, rows, tile, True)) not in broken:
                timed.append((microseconds(pair(name, rows, tile, True)), tile))
        timed.sort(key=lambda item: item[0])
        plain = microseconds(pair(name, rows, timed[0][1], False))
        size = 2 * n * k
        print(
            f"{name:10} {rows:3} rows: cuBLAS {library:6.1f} us {size / library / 1e6:.2f} TB/s | "
            f"not dependent {plain:6.1f} | {size / timed[0][0] / 1e6:.2f} TB/s "
            + "  ".join(f"{us:.1f} {t.n}x{t.k} w{t.warps} s{t.stages}" for us, t in timed[:4]),
            flush=True,
        )
        results.append(
            {"shape": name, "n": n, "k": k, "rows": rows, "cublas_us": library, "plain_us": plain}
            | {"tiles": [[us, t.n, t.k, t.warps, t.stages] for us, t in timed[:6]]}
        )
        weights_of.cache_clear()
    content = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "pairs": results}
    arguments.out.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
