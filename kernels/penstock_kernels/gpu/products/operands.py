"""A weight as kernels of products take it."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.fp8 import GROUP
from penstock_kernels.weight import Layout, Weight


def operands(weight: Weight, x: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and bias. What the weight lacks is not read: any tensor stands in its place."""
    scale, bias = weight.scale, weight.bias
    return x if scale is None else scale, x if bias is None else bias


def kinds(weight: Weight) -> dict[str, bool]:
    """What a kernel must know when it is compiled: whether to add a bias, and whether to widen
    numbers of 8 bits and multiply with a scale a row."""
    return {"BIASED": weight.bias is not None, "WIDENED": weight.has_row_scales}


def block_sizes(weight: Weight) -> dict[str, int]:
    """Rows and columns of a block of numbers that share a scale; 0 where a row does."""
    if weight.layout is Layout.DENSE or weight.has_row_scales:
        return {"ROWS": 0, "COLUMNS": 0}
    return {"ROWS": weight.scale_rows, "COLUMNS": weight.scale_columns}


def mixed(weight: Weight) -> bool:
    """Whether the columns of a weight stand in another order (`penstock_kernels.fp8`)."""
    return weight.layout is not Layout.DENSE and weight.k % GROUP == 0


@triton.jit
def column(place, MIXED: tl.constexpr):
    """Which column of a matrix stands at a place of its rows, where they are MIXED."""
    if MIXED:
        product, half, thread = place >> 2 & 3, place >> 1 & 1, place >> 4 & 3
        return (place & ~63) + product * 16 + half * 8 + thread * 2 + (place & 1)
    return place


@triton.jit
def place_of(column, ORDER: tl.constexpr):
    """Where a column stands in rows whose columns are in an order of `quantise.Order`; the inverse
    of `column` for that of FP8."""
    if ORDER == 2:
        half, thread = column >> 3 & 1, column >> 1 & 3
        return (column & ~15) + thread * 4 + (column & 1) * 2 + half
    if ORDER == 1:
        product, half, thread = column >> 4 & 3, column >> 3 & 1, column >> 1 & 3
        return (column & ~63) + thread * 16 + product * 4 + half * 2 + (column & 1)
    return column
