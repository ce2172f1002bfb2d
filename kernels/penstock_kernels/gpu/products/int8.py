"""Products with weights in whole numbers of 8 bits, by the kernels of those in FP8.

Up to 64 rows a product is one pass over the weight. Beyond, and where scales are of few columns or
what stands for 0 differs, the weight is widened in memory. Rows keep their precision.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from penstock_kernels.fp8 import GROUP
from penstock_kernels.gpu.launch.hopper import is_hopper, multiprocessors
from penstock_kernels.gpu.products import dense
from penstock_kernels.gpu.products.fp8 import (
    FEW,
    GATED_VECTORS,
    TILE,
    VECTORS,
    always,
    launch_widened,
)
from penstock_kernels.gpu.products.hopper_linear import LinearConfig, widened_linear_config
from penstock_kernels.gpu.products.linear import Tile
from penstock_kernels.gpu.products.one_row import one_row_products
from penstock_kernels.gpu.products.problem import MANY, Epilogue, Problem, Product, gated
from penstock_kernels.weight import Layout


def _is_plain(p: Problem) -> bool:
    """Numbers and scales alone, in groups that the kernels' order of columns keeps together."""
    fits = not p.grouped or p.scale_columns % GROUP == 0
    return p.half and fits and not (p.zeros or p.ordered)


def _has_row_scales(p: Problem) -> bool:
    return _is_plain(p) and not p.grouped


def _one_row(p: Problem, gated: bool = False) -> Tile | None:
    wide = p.n // 2 if gated else p.n
    tiles = [
        tile
        for tile in (GATED_VECTORS if gated else VECTORS)
        if _is_plain(p) and wide % tile.n == 0 and p.k % tile.k == 0
    ]
    return tiles[0] if tiles else None


def _tile(p: Problem, gated: bool = False) -> Tile | None:
    """A tile's columns are within a group."""
    wide = p.n // 2 if gated else p.n
    depth = min(TILE.k, p.scale_columns) if p.grouped else TILE.k
    if not _is_plain(p) or wide % TILE.n or p.k % depth or (p.grouped and p.scale_columns % depth):
        return None
    return dense.staged(replace(TILE, k=depth), p, 1 + gated)


def _stream(p: Problem, gated: bool = False, split: bool = False) -> LinearConfig | None:
    if p.grouped or not (_is_plain(p) and p.dense and is_hopper(p.device)):
        return None
    return widened_linear_config(p.rows, p.n, p.k, gated, split, multiprocessors(p.device))


def _rotating_stream(p: Problem) -> LinearConfig | None:
    return _stream(p) if p.width in (64, 128) else None


def _split_stream(p: Problem) -> LinearConfig | None:
    """See `products.fp8`."""
    if p.biased or (p.rows == 1 and _one_row(p) == VECTORS[0]):
        return None
    return _stream(p, split=True)


_row = partial(Product, Layout.INT8)

PRODUCTS = (
    *one_row_products(Layout.INT8, _has_row_scales),
    _row(Epilogue.NONE, range(1, 2), _one_row, dense.launch_tile),
    _row(Epilogue.NONE, range(2, FEW + 1), _stream, dense.launch_stream),
    _row(Epilogue.NONE, range(2, FEW + 1), _tile, dense.launch_tile),
    _row(Epilogue.NONE, range(1, MANY), always, launch_widened),
    _row(Epilogue.PARTIAL, range(1, FEW + 1), _split_stream, dense.launch_stream),
    _row(Epilogue.GATED, range(1, 2), gated(_one_row), dense.launch_gated_tile),
    _row(Epilogue.GATED, range(2, FEW + 1), gated(_stream), dense.launch_gated_stream),
    _row(Epilogue.GATED, range(2, FEW + 1), gated(_tile), dense.launch_gated_tile),
    _row(Epilogue.ROTATE, range(2, FEW + 1), _rotating_stream, dense.launch_rotate),
)
