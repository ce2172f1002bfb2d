"""Products with weights in FP8 whose scales are of blocks, as DeepSeek writes them.

Up to 64 rows by the portable kernels, on cards that read e4m3: the weight is read once, as it is.
Else the weight is widened in memory, and cuBLAS multiplies. Blocks of 64 columns and more are
whole groups of those that `penstock_kernels.fp8` reorders.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from penstock_kernels.fp8 import GROUP
from penstock_kernels.gpu.launch.card import has_fp8
from penstock_kernels.gpu.products import dense
from penstock_kernels.gpu.products.fp8 import FEW, TILE, always, launch_widened, one_row
from penstock_kernels.gpu.products.linear import Tile
from penstock_kernels.gpu.products.problem import MANY, Epilogue, Problem, Product, gated
from penstock_kernels.weight import Layout


def _one_row(p: Problem, gated: bool = False) -> Tile | None:
    return one_row(p, gated) if p.scale_columns % GROUP == 0 else None


def _tile(p: Problem, gated: bool = False) -> Tile | None:
    """A tile's columns are within a block."""
    wide, depth = p.n // 2 if gated else p.n, min(TILE.k, p.scale_columns)
    if not (p.half and has_fp8(p.device)) or p.scale_columns % GROUP or p.scale_columns % depth:
        return None
    if wide % TILE.n or p.k % depth or depth % GROUP:
        return None
    return dense.staged(replace(TILE, k=depth), p, 1 + gated)


_row = partial(Product, Layout.FP8_BLOCKS)

PRODUCTS = (
    _row(Epilogue.NONE, range(1, 2), _one_row, dense.launch_tile),
    _row(Epilogue.NONE, range(2, FEW + 1), _tile, dense.launch_tile),
    _row(Epilogue.NONE, range(1, MANY), always, launch_widened),
    _row(Epilogue.GATED, range(1, 2), gated(_one_row), dense.launch_gated_tile),
    _row(Epilogue.GATED, range(2, FEW + 1), gated(_tile), dense.launch_gated_tile),
)
