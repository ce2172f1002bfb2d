"""How one row is best multiplied by a weight that is looked up, or of whole numbers of 8 bits.

    python -m benchmarks.kernels.row_variants --formats nf4 int8

Llama-3.1-8B, random weights, in a graph over distinct ones with dependent launch: each product with
the norm or the sum that belongs to it, and what it takes without, behind a launched norm that is
not counted; microseconds, TB/s of its weight, and its distance from the product in float32.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable
from functools import partial

import torch
from benchmarks.kernels.bandwidth import copy_and_read
from benchmarks.kernels.int4_variants import SHAPES, difference
from benchmarks.kernels.timing import microseconds
from torch import Tensor

from penstock_kernels.gpu.products.hopper_row import RowConfig
from penstock_kernels.gpu.products.hopper_row_ring import RingConfig
from penstock_kernels.gpu.products.one_row import Config, multiply
from penstock_kernels.lut import table_of
from penstock_kernels.ops import Act, Norm
from penstock_kernels.reference.activation import gate
from penstock_kernels.reference.norm import normalise
from penstock_kernels.weight import Layout, Weight
from penstock_quantization.online import fp8

LIMIT = 1e-4
CONFIGS: dict[tuple[str, str], tuple[Config, ...]] = {
    ("nf4", "qkv"): (RingConfig(4, 2, 8, 2, 128), RingConfig(4, 2, 4, 3, 80)),
    ("nf4", "o"): (RingConfig(4, 2, 4, 2, 128), RingConfig(8, 2, 4, 1, 168)),
    ("nf4", "gate_up"): (RingConfig(8, 2, 5, 2, 80), RingConfig(8, 2, 9, 1, 168)),
    ("nf4", "down"): (RingConfig(8, 2, 8, 1, 168), RingConfig(4, 2, 2, 2, 128)),
    ("int8", "qkv"): (
        RowConfig(4, 6, 168), RingConfig(4, 2, 5, 2, 128), RingConfig(4, 1, 6, 3, 80),
    ),
    ("int8", "o"): (RowConfig(4, 8, 255), RingConfig(4, 2, 4, 2, 128), RingConfig(8, 1, 8, 1, 168)),
    ("int8", "gate_up"): (
        RingConfig(8, 1, 5, 2, 80), RingConfig(8, 2, 2, 2, 80), RingConfig(8, 1, 12, 1, 168),
    ),
    ("int8", "down"): (
        RingConfig(8, 1, 9, 1, 168), RingConfig(8, 1, 11, 1, 168), RingConfig(4, 1, 8, 2, 128),
    ),
    ("fp8", "qkv"): (
        RowConfig(4, 4, 168), RingConfig(4, 2, 5, 2, 128), RingConfig(4, 1, 6, 3, 80),
    ),
    ("fp8", "o"): (RowConfig(4, 8, 255), RingConfig(4, 2, 4, 2, 128), RingConfig(8, 1, 8, 1, 168)),
    ("fp8", "gate_up"): (RingConfig(8, 1, 5, 2, 80), RingConfig(8, 1, 12, 1, 168)),
    ("fp8", "down"): (RingConfig(8, 1, 9, 1, 168), RingConfig(8, 2, 4, 1, 168)),
}  # fmt: skip
PRODUCTS = ("qkv", "o", "gate_up", "down")


def random_weight(form: str, n: int, k: int) -> Weight:
    """In the format: numbers about as large as those of a model."""
    if form == "fp8":
        dense = Weight(torch.randn(n, k, device="cuda").bfloat16().mul_(k**-0.5))
        return fp8(dense, lambda largest: largest)
    if form == "int8":
        data = torch.randint(-127, 128, (n, k), device="cuda", dtype=torch.int8)
        scale = torch.rand(n, 1, device="cuda").add_(0.5).mul_(k**-0.5 / 73)
        return Weight(data, None, Layout.INT8, scale)
    data = torch.randint(0, 256, (n, k // 2), device="cuda", dtype=torch.uint8)
    scale = torch.rand(k // 64, n, device="cuda").add_(0.5).mul_(k**-0.5)
    table = table_of(form, data.device)
    return Weight(data, None, Layout.LUT, scale, scale_columns=64, table=table, code=form)


def bytes_of(weight: Weight) -> int:
    return sum(part.numel() * part.element_size() for part in weight.tensors())


def launch(
    name: str, config: Config, x: Tensor, out: Tensor, norm: Norm | None, weight: Weight
) -> None:
    """With the norm of rows that have one, with the sum that o and down end in."""
    adds = name in ("o", "down")
    multiply(config, x, weight, out, True, None if adds else norm, name == "gate_up", adds)


def prepared(name: str, config: Config, rows: Tensor) -> tuple[Callable[[Weight], None], Tensor]:
    n, k, gated = SHAPES[name]
    norm = Norm(torch.ones(k, device="cuda").bfloat16(), 1e-5)
    out = rows.new_zeros(1, n // 2 if gated else n)
    return partial(launch, name, config, rows, out, norm), out


def compile_one(job: tuple[str, str, Config]) -> str | None:
    """Fill Triton's cache on disk, in a process of its own."""
    form, name, config = job
    n, k, _ = SHAPES[name]
    try:
        run, _ = prepared(name, config, torch.zeros(1, k, device="cuda").bfloat16())
        run(random_weight(form, n, k))
        torch.cuda.synchronize()
    except Exception as error:
        return f"{job}: {str(error)[-200:]}"
    return None


def error_of(name: str, config: Config, weight: Weight) -> float:
    _, k, gated = SHAPES[name]
    torch.manual_seed(1)
    x = torch.randn(1, k, device="cuda").bfloat16()
    run, out = prepared(name, config, x)
    run(weight)
    norm = Norm(torch.ones_like(x[0]), 1e-5)
    row = x if name in ("o", "down") else normalise(x, norm)
    exact = row.float() @ weight.dequantised().T
    return difference(out, gate(exact, Act.SILU) if gated else exact)


def measured(form: str, name: str, failed: set[tuple[str, str, Config]]) -> None:
    n, k, _ = SHAPES[name]
    one = random_weight(form, n, k)
    weights = [random_weight(form, n, k) for _ in range(max(2, (1 << 28) // bytes_of(one)))]
    for config in CONFIGS[form, name]:
        if (form, name, config) in failed:
            continue
        run, _ = prepared(name, config, torch.randn(1, k, device="cuda").bfloat16())
        us = microseconds(lambda i, run=run: run(weights[i % len(weights)]), len(weights))  # type: ignore[misc]
        error = error_of(name, config, one)
        mark = "" if error < LIMIT else " WRONG"
        print(
            f"{form:5} {name:8} {us:6.1f} us {bytes_of(one) / us / 1e6:5.2f} TB/s {error:7.0e} "
            f"{config}{mark}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--formats", nargs="+", default=["nf4", "int8"])
    parser.add_argument("--workers", type=int, default=12)
    arguments = parser.parse_args()
    jobs = [
        (form, name, config)
        for form in arguments.formats
        for name in PRODUCTS
        for config in CONFIGS[form, name]
    ]
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        failures = pool.map(compile_one, jobs, chunksize=1)
    failed = {job for job, failure in zip(jobs, failures, strict=True) if failure}
    print(f"{len(jobs)} compiled", *(failure for failure in failures if failure), flush=True)
    copy, _ = copy_and_read(torch.device("cuda", 0))
    print(f"copy {copy:.2f} TB/s")
    for form in arguments.formats:
        for name in PRODUCTS:
            measured(form, name, failed)


if __name__ == "__main__":
    main()
