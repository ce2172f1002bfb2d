"""Tiles of experts' products, by layout and by how many pairs an expert has.

The fastest of those of `benchmarks.kernels.expert_variants` on an H200, for the experts of
Qwen3-30B-A3B and gpt-oss-20b together; of more than 64 pairs in 8 bits and in whole numbers of 4
for those of Mixtral-8x7B.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from penstock_kernels.gpu.launch.card import shared_bytes
from penstock_kernels.gpu.products.grouped import GroupedTile
from penstock_kernels.stacked import Stacked
from penstock_kernels.weight import Layout

FEW, SOME = 16, 64  # pairs of a tile
SHORT = 1024  # inputs of a matrix that are over in a few tiles


@dataclass(frozen=True, slots=True)
class Tiles:
    """few: of matrices that are read for few pairs; short: of those whose rows are short; gated and
    plain: for up to 64 pairs and for more, with a gate and without."""

    few: GroupedTile
    short: GroupedTile
    gated: tuple[GroupedTile, GroupedTile]
    plain: tuple[GroupedTile, GroupedTile]


_BYTES = Tiles(
    few=GroupedTile(64, 128, 4, 3), short=GroupedTile(128, 128, 8, 3),
    gated=(GroupedTile(64, 128, 4, 3), GroupedTile(128, 128, 8, 2)),
    plain=(GroupedTile(128, 128, 8, 3), GroupedTile(128, 64, 8, 4)),
)  # fmt: skip
TILES = {
    Layout.DENSE: Tiles(
        few=GroupedTile(64, 128, 4, 5), short=GroupedTile(128, 128, 8, 3),
        gated=(GroupedTile(128, 64, 8, 4),) * 2, plain=(GroupedTile(128, 64, 8, 3),) * 2,
    ),
    Layout.FP8: _BYTES,
    Layout.FP8_BLOCKS: _BYTES,
    Layout.INT8: _BYTES,
    Layout.LUT: Tiles(
        few=GroupedTile(64, 256, 4, 3), short=GroupedTile(128, 128, 8, 3),
        gated=(GroupedTile(64, 128, 4, 3),) * 2,
        plain=(GroupedTile(128, 128, 8, 3), GroupedTile(128, 64, 8, 4)),
    ),
    # Tiles are those of `penstock_kernels.int4`.
    Layout.INT4: Tiles(
        few=GroupedTile(64, 128, 4, 3), short=GroupedTile(64, 128, 4, 3),
        gated=(GroupedTile(64, 128, 4, 4), GroupedTile(64, 128, 8, 3)),
        plain=(GroupedTile(64, 128, 4, 3),) * 2,
    ),
}  # fmt: skip
WIDE = {  # of float32, which is for tests
    layout: GroupedTile(64, 32 if layout is Layout.DENSE else 64, 4, 2) for layout in Layout
} | {Layout.INT4: GroupedTile(64, 128, 4, 2)}


def tile_for(
    weight: Stacked, dtype: torch.dtype, pairs: int, gated: bool, device: torch.device
) -> GroupedTile:
    """The one that fits into shared memory. dtype: of the rows; pairs: of a tile."""
    tiles = TILES[weight.layout]
    if dtype.itemsize > 2:
        tile = WIDE[weight.layout]
    elif pairs <= FEW:
        tile = tiles.short if weight.k <= SHORT else tiles.few
    else:
        tile = (tiles.gated if gated else tiles.plain)[pairs > SOME]
    while _bytes(tile, weight, dtype, pairs, gated) > shared_bytes(device):
        if tile.k > 64 and weight.layout is not Layout.INT4:
            tile = replace(tile, k=tile.k // 2)
        elif tile.stages > 1:
            tile = replace(tile, stages=tile.stages - 1)
        else:
            break
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
