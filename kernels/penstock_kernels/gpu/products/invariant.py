"""The table of products in which a row's result does not depend on the rows beside it.

One way for each layout, whatever the number of rows: layouts of 8 bits are widened in registers,
others in memory, then they are dense. Nothing is computed together with what follows a product.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from penstock_kernels.fp8 import GROUP
from penstock_kernels.gpu.launch.card import has_fp8
from penstock_kernels.gpu.products import int4_linear, lut_linear, widen
from penstock_kernels.gpu.products.invariant_linear import Tile, invariant_linear
from penstock_kernels.gpu.products.invariant_tiles import Rules, agreed_rules, tile_of
from penstock_kernels.gpu.products.problem import MANY, Epilogue, Problem, Product
from penstock_kernels.gpu.products.table import ProductTable
from penstock_kernels.ops import Activation
from penstock_kernels.weight import Layout, Weight


def invariant_products(device: torch.device, dtype: torch.dtype) -> ProductTable:
    """The table of a card, for rows of a dtype. Tries tiles on it."""
    rules, grouped = agreed_rules(device, dtype)
    widened: dict[Layout, Callable[[Weight, torch.dtype, bool], Tensor]] = {
        Layout.FP8: widen.widened,
        Layout.FP8_BLOCKS: widen.widened,
        Layout.INT8: widen.widened,
        Layout.LUT: lut_linear.widened,
        Layout.INT4: int4_linear.widened,
    }
    rows = partial(Product, epilogue=Epilogue.NONE, rows=range(1, MANY))
    in_registers, tile = partial(_in_registers, rules, grouped), partial(_tile, rules)
    return ProductTable(
        (
            rows(layout=Layout.DENSE, config=tile, launch=_launch),
            rows(layout=Layout.FP8, config=in_registers, launch=_launch),
            rows(layout=Layout.FP8_BLOCKS, config=in_registers, launch=_launch),
            rows(layout=Layout.INT8, config=in_registers, launch=_launch),
            *(
                rows(layout=layout, config=tile, launch=partial(_launch_wide, way))
                for layout, way in widened.items()
            ),
        ),
        quantises=_never,
    )


def _never(rows: int, weight: Weight) -> bool:
    return False


def _tile(rules: Rules, p: Problem) -> Tile:
    return tile_of(rules, p.rows, p.n)


def _in_registers(rules: Rules, grouped: Rules, p: Problem) -> Tile | None:
    """Where tiles fit the order of columns and blocks of scales, whatever the number of rows."""
    if p.zeros or p.ordered or (p.layout is not Layout.INT8 and not has_fp8(p.device)):
        return None
    in_blocks = p.layout is Layout.FP8_BLOCKS or p.grouped
    depths = {rule.tile.k for rule in (grouped if in_blocks else rules)}
    if in_blocks and any(p.scale_columns % depth for depth in depths):
        return None
    if p.k % GROUP == 0 and any(depth % GROUP for depth in depths):
        return None
    return tile_of(grouped if in_blocks else rules, p.rows, p.n)


def _launch(tile: Tile, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    return invariant_linear(x.x, weight, tile, dependent)


def _launch_wide(
    widened: Callable[[Weight, torch.dtype, bool], Tensor],
    tile: Tile,
    x: Activation,
    weight: Weight,
    dependent: bool,
) -> Tensor:
    """With the weight widened in memory; columns in another order meet their inputs in it."""
    rows, data = x.x, widened(weight, x.x.dtype, dependent)
    if weight.layout is Layout.INT4 and weight.order is not None:
        rows = rows.index_select(1, weight.order)
    return invariant_linear(rows, Weight(data, weight.bias), tile, dependent)
