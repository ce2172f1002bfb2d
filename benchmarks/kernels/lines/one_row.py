"""Products of one row with weights of 4-bit codes, of whole numbers of 8 bits, and in FP8."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from benchmarks.configs import Shape
from benchmarks.kernels.lines.codes import stored
from benchmarks.kernels.lines.line import Launch, Line, dependent, randn
from benchmarks.kernels.lines.products import H100, sizes

from penstock_kernels.gpu.launch.hopper import multiprocessors
from penstock_kernels.gpu.products.hopper_row import RowConfig
from penstock_kernels.gpu.products.one_row import config_for, multiply
from penstock_kernels.lut import table_of
from penstock_kernels.ops import Norm
from penstock_kernels.weight import Layout, Weight

GROUP = 64
FORMS = {Layout.LUT: "nf4", Layout.INT8: "8 bits", Layout.FP8: "FP8"}


def lines(shape: Shape) -> Iterator[Line]:
    """Of a model, as they are launched: qkv and gate-up with their norm, o and down with the sum
    that they end in."""
    for layout, form in FORMS.items():
        for name in ("qkv", "o", "gate-up", "down"):
            n, k = sizes(shape)[name]
            gated = name == "gate-up"
            config = config_for(n, k, layout, gated, H100)
            assert config is not None
            kernel = "hopper_row" if isinstance(config, RowConfig) else "hopper_row_ring"
            held = stored(n, k) if layout is Layout.LUT else n * (k + 4)
            yield Line(
                name=f"{name}, {form}", what=f"1 x {k} to {n}", kernels=(f"{kernel}._kernel",),
                moved=held + 2 * (k + (n // 2 if gated else n)),
                prepare=partial(_one_row, layout, name, n, k),
            )  # fmt: skip


def _weight(layout: Layout, n: int, k: int, device: torch.device) -> Weight:
    if layout is not Layout.LUT:
        dtype = torch.int8 if layout is Layout.INT8 else torch.float8_e4m3fn
        data = torch.zeros(n, k, dtype=dtype, device=device)
        return Weight(data, None, layout, torch.ones(n, 1, device=device))
    data = torch.zeros(n, k // 2, dtype=torch.uint8, device=device)
    scale = torch.ones(k // GROUP, n, device=device)
    table = table_of("nf4", device)
    return Weight(data, None, layout, scale, scale_columns=GROUP, table=table, code="nf4")


def _one_row(
    layout: Layout, name: str, n: int, k: int, device: torch.device, copies: int
) -> Launch:
    gated, adds = name == "gate-up", name in ("o", "down")
    weights = [_weight(layout, n, k, device) for _ in range(copies)]
    x, dependently = randn(device, 1, k), dependent(device)["dependent"]
    norm = None if adds else Norm(x[0], 1e-5)
    out = x.new_zeros(1, n // 2 if gated else n)
    config = config_for(n, k, layout, gated, multiprocessors(device))
    assert config is not None
    return lambda i: multiply(config, x, weights[i % copies], out, dependently, norm, gated, adds)
