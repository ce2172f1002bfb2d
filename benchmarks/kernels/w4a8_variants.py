"""Products of many rows in FP8 with weights of 4 bits, measured and checked.

    python -m benchmarks.kernels.w4a8_variants --out w4a8_variants.json

Llama-3.1-8B in groups of 128: microseconds of each product beside the one with rows in half
precision, as it is served, and the one with weights in FP8. Takes a minute on one card.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import multiprocessing
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from benchmarks.kernels.int4_variants import SHAPES, difference, random_weight, weights_of
from benchmarks.kernels.timing import microseconds
from torch import Tensor

from penstock_kernels import int4
from penstock_kernels.fp8 import quantise, scale_of
from penstock_kernels.gpu.products.hopper_w4a8 import TILE_US, W4A8Config, hopper_w4a8
from penstock_kernels.gpu.products.hopper_w4a8_gated import hopper_w4a8_gated
from penstock_kernels.gpu.products.problem import Epilogue
from penstock_kernels.gpu.products.quantise import quantise_rows, room_for
from penstock_kernels.gpu.products.table import find
from penstock_kernels.gpu.step.activation import gate
from penstock_kernels.gpu.step.rows import TritonRows
from penstock_kernels.ops import Act, Activation
from penstock_kernels.reference import activation
from penstock_kernels.weight import Layout, Weight

ROWS = (32, 48, 64, 96, 128, 192, 256, 512, 1024, 2048)
LIMIT = 1e-4  # of `difference`


@dataclass(frozen=True, slots=True)
class Case:
    """A weight whose products are checked."""

    n: int
    k: int
    group: int
    zeros: bool
    biased: bool


CHECKED = (
    Case(4096, 4096, 128, False, False),
    Case(4096, 4096, 128, True, True),
    Case(6144, 4096, 64, True, False),
    Case(4096, 14336, 64, False, False),
)


def configs(name: str, rows: int) -> list[W4A8Config]:
    """Those that might be fast."""
    tiles = [t for t in TILE_US if t // 2 < rows <= 4 * t or t == 256 and rows > 256]
    splits = (1, 2, 4) if name in ("o", "down") and rows <= 1024 else (1,)
    return [W4A8Config(*each) for each in itertools.product(tiles, splits)]


def in_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Its rows, as the kernel takes them, and their scales."""
    scale = scale_of(x.float().abs().amax(1, keepdim=True))
    return int4.interleave(quantise(x, scale)), scale


def product(q: Tensor, scale: Tensor, weight: Weight, config: W4A8Config) -> Tensor:
    out = torch.empty(len(q), weight.n, dtype=torch.bfloat16, device=q.device)
    if config.splits > 1:
        out = torch.empty(config.splits, *out.shape, dtype=torch.float32, device=q.device)
    hopper_w4a8(q, scale, weight, out, config, True)
    return out


def weight_of(case: Case) -> Weight:
    whole = random_weight(case.n, case.k, case.zeros)
    assert whole.scale is not None
    parts = 128 // case.group
    scale = whole.scale.repeat(1, parts, 1).mul_(torch.rand(1, device="cuda").half())
    zero = None if whole.zero is None else whole.zero.repeat(1, parts, 1)
    bias = torch.randn(case.n, device="cuda").bfloat16() if case.biased else None
    return Weight(
        whole.data, bias, Layout.INT4, scale, scale_columns=case.group, zero=zero,
        shape=(case.n, case.k),
    )  # fmt: skip


def check(case: Case, rows: int, config: W4A8Config) -> float:
    weight = weight_of(case)
    torch.manual_seed(rows)
    x = torch.randn(rows, case.k, device="cuda").bfloat16()
    scale = scale_of(x.float().abs().amax(1, keepdim=True))
    meant = (quantise(x, scale).float() * scale) @ weight.dequantised().T
    if weight.bias is not None:
        meant += weight.bias.float()
    if config.splits == 0:
        found = gated(*in_fp8(x), weight, config.rows)
        return difference(found, activation.gate(meant, Act.SILU))
    found = product(*in_fp8(x), weight, config)
    return difference(found.sum(0) if found.dim() == 3 else found, meant)


