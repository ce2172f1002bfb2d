"""Products with weights of 4-bit codes.

Up to 64 rows a product is one pass over the weight, whose numbers are looked up on the way. Beyond,
and where no kernel fits, the weight is widened in memory, and cuBLAS multiplies.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from penstock_kernels.gpu.launch.card import has_fp8
from penstock_kernels.gpu.launch.hopper import is_hopper, multiprocessors
from penstock_kernels.gpu.products.hopper_linear import COLUMNS, DEPTH, LinearConfig
from penstock_kernels.gpu.products.hopper_lut import hopper_lut, lut_config
from penstock_kernels.gpu.products.linear import Tile
from penstock_kernels.gpu.products.lut_linear import lut_linear, widened
from penstock_kernels.gpu.products.one_row import GROUP, one_row_products
from penstock_kernels.gpu.products.parts import summed
from penstock_kernels.gpu.products.problem import MANY, Epilogue, Problem, Product, gated
from penstock_kernels.ops import Activation
from penstock_kernels.weight import Layout, Weight

FEWER = 16  # rows up to which parts are cheap
FEW = 64  # rows up to which the weight's bytes are what a product costs
TILE = Tile(32, 128, 4, 3)  # not measured


def _stream(p: Problem, gated: bool = False, split: bool = False) -> LinearConfig | None:
    """Codes through shared memory, on Hopper."""
    fits = p.code and DEPTH % max(p.scale_columns, 16) == 0
    if not (fits and p.half and p.dense and is_hopper(p.device)):
        return None
    return lut_config(p.rows, p.n, p.k, gated, split, multiprocessors(p.device))


def _has_plain_blocks(p: Problem) -> bool:
    """A table and scales that kernels of one row know."""
    return bool(p.code) and p.scale_columns == GROUP and p.wide_scales and not p.outer


def _split_stream(p: Problem) -> LinearConfig | None:
    """A bias cannot be added to parts."""
    return None if p.biased else _stream(p, split=True)


def _summed_stream(p: Problem) -> LinearConfig | None:
    """Where there are fewer tiles than multiprocessors, two programs each and a launch that adds
    their parts up."""
    config = _split_stream(p) if p.rows <= FEWER else None
    if config is None or config.splits == 1 or p.n // COLUMNS > multiprocessors(p.device):
        return None
    return config


def _tile(p: Problem, gated: bool = False) -> Tile | None:
    wide = p.n // 2 if gated else p.n
    if not p.half or wide % TILE.n or p.k % TILE.k or (p.scales_in_fp8 and not has_fp8(p.device)):
        return None
    return TILE


def _always(p: Problem) -> bool:
    return True


def _launch_stream(config: LinearConfig, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    rows = x.x
    if config.splits == 1:
        out = rows.new_empty(len(rows), weight.n)
    else:
        out = rows.new_empty(config.splits, len(rows), weight.n, dtype=torch.float32)
    hopper_lut(rows, weight, out, config, False, dependent)
    return out


def _launch_summed(config: LinearConfig, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    return summed(_launch_stream(config, x, weight, dependent), x.x.dtype, dependent)


def _launch_gated_stream(
    config: LinearConfig, x: Activation, weight: Weight, dependent: bool
) -> Tensor:
    out = x.x.new_empty(len(x.x), weight.n // 2)
    hopper_lut(x.x, weight, out, config, True, dependent)
    return out


def _launch_tile(tile: Tile, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    out = x.x.new_empty(len(x.x), weight.n)
    lut_linear(x.x, weight, out, tile, False, dependent)
    return out


def _launch_gated_tile(tile: Tile, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    out = x.x.new_empty(len(x.x), weight.n // 2)
    lut_linear(x.x, weight, out, tile, True, dependent)
    return out


def _launch_widened(config: bool, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    return F.linear(x.x, widened(weight, x.x.dtype, dependent), weight.bias)


_row = partial(Product, Layout.LUT)

PRODUCTS = (
    *one_row_products(Layout.LUT, _has_plain_blocks),
    _row(Epilogue.NONE, range(1, FEW + 1), _summed_stream, _launch_summed),
    _row(Epilogue.NONE, range(1, FEW + 1), _stream, _launch_stream),
    _row(Epilogue.NONE, range(1, FEW + 1), _tile, _launch_tile),
    _row(Epilogue.NONE, range(1, MANY), _always, _launch_widened),
    _row(Epilogue.PARTIAL, range(1, FEW + 1), _split_stream, _launch_stream),
    _row(Epilogue.GATED, range(1, FEW + 1), gated(_stream), _launch_gated_stream),
    _row(Epilogue.GATED, range(1, FEW + 1), gated(_tile), _launch_gated_tile),
)
