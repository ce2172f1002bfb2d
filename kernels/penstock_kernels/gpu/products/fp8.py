"""Products with weights in FP8.

Up to 64 rows a product is one pass over the weight: its numbers are widened in registers, and the
rows keep their precision. Beyond, FP8 tensor cores multiply rows that are quantised, each by
itself. Where neither fits, the weight is widened in memory.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from penstock_kernels.gpu.launch.card import has_fp8
from penstock_kernels.gpu.launch.hopper import is_hopper, multiprocessors
from penstock_kernels.gpu.products import dense
from penstock_kernels.gpu.products.hopper_linear import LinearConfig, widened_linear_config
from penstock_kernels.gpu.products.linear import Tile
from penstock_kernels.gpu.products.one_row import one_row_products
from penstock_kernels.gpu.products.problem import MANY, Epilogue, Problem, Product, gated
from penstock_kernels.gpu.products.quantise import quantise_rows
from penstock_kernels.gpu.products.widen import widened
from penstock_kernels.ops import Activation
from penstock_kernels.weight import Layout, Weight

FEW = 64  # rows up to which the weight's bytes are what a product costs
GRANULE = 16  # sizes that FP8 tensor cores take
# Of one row: as many of a weight's numbers as can be under way.
VECTORS = (Tile(8, 4096, 4, 2), Tile(2, 2048, 4, 2), Tile(4, 1024, 4, 2))
GATED_VECTORS = (Tile(4, 4096, 4, 2), *VECTORS[1:])
TILE = Tile(64, 128, 4, 3)  # of a few rows on other cards than Hopper: not measured


def _stream(p: Problem, gated: bool = False, split: bool = False) -> LinearConfig | None:
    if not (p.half and p.dense and is_hopper(p.device)):
        return None
    return widened_linear_config(p.rows, p.n, p.k, gated, split, multiprocessors(p.device))


def _rotating_stream(p: Problem) -> LinearConfig | None:
    return _stream(p) if p.width in (64, 128) else None


def _split_stream(p: Problem) -> LinearConfig | None:
    """A bias cannot be added to parts; and one row of 4,096 is a vector's (o of Llama-3.1-8B takes
    8.5 us instead of 10.2, but down 22.2 us instead of 21.6)."""
    if p.biased or (p.rows == 1 and one_row(p) == VECTORS[0]):
        return None
    return _stream(p, split=True)


def one_row(p: Problem, gated: bool = False) -> Tile | None:
    wide = p.n // 2 if gated else p.n
    if not (p.half and has_fp8(p.device)):
        return None
    for tile in GATED_VECTORS if gated else VECTORS:
        if wide % tile.n == 0 and p.k % tile.k == 0:
            return tile
    return None


def tile_of(p: Problem, gated: bool = False) -> Tile | None:
    """Tiles of the portable kernels, on cards that read e4m3 and are no Hopper."""
    wide = p.n // 2 if gated else p.n
    if not (p.half and has_fp8(p.device)) or wide % TILE.n or p.k % TILE.k:
        return None
    return dense.staged(TILE, p, 1 + gated)


def _scaled(p: Problem) -> bool | None:
    """Quantised rows on FP8 tensor cores."""
    on_card = p.device.type == "cuda" and has_fp8(p.device)
    fits = p.half and p.n % GRANULE == 0 and p.k % GRANULE == 0
    return (on_card and fits) or None


def quantises(rows: int, weight: Weight) -> bool:
    """Whether a product of so many rows with this weight reads them quantised."""
    return rows > FEW and weight.layout is Layout.FP8


def _launch_scaled(config: bool, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    assert weight.scale is not None
    q, scale = x.quantised, x.scale
    if q is None or scale is None:
        q, scale = quantise_rows(x.x, dependent)
    out: Tensor = torch._scaled_mm(
        q, weight.data.T, scale, weight.scale.T, out_dtype=torch.bfloat16, use_fast_accum=True
    )
    if weight.bias is not None:
        out.add_(weight.bias)
    return out.to(x.x.dtype)


def launch_widened(config: bool, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    return F.linear(x.x, widened(weight, x.x.dtype, dependent), weight.bias)


def always(p: Problem) -> bool:
    return True


_row = partial(Product, Layout.FP8)

PRODUCTS = (
    *one_row_products(Layout.FP8, always),
    _row(Epilogue.NONE, range(1, 2), one_row, dense.launch_tile),
    _row(Epilogue.NONE, range(2, FEW + 1), _stream, dense.launch_stream),
    _row(Epilogue.NONE, range(2, FEW + 1), tile_of, dense.launch_tile),
    _row(Epilogue.NONE, range(FEW + 1, MANY), _scaled, _launch_scaled),
    _row(Epilogue.NONE, range(1, MANY), always, launch_widened),
    _row(Epilogue.PARTIAL, range(1, FEW + 1), _split_stream, dense.launch_stream),
    _row(Epilogue.GATED, range(1, 2), gated(one_row), dense.launch_gated_tile),
    _row(Epilogue.GATED, range(2, FEW + 1), gated(_stream), dense.launch_gated_stream),
    _row(Epilogue.GATED, range(2, FEW + 1), gated(tile_of), dense.launch_gated_tile),
    _row(Epilogue.ROTATE, range(2, FEW + 1), _rotating_stream, dense.launch_rotate),
)
