"""Products with weights in whole numbers of 4 bits, as a server launches them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from benchmarks.configs import Shape
from benchmarks.kernels.lines.line import Launch, Line, dependent, randn
from benchmarks.kernels.lines.products import H100, STREAMED, sizes

from penstock_kernels.gpu.hopper import multiprocessors
from penstock_kernels.gpu.hopper_int4 import hopper_int4, stream4_for
from penstock_kernels.gpu.hopper_int4_many import hopper_int4_many
from penstock_kernels.gpu.int4_linear import int4_linear, widened
from penstock_kernels.weight import Weight
from penstock_quantization.integers import Integers, pack

GROUP = 128  # inputs that share a scale
MANY = 128  # rows


def lines(shape: Shape) -> Iterator[Line]:
    """Of a model: those products that are one launch with nothing else in it."""
    for name in ("o", "gate-up", "down"):
        n, k = sizes(shape)[name]
        gated = name == "gate-up"
        wide = n // 2 if gated else n
        for rows in (1, *STREAMED):
            stream = stream4_for(rows, n, k, GROUP, False, gated, not gated, H100)
            if stream is None:
                continue
            parts = 2 if stream.splits == 1 else 4 * stream.splits  # bytes of a result
            yield Line(
                name=f"{name}, INT4", what=f"{rows} x {k} to {n}", flops=2 * rows * n * k,
                kernels=("hopper_int4._kernel",),
                moved=stored(n, k) + 2 * rows * k + parts * rows * wide,
                prepare=partial(_stream, rows, n, k, gated),
            )  # fmt: skip
    n, k = sizes(shape)["gate-up"]
    yield Line(
        name="gate-up without its gate, INT4", what=f"{MANY} x {k} to {n}", flops=2 * MANY * n * k,
        kernels=("hopper_int4_many._kernel",), moved=stored(n, k) + 2 * MANY * (n + k),
        prepare=partial(_many, n, k),
    )  # fmt: skip
    n, k = sizes(shape)["o"]
    yield Line(
        name="o, INT4, by Triton", what=f"8 x {k} to {n}", flops=2 * 8 * n * k,
        kernels=("int4_linear._int4_kernel",), moved=stored(n, k) + 2 * 8 * (n + k),
        prepare=partial(_tile, n, k),
    )  # fmt: skip
    yield Line(
        name="o, INT4, widened in memory", what=f"{k} to {n}",
        kernels=("int4_linear._widen_kernel",), moved=stored(n, k) + 2 * n * k,
        prepare=partial(_widened, n, k),
    )  # fmt: skip


def stored(n: int, k: int) -> int:
    """Bytes of a matrix: numbers and scales."""
    return n * k // 2 + 2 * n * k // GROUP


def _weights(n: int, k: int, device: torch.device, copies: int) -> list[Weight]:
    def one() -> Weight:
        q = torch.zeros(n, k, dtype=torch.int8, device=device)
        scale = torch.ones(n, k // GROUP, dtype=torch.float16, device=device)
        return pack(Integers(4, q, scale, None, GROUP), None, None, k)

    return [one() for _ in range(copies)]


def _stream(rows: int, n: int, k: int, gated: bool, device: torch.device, copies: int) -> Launch:
    weights, x, how = _weights(n, k, device, copies), randn(device, rows, k), dependent(device)
    stream = stream4_for(rows, n, k, GROUP, False, gated, not gated, multiprocessors(device))
    assert stream is not None
    out = x.new_empty(rows, n // 2 if gated else n)
    if stream.splits > 1:
        out = torch.empty(stream.splits, rows, n, device=device)
    return lambda i: hopper_int4(x, weights[i % copies], out, stream, gated, **how)


def _many(n: int, k: int, device: torch.device, copies: int) -> Launch:
    weights, x, how = _weights(n, k, device, copies), randn(device, MANY, k), dependent(device)
    out = x.new_empty(MANY, n)
    return lambda i: hopper_int4_many(x, weights[i % copies], out, 1, **how)


def _tile(n: int, k: int, device: torch.device, copies: int) -> Launch:
    weights, x, how = _weights(n, k, device, copies), randn(device, 8, k), dependent(device)
    out = x.new_empty(8, n)
    return lambda i: int4_linear(x, weights[i % copies], out, False, **how)


def _widened(n: int, k: int, device: torch.device, copies: int) -> Launch:
    weights, how = _weights(n, k, device, copies), dependent(device)
    return lambda i: widened(weights[i % copies], torch.bfloat16, **how)
