"""Products with weights in whole numbers of 4 bits.

Up to 64 rows a product is one pass over the weight, whose numbers are widened on the way. Beyond,
the weight is widened in memory, and cuBLAS multiplies: doing so with parts that stay in the second
cache was slower in all sizes. Where the weight says so (`Weight.fp8_rows`), rows in FP8 are
multiplied instead.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from penstock_kernels.gpu.launch.card import has_fp8
from penstock_kernels.gpu.launch.hopper import is_hopper, multiprocessors
from penstock_kernels.gpu.products.hopper_gated import hopper_gated_linear, supports_hopper_gated
from penstock_kernels.gpu.products.hopper_int4 import Int4Config, hopper_int4, int4_config
from penstock_kernels.gpu.products.hopper_int4_many import hopper_int4_many, splits_for
from penstock_kernels.gpu.products.hopper_int4_raw import hopper_int4_raw, raw_config
from penstock_kernels.gpu.products.hopper_int4_row import hopper_int4_row, steps_ahead
from penstock_kernels.gpu.products.hopper_w4a8 import W4A8Config, hopper_w4a8, w4a8_config
from penstock_kernels.gpu.products.hopper_w4a8_gated import gated_w4a8_tile, hopper_w4a8_gated
from penstock_kernels.gpu.products.int4_linear import int4_linear, widened
from penstock_kernels.gpu.products.problem import MANY, Epilogue, Problem, Product, gated
from penstock_kernels.gpu.products.quantise import quantise_rows
from penstock_kernels.gpu.products.w4a8_linear import w4a8_linear
from penstock_kernels.int4 import ROWS
from penstock_kernels.ops import Activation
from penstock_kernels.weight import Layout, Weight

FEW = 64  # rows up to which the weight's bytes are what a product costs
# The same where rows may be in FP8. With 48 rows the products of a layer of Llama-3.1-8B take 68 us
# so and 79 in half precision, with 32 rows 59 and 64, but rows are quantised besides (H200).
FEW_FP8 = 32


def _in_fp8(p: Problem) -> bool:
    """Whether rows are multiplied in FP8."""
    return p.fp8_rows and p.rows > FEW_FP8 and p.half and has_fp8(p.device)


def _in_half(p: Problem) -> bool:
    return p.half and not _in_fp8(p)


def _on_hopper(p: Problem) -> bool:
    """Whether kernels for Hopper take the scales, the columns and the rows as they are."""
    usable = _in_half(p) and not (p.ordered or p.wide_scales)
    return usable and is_hopper(p.device)


def _stream(p: Problem, gated: bool = False, split: bool = False) -> Int4Config | None:
    """Weights through shared memory, on Hopper."""
    if not (p.dense and _on_hopper(p)):
        return None
    return int4_config(
        p.rows, p.n, p.k, p.scale_columns, p.zeros, gated, split, multiprocessors(p.device)
    )


def _split_stream(p: Problem) -> Int4Config | None:
    """A bias cannot be added to parts."""
    return None if p.biased else _stream(p, split=True)


def _row_alone(p: Problem) -> int | None:
    if not _on_hopper(p):
        return None
    return steps_ahead(p.n, p.k, p.scale_columns, multiprocessors(p.device))


def _gated_raw(p: Problem) -> Int4Config | None:
    if not _on_hopper(p):
        return None
    return raw_config(p.n, p.k, p.scale_columns, p.zeros)


def _w4a8(p: Problem, split: bool = False) -> W4A8Config | None:
    """Rows in FP8, on Hopper."""
    if p.wide_scales or not (_in_fp8(p) and is_hopper(p.device)):
        return None
    return w4a8_config(p.rows, p.n, p.k, p.scale_columns, split, multiprocessors(p.device))


def _portable_w4a8(p: Problem) -> bool | None:
    """The same on other cards with FP8."""
    return _in_fp8(p) or None


def _split_w4a8(p: Problem) -> W4A8Config | None:
    """See `_split_many`."""
    config = None if p.biased else _w4a8(p, split=True)
    return config if config is not None and config.splits > 1 else None


def _gated_w4a8(p: Problem) -> int | None:
    """Rows of a tile."""
    if p.wide_scales or not (_in_fp8(p) and is_hopper(p.device)):
        return None
    return gated_w4a8_tile(p.rows, p.n, p.k, p.scale_columns, multiprocessors(p.device))


def quantises(rows: int, weight: Weight) -> bool:
    """Whether a product of so many rows with this weight reads them in FP8. Those that are taken in
    another order are quantised by it."""
    return weight.fp8_rows and rows > FEW_FP8 and weight.order is None


def _many(p: Problem, split: bool = False) -> int | None:
    """Splits of k."""
    if not (p.dense and _on_hopper(p)):
        return None
    return splits_for(p.rows, p.n, p.k, p.scale_columns, split, multiprocessors(p.device))


def _split_many(p: Problem) -> int | None:
    """Where there are too few tiles for the multiprocessors; a bias cannot be added to parts."""
    splits = None if p.biased else _many(p, split=True)
    return splits if splits is not None and splits > 1 else None


def _adds(p: Problem) -> bool | None:
    """See `products.dense`."""
    usable = _in_half(p) and not (p.biased or p.ordered)
    return (usable and _many(p) is None) or None


def _fills(p: Problem) -> bool | None:
    usable = _in_half(p) and p.dense and not (p.biased or p.ordered) and is_hopper(p.device)
    usable = usable and _many(p) is None
    return (usable and supports_hopper_gated(p.rows, p.n, p.k, multiprocessors(p.device))) or None


def _few(p: Problem) -> bool | None:
    return (_in_half(p) and not p.ordered) or None


def _gated(p: Problem) -> bool | None:
    return (_in_half(p) and not p.ordered and p.n % (2 * ROWS) == 0) or None


def _always(p: Problem) -> bool:
    return True


def _launch_stream(config: Int4Config, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    rows = x.x
    if config.splits == 1:
        out = rows.new_empty(len(rows), weight.n)
    else:
        out = rows.new_empty(config.splits, len(rows), weight.n, dtype=torch.float32)
    hopper_int4(rows, weight, out, config, False, dependent)
    return out


def _launch_gated_stream(
    config: Int4Config, x: Activation, weight: Weight, dependent: bool
) -> Tensor:
    out = x.x.new_empty(len(x.x), weight.n // 2)
    hopper_int4(x.x, weight, out, config, True, dependent)
    return out


def _launch_row(ahead: int, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    out = x.x.new_empty(1, weight.n)
    hopper_int4_row(x.x, weight, out, ahead, dependent, x.norm)
    return out


def _launch_gated_raw(config: Int4Config, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    assert x.norm is not None
    out = x.x.new_empty(1, weight.n // 2)
    hopper_int4_raw(x.x, x.norm, weight, out, config, dependent)
    return out


def _launch_added_row(
    ahead: int, x: Activation, weight: Weight, dependent: bool, residual: Tensor
) -> None:
    hopper_int4_row(x.x, weight, residual, ahead, dependent, adds=True)


def _launch(config: bool, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    out = x.x.new_empty(len(x.x), weight.n)
    int4_linear(x.x, weight, out, False, dependent)
    return out


def _launch_gated(config: bool, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    out = x.x.new_empty(len(x.x), weight.n // 2)
    int4_linear(x.x, weight, out, True, dependent)
    return out


def _rows_in_fp8(x: Activation, weight: Weight, dependent: bool) -> tuple[Tensor, Tensor]:
    """Rows and scales."""
    if x.quantised is not None and x.scale is not None:
        return x.quantised, x.scale
    taken = x.x if weight.order is None else x.x.index_select(1, weight.order)
    return quantise_rows(taken, dependent, Layout.INT4)


def _launch_portable_w4a8(config: bool, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    out = x.x.new_empty(len(x.x), weight.n)
    w4a8_linear(*_rows_in_fp8(x, weight, dependent), weight, out, dependent)
    return out


def _launch_w4a8(config: W4A8Config, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    rows = x.x
    q, scale = _rows_in_fp8(x, weight, dependent)
    if config.splits == 1:
        out = rows.new_empty(len(rows), weight.n)
    else:
        out = rows.new_empty(config.splits, len(rows), weight.n, dtype=torch.float32)
    hopper_w4a8(q, scale, weight, out, config, dependent)
    return out


def _launch_gated_w4a8(tile: int, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    q, scale = _rows_in_fp8(x, weight, dependent)
    out = x.x.new_empty(len(x.x), weight.n // 2)
    hopper_w4a8_gated(q, scale, weight, out, tile, dependent)
    return out


def _launch_many(splits: int, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    rows = x.x
    if splits == 1:
        out = rows.new_empty(len(rows), weight.n)
    else:
        out = rows.new_empty(splits, len(rows), weight.n, dtype=torch.float32)
    hopper_int4_many(rows, weight, out, splits, dependent)
    return out


def _launch_add(
    config: bool, x: Activation, weight: Weight, dependent: bool, residual: Tensor
) -> None:
    residual.addmm_(x.x, widened(weight, x.x.dtype, dependent).T)  # rounded once


def _launch_gated_widened(config: bool, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    out = x.x.new_empty(len(x.x), weight.n // 2)
    hopper_gated_linear(x.x, widened(weight, x.x.dtype, dependent), out)
    return out


def _launch_widened(config: bool, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    rows = x.x if weight.order is None else x.x.index_select(1, weight.order)
    return F.linear(rows, widened(weight, rows.dtype, dependent), weight.bias)


_row = partial(Product, Layout.INT4)

PRODUCTS = (
    _row(Epilogue.NONE, range(1, 2), _row_alone, _launch_row, True),
    _row(Epilogue.NONE, range(1, 2), _row_alone, _launch_row),
    _row(Epilogue.NONE, range(FEW_FP8 + 1, MANY), _w4a8, _launch_w4a8),
    _row(Epilogue.NONE, range(FEW_FP8 + 1, MANY), _portable_w4a8, _launch_portable_w4a8),
    _row(Epilogue.NONE, range(1, FEW + 1), _stream, _launch_stream),
    _row(Epilogue.NONE, range(1, FEW + 1), _few, _launch),
    _row(Epilogue.NONE, range(FEW + 1, MANY), _many, _launch_many),
    _row(Epilogue.NONE, range(1, MANY), _always, _launch_widened),
    _row(Epilogue.PARTIAL, range(FEW_FP8 + 1, MANY), _split_w4a8, _launch_w4a8),
    _row(Epilogue.PARTIAL, range(1, FEW + 1), _split_stream, _launch_stream),
    _row(Epilogue.PARTIAL, range(FEW + 1, MANY), _split_many, _launch_many),
    _row(Epilogue.RESIDUAL, range(1, 2), _row_alone, _launch_added_row),
    _row(Epilogue.RESIDUAL, range(FEW + 1, MANY), _adds, _launch_add),
    _row(Epilogue.GATED, range(1, 2), _gated_raw, _launch_gated_raw, True),
    _row(Epilogue.GATED, range(FEW_FP8 + 1, MANY), _gated_w4a8, _launch_gated_w4a8),
    _row(Epilogue.GATED, range(1, FEW + 1), gated(_stream), _launch_gated_stream),
    _row(Epilogue.GATED, range(1, FEW + 1), _gated, _launch_gated),
    _row(Epilogue.GATED, range(FEW + 1, MANY), _fills, _launch_gated_widened),
)
