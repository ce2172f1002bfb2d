"""Products with weights in whole numbers of 4 bits.

Up to 64 rows a product is one pass over the weight, whose numbers are widened on the way. Beyond,
the weight is widened in memory, some of its rows at a time so that they stay in the second cache,
and cuBLAS multiplies.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor

from penstock_kernels.gpu.int4_linear import int4_linear, widened
from penstock_kernels.gpu.products.problem import MANY, Epilogue, Problem, Product
from penstock_kernels.int4 import ROWS
from penstock_kernels.ops import Activation
from penstock_kernels.weight import Layout, Weight

FEW = 64  # rows up to which the weight's bytes are what a product costs
CACHED = 24 << 20  # bytes of widened numbers that stay in the second cache


def _few(p: Problem) -> bool | None:
    return (p.half and not p.ordered) or None


def _gated(p: Problem) -> bool | None:
    return (p.half and not p.ordered and p.n % (2 * ROWS) == 0) or None


def _ordered(p: Problem) -> bool | None:
    return p.ordered or None


def _always(p: Problem) -> bool:
    return True


def _launch(config: bool, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    out = x.x.new_empty(len(x.x), weight.n)
    int4_linear(x.x, weight, out, False, dependent)
    return out


def _launch_gated(config: bool, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    out = x.x.new_empty(len(x.x), weight.n // 2)
    int4_linear(x.x, weight, out, True, dependent)
    return out


def _launch_widened(config: bool, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    rows, columns = x.x, weight.k if weight.order is None else len(weight.order)
    if weight.order is not None:
        rows = rows.index_select(1, weight.order)
    step = max(ROWS, CACHED // (rows.element_size() * columns) // ROWS * ROWS)
    if step >= weight.n:
        return F.linear(rows, widened(weight, rows.dtype, dependent), weight.bias)
    out = rows.new_empty(len(rows), weight.n)
    for start in range(0, weight.n, step):
        part = range(start, min(start + step, weight.n))
        bias = None if weight.bias is None else weight.bias[part.start : part.stop]
        matrix = widened(weight, rows.dtype, dependent, part)
        out[:, part.start : part.stop] = F.linear(rows, matrix, bias)
    return out


_row = partial(Product, Layout.INT4)

PRODUCTS = (
    _row(Epilogue.NONE, range(1, FEW + 1), _few, _launch),
    _row(Epilogue.NONE, range(1, MANY), _always, _launch_widened),
    _row(Epilogue.GATED, range(1, FEW + 1), _gated, _launch_gated),
)
