"""Rows in FP8, each with a scale of its own, for the tensor cores.

Reference: `penstock_kernels.fp8`.
"""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.fp8 import GROUP, LARGEST, SMALLEST
from penstock_kernels.gpu.launch.dependent import launch, wait
from penstock_kernels.gpu.products.operands import place_of
from penstock_kernels.int4 import PRODUCT
from penstock_kernels.weight import Layout

LIMITS = {"LARGEST": LARGEST, "SMALLEST": SMALLEST}


class Order(enum.IntEnum):
    """In which order columns stand: that of the weight which the rows are multiplied with."""

    PLAIN = 0
    FP8 = 1  # `fp8.interleave`
    INT4 = 2  # `int4.interleave`

    @staticmethod
    def of(layout: Layout, d: int) -> Order:
        """For a weight of such a layout with d columns."""
        if layout is Layout.INT4:
            return Order.INT4 if d % PRODUCT == 0 else Order.PLAIN
        return Order.FP8 if d % GROUP == 0 else Order.PLAIN


class Room(NamedTuple):
    """Where rows go quantised."""

    rows: Tensor  # [rows, d] e4m3
    scale: Tensor  # [rows, 1] float32
    order: Order


@triton.jit
def store_quantised(
    value, out, scale, row, d, column, inside,
    LARGEST: tl.constexpr, SMALLEST: tl.constexpr, ORDER: tl.constexpr,
):  # fmt: skip
    """A whole row, float32, and its scale. column: of each of its numbers."""
    step = tl.max(tl.where(inside, tl.abs(value), 0.0), 0) / LARGEST
    step = tl.maximum(step, SMALLEST)
    tl.store(scale + row, step)
    place = out + row * d + place_of(column, ORDER)
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
    ORDER: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    wait(PDL)
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < d
    value = tl.load(x + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    store_quantised(value, out, scale, row, d, column, inside, LARGEST, SMALLEST, ORDER)


def whole_row(d: int) -> tuple[int, int]:
    """Numbers of a program that holds a row of d, and its warps."""
    block = triton.next_power_of_2(d)
    return block, max(1, min(16, block // 512))


def room_for(x: Tensor, d: int, layout: Layout = Layout.FP8) -> Room:
    """For as many rows of d numbers as x has, on their way to a weight of such a layout."""
    out = torch.empty(len(x), d, dtype=torch.float8_e4m3fn, device=x.device)
    scale = torch.empty(len(x), 1, dtype=torch.float32, device=x.device)
    return Room(out, scale, Order.of(layout, d))


def quantises(room: Room | None) -> dict[str, Any]:
    """How a kernel is compiled that may quantise the rows it makes."""
    order = Order.PLAIN if room is None else room.order
    return {"QUANTISES": room is not None, "ORDER": int(order)} | LIMITS


def places(room: Room | None, out: Tensor) -> tuple[Tensor, Tensor]:
    """Where such a kernel puts them; where it does not, any tensor stands there."""
    return (out, out) if room is None else (room.rows, room.scale)


def quantise_rows(
    x: Tensor, dependent: bool = False, layout: Layout = Layout.FP8
) -> tuple[Tensor, Tensor]:
    """x [rows, d] as e4m3 [rows, d] and scales [rows, 1] float32, whose product is x.

    Rows may be strided. The columns come out as weights of the layout have them.
    """
    rows, d = x.shape
    room = room_for(x, d, layout)
    block, warps = whole_row(d)
    _kernel[(rows,)](
        x, room.rows, room.scale, x.stride(0), d, **LIMITS, ORDER=int(room.order), BLOCK=block,
        num_warps=warps, **launch(dependent),
    )  # fmt: skip
    return room.rows, room.scale
