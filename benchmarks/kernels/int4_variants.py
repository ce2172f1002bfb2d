"""Which launch computes each product with a weight of 4 bits, measured behind a norm and checked.

    python -m benchmarks.kernels.int4_variants --out int4_variants.json

As `benchmarks.kernels.fp8_variants`, for Llama-3.1-8B in groups of 128. Then products of many rows,
whose weight is widened in memory, beside cuBLAS with a weight in half precision; and one layer's
products and norms as one chain. Takes some two minutes on one card.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from benchmarks.kernels.timing import microseconds
from torch import Tensor

from penstock_kernels.gpu.products.hopper_int4 import Int4Config, hopper_int4
from penstock_kernels.gpu.products.hopper_linear import row_tile
from penstock_kernels.gpu.products.problem import Epilogue
from penstock_kernels.gpu.products.table import find
from penstock_kernels.gpu.step.norm import add_norm, normalise
from penstock_kernels.ops import Act, Activation, Norm
from penstock_kernels.reference.activation import gate
from penstock_kernels.weight import Layout, Weight

SHAPES = {  # (n, k, gated)
    "qkv": (6144, 4096, False),
    "o": (4096, 4096, False),
    "gate_up": (28672, 4096, True),
    "down": (4096, 14336, False),
}
SHARED = 216 << 10
LIMIT = 1e-4  # of `difference`: half precision gives 1e-5


def launches(name: str, rows: int, few: bool) -> list[Int4Config]:
    """Those that the shape divides into and that shared memory holds."""
    n, k, gated = SHAPES[name]
    wide, held = (n // 2, 2) if gated else (n, 1)
    found = []
    for splits, depths, residents, share in itertools.product(
        (1, 2, 4, 7, 8), (1, 2, 4), (1, 2, 3, 4), (1.0, 0.6, 0.35)
    ):
        if (k // 128) % (splits * depths) or (gated and splits > 1):
            continue
        units = wide // 64 * splits
        stage = depths * (held * 4224 + row_tile(rows) * 256)
        stages = min(int(SHARED / residents * share) // stage, k // 128 // depths // splits)
        inner = residents * 132 > 2 * units and residents > 1
        if not few and share < 1:
            continue
        if stages < 2 or not 90 <= units <= 800 or inner or stages > 24:
            continue
        found.append(Int4Config(splits, depths, stages, residents, few))
    return list(dict.fromkeys(found))


def product(x: Tensor, weight: Weight, launch: Int4Config, gated: bool, regs: int = 128) -> Tensor:
    wide = weight.n // 2 if gated else weight.n
    out = x.new_empty(len(x), wide)
    if launch.splits > 1:
        out = x.new_empty(launch.splits, len(x), wide, dtype=torch.float32)
    hopper_int4(x, weight, out, launch, gated, True, regs)
    return out


def difference(found: Tensor, exact: Tensor) -> float:
    a, b = found.double(), exact.double()
    return float(1 - 2 * (a * b).sum() / ((a**2).sum() + (b**2).sum()))


def error_of(name: str, rows: int, launch: Int4Config) -> float:
    _, k, gated = SHAPES[name]
    weight, matrix = weights_of(name)[0], widened_of(name)
    torch.manual_seed(rows)
    x = torch.randn(rows, k, device="cuda").bfloat16()
    found = product(x, weight, launch, gated)
    found = found.sum(0) if found.dim() == 3 else found
    exact = x.float() @ matrix.T
    return difference(found, gate(exact, Act.SILU) if gated else exact)


def chain(name: str, rows: int, launch: Int4Config) -> float:
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

    return microseconds(run, replays=6)


def layer(rows: int, chosen: dict[str, Int4Config]) -> float:
    """Microseconds of a layer's products and norms, each reading the one before."""
    gain = torch.ones(4096, device="cuda").bfloat16()
    norm = Norm(gain, 1e-5)
    residual = torch.randn(rows, 4096, device="cuda").bfloat16()
    x = torch.randn(rows, 4096, device="cuda").bfloat16()
    weights = {name: weights_of(name) for name in SHAPES}

    def one(name: str, i: int, y: Tensor) -> Tensor:
        each = weights[name]
        return product(y, each[i % len(each)], chosen[name], SHAPES[name][2])

    def run(i: int) -> None:
        q = one("qkv", i, x)
        q = q.view(-1, 6144)[:rows, :4096].to(torch.bfloat16) if q.dim() == 3 else q[:, :4096]
        y = add_norm(one("o", i, q.contiguous()), residual, norm, True)
        y = one("gate_up", i, y)
        x.copy_(add_norm(one("down", i, y), residual, norm, True))

    return microseconds(run, count=8, replays=6)


