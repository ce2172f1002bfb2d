"""Products with weights of 4-bit codes, as a server launches them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from benchmarks.configs import Shape
from benchmarks.kernels.lines.line import Launch, Line, dependent, randn
from benchmarks.kernels.lines.products import H100, STREAMED, sizes

from penstock_kernels.gpu.launch.hopper import multiprocessors
from penstock_kernels.gpu.products.hopper_lut import hopper_lut, lut_config
from penstock_kernels.gpu.products.lut import TILE
from penstock_kernels.gpu.products.lut_linear import lut_linear, widened
from penstock_kernels.gpu.products.parts import summed
from penstock_kernels.weight import Weight
from penstock_quantization.lut import Coded, packed

BLOCK = 64  # inputs that share a scale, as in nf4


def lines(shape: Shape) -> Iterator[Line]:
    """Of a model: those products that are one launch with nothing else in it."""
    for name in ("o", "gate-up", "down"):
        n, k = sizes(shape)[name]
        gated = name == "gate-up"
        wide = n // 2 if gated else n
        for rows in STREAMED:
            config = lut_config(rows, n, k, gated, not gated, H100)
            assert config is not None
            parts = 2 if config.splits == 1 else 4 * config.splits  # bytes of a result
            yield Line(
                name=f"{name}, nf4", what=f"{rows} x {k} to {n}", flops=2 * rows * n * k,
                kernels=("hopper_lut._kernel",),
                moved=stored(n, k) + 2 * rows * k + parts * rows * wide,
                prepare=partial(_stream, rows, n, k, gated),
            )  # fmt: skip
    n, k = sizes(shape)["o"]
    yield Line(
        name="o, nf4, by Triton", what=f"8 x {k} to {n}", flops=2 * 8 * n * k,
        kernels=("lut_linear._lut_kernel",), moved=stored(n, k) + 2 * 8 * (n + k),
        prepare=partial(_tile, n, k),
    )  # fmt: skip
    yield Line(
        name="o, nf4, widened in memory", what=f"{k} to {n}",
        kernels=("lut_linear._widen_kernel",), moved=stored(n, k) + 2 * n * k,
        prepare=partial(_widened, n, k),
    )  # fmt: skip
    n, _ = sizes(shape)["qkv"]
    yield Line(
        name="parts of a product", what=f"2 x {n}", kernels=("parts._parts_kernel",),
        moved=10 * n, small=True, prepare=partial(_parts, n),
    )  # fmt: skip


def stored(n: int, k: int) -> int:
    """Bytes of a matrix: codes and scales."""
    return n * k // 2 + 4 * n * k // BLOCK


def _weights(n: int, k: int, device: torch.device, copies: int) -> list[Weight]:
    def one() -> Weight:
        codes = torch.zeros(n, k, dtype=torch.uint8, device=device)
        scale = torch.ones(n, k // BLOCK, device=device)
        return packed([Coded(codes, "nf4", scale=scale, group=BLOCK)])

    return [one() for _ in range(copies)]


def _stream(rows: int, n: int, k: int, gated: bool, device: torch.device, copies: int) -> Launch:
    weights, x, how = _weights(n, k, device, copies), randn(device, rows, k), dependent(device)
    config = lut_config(rows, n, k, gated, not gated, multiprocessors(device))
    assert config is not None
    out = x.new_empty(rows, n // 2 if gated else n)
    if config.splits > 1:
        out = torch.empty(config.splits, rows, n, device=device)
    return lambda i: hopper_lut(x, weights[i % copies], out, config, gated, **how)


def _tile(n: int, k: int, device: torch.device, copies: int) -> Launch:
    weights, x, how = _weights(n, k, device, copies), randn(device, 8, k), dependent(device)
    out = x.new_empty(8, n)
    return lambda i: lut_linear(x, weights[i % copies], out, TILE, False, **how)


def _widened(n: int, k: int, device: torch.device, copies: int) -> Launch:
    weights, how = _weights(n, k, device, copies), dependent(device)
    return lambda i: widened(weights[i % copies], torch.bfloat16, **how)


def _parts(n: int, device: torch.device, copies: int) -> Launch:
    parts, how = torch.zeros(2, 1, n, device=device), dependent(device)
    return lambda i: summed(parts, torch.bfloat16, **how)
