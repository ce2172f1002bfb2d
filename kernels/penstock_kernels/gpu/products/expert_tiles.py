"""Tiles of experts' products, by layout and by how many pairs an expert has."""

from __future__ import annotations

from dataclasses import replace

import torch

from penstock_kernels.gpu.launch.card import shared_bytes
from penstock_kernels.gpu.products.grouped import GroupedTile
from penstock_kernels.stacked import Stacked
from penstock_kernels.weight import Layout

FEW = GroupedTile(64, 128, 4, 3)  # up to 16 pairs
MANY = GroupedTile(64, 64, 4, 3)
INT4 = GroupedTile(64, 128, 4, 3)  # a tile of `penstock_kernels.int4`
WIDE = GroupedTile(64, 32, 4, 2)  # of float32


def tile_for(
    weight: Stacked, dtype: torch.dtype, pairs: int, gated: bool, device: torch.device
) -> GroupedTile:
    """The one that fits into shared memory. dtype: of the rows; pairs: of a tile."""
    if weight.layout is Layout.INT4:
        tile = INT4
    elif dtype == torch.float32:
        tile = WIDE if weight.layout is Layout.DENSE else replace(WIDE, k=64)
    else:
        tile = FEW if pairs <= 16 else MANY
    while tile.stages > 1 and _bytes(tile, weight, dtype, pairs, gated) > shared_bytes(device):
        tile = replace(tile, stages=tile.stages - 1)
    return tile


def _bytes(tile: GroupedTile, weight: Stacked, dtype: torch.dtype, pairs: int, gated: bool) -> int:
    """Of shared memory: what is under way, and numbers that are widened."""
    width = dtype.itemsize
    under_way = tile.k * (pairs * width + (1 + gated) * tile.n * _stored(weight, dtype))
    widened = 0 if weight.layout is Layout.DENSE else (1 + gated) * tile.n * tile.k * width
    return int(tile.stages * under_way + widened)


def _stored(weight: Stacked, dtype: torch.dtype) -> float:
    """Bytes of a number."""
    sizes = {Layout.DENSE: dtype.itemsize, Layout.LUT: 0.5, Layout.INT4: 0.5}
    return sizes.get(weight.layout, 1)
