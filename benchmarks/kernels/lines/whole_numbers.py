"""Products with weights of 4 bits in whole numbers, as a server launches them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from benchmarks.configs import Shape
from benchmarks.kernels.lines.line import Launch, Line, dependent, randn
from benchmarks.kernels.lines.products import H100, STREAMED, sizes
from torch import Tensor

from penstock_kernels.gpu.launch.hopper import multiprocessors
from penstock_kernels.gpu.products.hopper_int4 import hopper_int4, int4_config
from penstock_kernels.gpu.products.hopper_int4_many import hopper_int4_many
from penstock_kernels.gpu.products.hopper_int4_raw import hopper_int4_raw, raw_config
from penstock_kernels.gpu.products.hopper_int4_row import hopper_int4_row, steps_ahead
from penstock_kernels.gpu.products.int4_linear import int4_linear, widened
from penstock_kernels.int4 import BYTES, COLUMNS, ROWS
from penstock_kernels.ops import Norm
from penstock_kernels.weight import Layout, Weight

GROUP = 128
MANY = 512


def lines(shape: Shape) -> Iterator[Line]:
    """Of a model: those products that are one launch with nothing else in it."""
    for name in ("o", "gate-up", "down"):
        n, k = sizes(shape)[name]
        gated = name == "gate-up"
        wide = n // 2 if gated else n
        kernel = "hopper_int4_raw" if gated else "hopper_int4_row"
        yield Line(
            name=f"{name}, 4 bits", what=f"1 x {k} to {n}", kernels=(f"{kernel}._kernel",),
            moved=stored(n, k) + 2 * (k + wide), prepare=partial(_one_row, n, k, gated),
        )  # fmt: skip
        for rows in STREAMED:
            config = int4_config(rows, n, k, GROUP, False, gated, not gated, H100)
            assert config is not None
            parts = 2 if config.splits == 1 else 4 * config.splits  # bytes of a result
            yield Line(
                name=f"{name}, 4 bits", what=f"{rows} x {k} to {n}", flops=2 * rows * n * k,
                kernels=("hopper_int4._kernel",),
                moved=stored(n, k) + 2 * rows * k + parts * rows * wide,
                prepare=partial(_stream, rows, n, k, gated),
            )  # fmt: skip
        yield Line(
            name=f"{name}, 4 bits", what=f"{MANY} x {k} to {n}", flops=2 * MANY * n * k,
            kernels=("hopper_int4_many._kernel",), moved=stored(n, k) + 2 * MANY * (k + n),
            prepare=partial(_many, n, k),
        )  # fmt: skip
    n, k = sizes(shape)["o"]
    yield Line(
        name="o, 4 bits, by Triton", what=f"8 x {k} to {n}", flops=2 * 8 * n * k,
        kernels=("int4_linear._int4_kernel",), moved=stored(n, k) + 2 * 8 * (n + k),
        prepare=partial(_portable, n, k),
    )  # fmt: skip
    yield Line(
        name="o, 4 bits, widened in memory", what=f"{k} to {n}",
        kernels=("int4_linear._widen_kernel",), moved=stored(n, k) + 2 * n * k,
        prepare=partial(_widened, n, k),
    )  # fmt: skip


def stored(n: int, k: int) -> int:
    """Bytes of a matrix: numbers and scales."""
    return n * k // 2 + 2 * n * k // GROUP


def weights_of(n: int, k: int, device: torch.device, copies: int) -> list[Weight]:
    tiles = (n // ROWS, k // COLUMNS)
    return [
        Weight(
            torch.zeros(*tiles, BYTES, dtype=torch.uint8, device=device), None, Layout.INT4,
            torch.ones(*tiles, ROWS, dtype=torch.float16, device=device), scale_columns=GROUP,
            shape=(n, k),
        )
        for _ in range(copies)
    ]  # fmt: skip


def _stream(rows: int, n: int, k: int, gated: bool, device: torch.device, copies: int) -> Launch:
    weights, x, how = weights_of(n, k, device, copies), randn(device, rows, k), dependent(device)
    config = int4_config(rows, n, k, GROUP, False, gated, not gated, multiprocessors(device))
    assert config is not None
    out: Tensor = x.new_empty(rows, n // 2 if gated else n)
    if config.splits > 1:
        out = torch.empty(config.splits, rows, n, device=device)
    return lambda i: hopper_int4(x, weights[i % copies], out, config, gated, **how)


def _one_row(n: int, k: int, gated: bool, device: torch.device, copies: int) -> Launch:
    weights, x, how = weights_of(n, k, device, copies), randn(device, 1, k), dependent(device)
    if gated:
        config, norm = raw_config(n, k, GROUP, False), Norm(x[0], 1e-5)
        assert config is not None
        half = x.new_empty(1, n // 2)
        return lambda i: hopper_int4_raw(x, norm, weights[i % copies], half, config, **how)
    ahead = steps_ahead(n, k, GROUP, H100)
    assert ahead is not None
    out = x.new_empty(1, n)
    return lambda i: hopper_int4_row(x, weights[i % copies], out, ahead, **how)


def _many(n: int, k: int, device: torch.device, copies: int) -> Launch:
    weights, x, how = weights_of(n, k, device, copies), randn(device, MANY, k), dependent(device)
    out = x.new_empty(MANY, n)
    return lambda i: hopper_int4_many(x, weights[i % copies], out, 1, **how)


def _portable(n: int, k: int, device: torch.device, copies: int) -> Launch:
    weights, x, how = weights_of(n, k, device, copies), randn(device, 8, k), dependent(device)
    out = x.new_empty(8, n)
    return lambda i: int4_linear(x, weights[i % copies], out, **how)


def _widened(n: int, k: int, device: torch.device, copies: int) -> Launch:
    weights, how = weights_of(n, k, device, copies), dependent(device)
    return lambda i: widened(weights[i % copies], torch.bfloat16, **how)
