"""Products with weights in FP8, as a server launches them, and the rows that they read."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from benchmarks.configs import Shape
from benchmarks.kernels.lines.line import Launch, Line, dependent, randn
from benchmarks.kernels.lines.products import H100, STREAMED, sizes

from penstock_kernels.gpu.launch.hopper import multiprocessors
from penstock_kernels.gpu.products.hopper_linear import hopper_linear, widened_linear_config
from penstock_kernels.gpu.products.quantise import quantise_rows
from penstock_kernels.gpu.products.widen import widened
from penstock_kernels.weight import Weight
from penstock_quantization.online import fp8


def lines(shape: Shape) -> Iterator[Line]:
    """Of a model: those products that are one launch with nothing else in it."""
    for name in ("o", "gate-up", "down"):
        n, k = sizes(shape)[name]
        gated = name == "gate-up"
        wide = n // 2 if gated else n
        for rows in STREAMED:
            config = widened_linear_config(rows, n, k, gated, not gated, H100)
            assert config is not None
            parts = 2 if config.splits == 1 else 4 * config.splits  # bytes of a result
            yield Line(
                name=f"{name}, FP8", what=f"{rows} x {k} to {n}", flops=2 * rows * n * k,
                kernels=("hopper_linear._kernel",),
                moved=n * k + 2 * rows * k + parts * rows * wide,
                prepare=partial(_stream, rows, n, k, gated),
            )  # fmt: skip
    n, k = sizes(shape)["o"]
    yield Line(
        name="o, FP8, widened in memory", what=f"{k} to {n}", kernels=("widen._widen_kernel",),
        moved=3 * n * k, prepare=partial(_widened, n, k),
    )  # fmt: skip
    for rows in (256, 4096):
        d = shape.hidden
        yield Line(
            name="rows to FP8", what=f"{rows} x {d}", kernels=("quantise._kernel",),
            moved=3 * rows * d, small=rows < 1024, prepare=partial(_rows, rows, d),
        )  # fmt: skip


def _weights(n: int, k: int, device: torch.device, copies: int) -> list[Weight]:
    dense = randn(device, copies, n, k).mul_(k**-0.5)
    return [fp8(Weight(data), lambda largest: largest) for data in dense]


def _widened(n: int, k: int, device: torch.device, copies: int) -> Launch:
    weights, how = _weights(n, k, device, copies), dependent(device)
    return lambda i: widened(weights[i % copies], torch.bfloat16, **how)


def _stream(rows: int, n: int, k: int, gated: bool, device: torch.device, copies: int) -> Launch:
    weights, x, how = _weights(n, k, device, copies), randn(device, rows, k), dependent(device)
    config = widened_linear_config(rows, n, k, gated, not gated, multiprocessors(device))
    assert config is not None
    out = x.new_empty(rows, n // 2 if gated else n)
    if config.splits > 1:
        out = torch.empty(config.splits, rows, n, device=device)
    return lambda i: hopper_linear(x, weights[i % copies], out, config, gated, **how)


def _rows(rows: int, d: int, device: torch.device, copies: int) -> Launch:
    x, how = randn(device, copies, rows, d), dependent(device)
    return lambda i: quantise_rows(x[i % copies], **how)