def gated(q: Tensor, scale: Tensor, weight: Weight, tile: int) -> Tensor:
    out = torch.empty(len(q), weight.n // 2, dtype=torch.bfloat16, device=q.device)
    hopper_w4a8_gated(q, scale, weight, out, tile, True)
    return out


def compile_one(job: tuple[Case, W4A8Config]) -> str | None:
    """Fill Triton's cache on disk, in a process of its own."""
    case, config = job
    try:
        q, scale = in_fp8(torch.zeros(8, case.k, device="cuda"))
        weight = weight_of(case)
        if config.splits == 0:
            gated(q, scale, weight, config.rows)
        else:
            product(q, scale, weight, config)
        torch.cuda.synchronize()
    except Exception as error:
        return f"{job}: {str(error)[-300:]}"
    return None


def measured(name: str, rows: int) -> dict[str, Any]:
    """Microseconds by what computes the product."""
    n, k, _ = SHAPES[name]
    weights = weights_of(name)
    x = torch.randn(rows, k, device="cuda").bfloat16()
    q, scale = in_fp8(x)
    rows_in_half = Activation(x)
    launch = find(Epilogue.PARTIAL, rows_in_half, weights[0]) if name in ("o", "down") else None
    launch = launch or find(Epilogue.NONE, rows_in_half, weights[0])
    assert launch is not None
    found = {"half": timed(lambda w: launch(rows_in_half, w, True), weights)}
    if rows > 64:
        wide = [torch.randn(n, k, device="cuda").to(torch.float8_e4m3fn) for _ in range(2)]
        one = torch.ones(1, n, device="cuda")
        scaled = functools.partial(torch._scaled_mm, out_dtype=torch.bfloat16, use_fast_accum=True)
        found["fp8"] = timed(lambda w: scaled(q, w.T, scale, one), wide)
    for config in configs(name, rows):
        run = functools.partial(product, q, scale, config=config)
        label = f"{config.rows}/{config.splits}"
        found[label] = attempt(run, weights)
    if name == "gate_up":
        step = TritonRows(True)
        found["half+act"] = timed(lambda w: step.gated(rows_in_half, w, Act.SILU), weights)
        room = room_for(x, n // 2, Layout.INT4)
        y = torch.empty(rows, n, device="cuda", dtype=torch.bfloat16)
        found["act"] = timed(lambda w: gate(y, Act.SILU, True, room=room), weights)
        z = y[:, : n // 2].contiguous()
        found["quant"] = timed(lambda w: quantise_rows(z, True, Layout.INT4), weights)
        for tile in TILE_US:
            found[f"{tile}/g"] = attempt(functools.partial(gated, q, scale, tile=tile), weights)
    return {"shape": name, "rows": rows} | found


def attempt(run: Any, weights: list[Weight]) -> float:
    try:
        return timed(lambda weight: run(weight=weight), weights)
    except Exception as failure:
        print(str(failure)[-200:])
        return float("inf")


def shown(times: dict[str, float]) -> str:
    """The others, then the fastest of ours."""
    ours = sorted((us, name) for name, us in times.items() if "/" in name)
    ours = [one for one in ours if "g" not in one[1]][:3] + [one for one in ours if "g" in one[1]][
        :2
    ]
    theirs = " ".join(f"{name} {us:.0f}" for name, us in times.items() if "/" not in name)
    return f"{theirs} | " + " ".join(f"{name} {us:.1f}" for us, name in ours)


def timed(run: Any, each: list[Any]) -> float:
    return microseconds(lambda i: run(each[i % len(each)]), 8, 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    began = time.monotonic()
    every = itertools.product(TILE_US, (1, 2, 4))
    jobs = [(CHECKED[0], W4A8Config(*each)) for each in every]
    jobs += [(case, W4A8Config(128, 1)) for case in CHECKED[1:]]
    gates = [W4A8Config(tile, 0) for tile in TILE_US]  # no splits: gated
    jobs += [(CHECKED[0], config) for config in gates]
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        failures = [failure for failure in pool.map(compile_one, jobs, chunksize=1) if failure]
    print(f"compiled {time.monotonic() - began:.0f} s", *failures[:3], flush=True)
    for (case, config), rows in itertools.product(jobs, (100, 300)):
        try:
            error = check(case, rows, config)
            if not error < LIMIT:
                print(f"WRONG {error:8.1e} {rows} {case} {config}")
        except Exception as failure:
            print(case, config, str(failure)[-200:])
    print(f"checked {time.monotonic() - began:.0f} s", flush=True)
    lines = []
    for name, rows in itertools.product(SHAPES, arguments.rows):
        lines.append(measured(name, rows))
        times = {k: v for k, v in lines[-1].items() if k not in ("shape", "rows")}
        print(f"{name:7} {rows:4} {shown(times)}", flush=True)
    if arguments.out:
        content = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
        arguments.out.write_text(json.dumps(content | {"products": lines}))


if __name__ == "__main__":
    main()