@functools.cache
def weights_of(name: str) -> list[Weight]:
    """As many as L2 cannot hold."""
    n, k, _ = SHAPES[name]
    copies = max(2, min(32, -(-(1 << 28) // (n * k // 2))))
    return [random_weight(n, k) for _ in range(copies)]


def random_weight(n: int, k: int, zeros: bool = False) -> Weight:
    shape = (n // 64, k // 128, 4096)
    data = torch.randint(0, 256, shape, device="cuda", dtype=torch.uint8)
    scale = torch.rand(n // 64, k // 128, 64, device="cuda").add_(0.5).mul_(k**-0.5 / 5).half()
    zero = torch.randint(-8, 8, scale.shape, device="cuda").half() if zeros else None
    return Weight(data, None, Layout.INT4, scale, scale_columns=128, zero=zero, shape=(n, k))


@functools.cache
def widened_of(name: str) -> Tensor:
    return weights_of(name)[0].dequantised()


def compile_one(job: tuple[str, int, Int4Config]) -> str | None:
    """Fill Triton's cache on disk, in a process of its own."""
    name, rows, launch = job
    n, k, gated = SHAPES[name]
    try:
        x = torch.zeros(rows, k, device="cuda", dtype=torch.bfloat16)
        data = torch.zeros(n // 64, k // 128, 4096, device="cuda", dtype=torch.uint8)
        scale = torch.ones(n // 64, k // 128, 64, device="cuda").half()
        weight = Weight(data, None, Layout.INT4, scale, scale_columns=128, shape=(n, k))
        product(x, weight, launch, gated)
        torch.cuda.synchronize()
    except Exception as error:
        return f"{job}: {str(error)[-300:]}"
    return None


def measured(name: str, rows: int, tried: list[Int4Config]) -> Iterator[dict[str, Any]]:
    """Lines of the result, printed."""
    n, k, _ = SHAPES[name]
    timed = [(chain(name, rows, each), each) for each in tried]
    timed.sort(key=lambda item: item[0])
    print(f"\n{name}: {rows} x {k} to {n}")
    for place, (us, launch) in enumerate(timed):
        error = error_of(name, rows, launch) if place < 8 else 0.0
        if place < 8:
            mark = " WRONG" * (not error < LIMIT)
            print(
                f"  {us:7.2f} us {n * k * 0.516 / us / 1e6:5.2f} TB/s {error:8.1e} {launch}{mark}"
            )
        yield {"shape": name, "rows": rows, "us": us, "error": error, "launch": launch}


def many(rows: int) -> None:
    """Beyond 64 rows, as they are served, beside cuBLAS with weights in half precision."""
    for name, (_, k, _gated) in SHAPES.items():
        weights = weights_of(name)[:2]
        x = Activation(torch.randn(rows, k, device="cuda").bfloat16())
        library = microseconds(functools.partial(_dense, x.x, [widened_of(name).bfloat16()] * 2), 4)
        ours = microseconds(functools.partial(_served, x, weights), 4)
        print(f"{name:8} {rows:5} rows: {library:7.1f} us cuBLAS in half precision, {ours:7.1f} us")


def _dense(x: Tensor, weights: list[Tensor], i: int) -> Tensor:
    return F.linear(x, weights[i % 2])


def _served(x: Activation, weights: list[Weight], i: int) -> Tensor:
    launch = find(Epilogue.NONE, x, weights[0])
    assert launch is not None
    out: Tensor = launch(x, weights[i % 2], True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES))
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    began = time.monotonic()
    cases = list(itertools.product(arguments.shapes, arguments.rows))
    jobs = [
        (*case, launch)
        for case in cases
        for few in ((True, False) if case[1] <= 16 else (False,))
        for launch in launches(*case, few)
    ]
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        failures = [f for f in pool.map(compile_one, jobs, chunksize=2) if f]
    print(f"{len(jobs)} compiled, {len(failures)} failed", *failures[:3], flush=True)
    print(f"{time.monotonic() - began:.0f} s", flush=True)
    broken = {failure.split("): ")[0] for failure in failures}
    jobs = [job for job in jobs if not any(str(job)[:-1] == one for one in broken)]
    results = []
    for case in cases:
        try:
            tried = [job[2] for job in jobs if job[:2] == case]
            results += list(measured(*case, tried))
        except Exception as error:
            print(case, "failed:", str(error)[-300:])
    print(f"{time.monotonic() - began:.0f} s", flush=True)
    for rows in arguments.rows:
        best = {}
        for line in sorted(results, key=lambda line: -line["us"]):
            if line["rows"] == rows:
                best[line["shape"]] = line["launch"]
        if len(best) < 4:
            continue
        half = {name: replace(one, stages=max(2, one.stages // 2)) for name, one in best.items()}
        print(
            f"layer of {rows} rows: {layer(rows, best):.1f} us, half rings {layer(rows, half):.1f}"
        )
    for rows in (128, 256, 512, 2048):
        many(rows)
    print(f"{time.monotonic() - began:.0f} s", flush=True)
    if arguments.out:
        content = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
        arguments.out.write_text(json.dumps(content | {"variants": results}, default=str))


if __name__ == "__main__":
    main()
