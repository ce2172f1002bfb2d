"""Rows in FP8, each with a scale of its own, for the tensor cores.

Reference: `penstock_kernels.fp8`.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.fp8 import GROUP, LARGEST, SMALLEST
from penstock_kernels.gpu.launch.dependent import launch, wait
from penstock_kernels.gpu.products.operands import place_of

LIMITS = {"LARGEST": LARGEST, "SMALLEST": SMALLEST}


@triton.jit
def store_quantised(
    value, out, scale, row, d, column, inside,
    LARGEST: tl.constexpr, SMALLEST: tl.constexpr, MIXED: tl.constexpr,
):  # fmt: skip
    """A whole row, float32, and its scale. column: of each of its numbers."""
    step = tl.max(tl.where(inside, tl.abs(value), 0.0), 0) / LARGEST
    step = tl.maximum(step, SMALLEST)
    tl.store(scale + row, step)
    place = out + row * d + place_of(column, MIXED)
    tl.store(place, (value / step).to(out.dtype.element_ty), mask=inside)


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
    column = tl.arange(0, BLOCK)
    inside = column < d
    value = tl.load(x + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    store_quantised(value, out, scale, row, d, column, inside, LARGEST, SMALLEST, MIXED)


def whole_row(d: int) -> tuple[int, int]:
    """Numbers of a program that holds a row of d, and its warps."""
    block = triton.next_power_of_2(d)
    return block, max(1, min(16, block // 512))


def room_for(x: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """For as many rows of d numbers as x has, quantised, and their scales."""
    out = torch.empty(len(x), d, dtype=torch.float8_e4m3fn, device=x.device)
    return out, torch.empty(len(x), 1, dtype=torch.float32, device=x.device)


def quantises(room: tuple[Tensor, Tensor] | None) -> dict[str, Any]:
    """How a kernel is compiled that may quantise the rows it makes."""
    mixed = room is not None and room[0].shape[1] % GROUP == 0
    return {"QUANTISES": room is not None, "MIXED": mixed} | LIMITS


def quantise_rows(x: Tensor, dependent: bool = False) -> tuple[Tensor, Tensor]:
    """x [rows, d] as e4m3 [rows, d] and scales [rows, 1] float32, whose product is x.

    Rows may be strided. The columns come out as weights have them (`penstock_kernels.fp8`).
    """
    rows, d = x.shape
    out, scale = room_for(x, d)
    block, warps = whole_row(d)
    _kernel[(rows,)](
        x, out, scale, x.stride(0), d, **LIMITS, MIXED=d % GROUP == 0, BLOCK=block,
        num_warps=warps, **launch(dependent),
    )  # fmt: skip
    return out, scale
