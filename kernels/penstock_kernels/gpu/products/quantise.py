"""Rows in FP8, each with a scale of its own, for the tensor cores.

Reference: `penstock_kernels.fp8`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.fp8 import GROUP, LARGEST, SMALLEST
from penstock_kernels.gpu.launch.dependent import launch, wait
from penstock_kernels.gpu.products.operands import column


@triton.jit
def _kernel(
    x,  # [rows, x_stride]
    out,  # [rows, d] e4m3
    scale,  # [rows]
    x_stride,
    d,
    LARGEST: tl.constexpr,
    SMALLEST: tl.constexpr,
    MIXED: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    wait(PDL)
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    inside = place < d
    value = tl.load(x + row * x_stride + column(place, MIXED), mask=inside, other=0.0)
    value = value.to(tl.float32)
    step = tl.maximum(tl.max(tl.abs(value), 0) / LARGEST, SMALLEST)
    tl.store(scale + row, step)
    tl.store(out + row * d + place, (value / step).to(out.dtype.element_ty), mask=inside)


def quantise_rows(x: Tensor, dependent: bool = False) -> tuple[Tensor, Tensor]:
    """x [rows, d] as e4m3 [rows, d] and scales [rows, 1] float32, whose product is x.

    Rows may be strided. The columns come out as weights have them (`penstock_kernels.fp8`).
    """
    rows, d = x.shape
    out = torch.empty(rows, d, dtype=torch.float8_e4m3fn, device=x.device)
    scale = torch.empty(rows, 1, dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(d)
    _kernel[(rows,)](
        x, out, scale, x.stride(0), d, LARGEST=LARGEST, SMALLEST=SMALLEST, MIXED=d % GROUP == 0,
        BLOCK=block,
        num_warps=max(1, min(16, block // 512)), **launch(dependent),
    )  # fmt: skip
    return out, scale
