"""Which program of decode attention reads what: made on the device, once a step.

Every decode row has a span of tokens of its own, and rows that share cached blocks are taken
together in tiles that read the shared tokens once (Hydragen, arXiv:2402.05099). The spans are cut
into items of about equal length, so that one long context among short ones does not finish last.
One captured graph serves all lengths and all ways of sharing: its grid is the most items there can
be, and those that are too many return at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.launch.dependent import launch, wait
from penstock_kernels.ops import Sharing

TILE = 64  # tokens an iteration: 16 KiB of keys at head_dim 128 in bfloat16
# Measured on an H100 at 576 tokens: 32 rows x 8 KV heads take 30 us whole, 38 us in two pieces;
# 8 rows 18 us whole, 14 us in eight. So spans of like length are cut while fewer programs than
# ENOUGH would run, into as many as TARGET.
ENOUGH = 250
TARGET = 500
ITEM = 5  # numbers of an item: first row, rows, first token, end, piece * 2 + shared
SPAN = 3  # numbers of a row: its first partial result, those of its own span, all of them


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """The items of a step."""

    items: Tensor  # [most, ITEM] int32; those that are too many have no rows
    spans: Tensor  # [rows, SPAN] int32


def most_items(rows: int, tiles: int, kv_heads: int) -> int:
    """Every span is one item at least, and the cuts make about TARGET programs in all."""
    return rows + tiles + -(-TARGET // kv_heads)


def most_partials(rows: int, tiles: int, kv_heads: int, members: int) -> int:
    """Partial results: of own spans, and for every row of a tile those of its shared tokens."""
    cuts = -(-TARGET // kv_heads)
    return rows + cuts + members * (tiles + cuts)


@triton.jit
def _plan_kernel(
    positions,  # [rows] int64
    live,  # [1] int32, with LIVE
    tile_of_row,  # with TILES
    tiles,
    items,
    spans,
    rows,
    most,
    window,
    kv_heads: tl.constexpr,
    ROWS: tl.constexpr,
    TILES: tl.constexpr,
    ITEMS: tl.constexpr,
    LIVE: tl.constexpr,
    WINDOW: tl.constexpr,
    TILE: tl.constexpr,
    ENOUGH: tl.constexpr,
    TARGET: tl.constexpr,
    PDL: tl.constexpr,
):
    wait(PDL)
    row = tl.arange(0, ROWS)
    present = row < rows
    if LIVE:
        present = row < tl.load(live)
    length = tl.load(positions + row, mask=present, other=-1).to(tl.int32) + 1
    begin = tl.zeros([ROWS], tl.int32)
    if WINDOW:
        begin = tl.maximum(length - window, 0) // TILE * TILE
    if TILES:
        tile = tl.load(tile_of_row + row, mask=present, other=-1)
        begin = tl.load(tiles + tile * 3 + 2, mask=tile >= 0, other=0)
    own = length - begin
    total = tl.sum(own, 0)
    spans_in_all = tl.sum(present.to(tl.int32), 0)
    if TILES:
        index = tl.arange(0, TILES)
        used = tl.load(tiles + index * 3 + 1) > 0
        shared = tl.load(tiles + index * 3 + 2, mask=used, other=0)
        total += tl.sum(shared, 0)
        spans_in_all += tl.sum(used.to(tl.int32), 0)
    # Rounded up: rounded down, 8,070 tokens of 4 KV heads made an item more than there is room for.
    piece = tl.cdiv(total * kv_heads, TARGET)
    if spans_in_all * kv_heads >= ENOUGH:
        piece = tl.maximum(piece, total * 3 // (2 * spans_in_all))
    piece = tl.maximum(tl.cdiv(piece, TILE), 1) * TILE
    pieces = tl.cdiv(own, piece)
    of_row = pieces
    if TILES:
        of_row += tl.cdiv(begin, piece)
    first_partial = tl.cumsum(of_row, 0) - of_row
    tl.store(spans + row * 3, first_partial, mask=row < rows)
    tl.store(spans + row * 3 + 1, pieces, mask=row < rows)
    tl.store(spans + row * 3 + 2, of_row, mask=row < rows)
    items_in_all = 0
    if TILES:  # first, because they are the longest
        tile_pieces = tl.cdiv(shared, piece)
        item = tl.cumsum(tile_pieces, 0) - tile_pieces
        items_in_all = tl.sum(tile_pieces, 0)
        first = tl.load(tiles + index * 3)
        members = tl.load(tiles + index * 3 + 1)
        for number in range(tl.max(tile_pieces, 0)):
            place = items + (item + number) * 5
            start = number * piece
            mask = number < tile_pieces
            tl.store(place, first, mask=mask)
            tl.store(place + 1, members, mask=mask)
            tl.store(place + 2, tl.full([TILES], 0, tl.int32) + start, mask=mask)
            tl.store(place + 3, tl.minimum(start + piece, shared), mask=mask)
            tl.store(place + 4, tl.full([TILES], 1, tl.int32) + 2 * number, mask=mask)
    item = items_in_all + tl.cumsum(pieces, 0) - pieces
    items_in_all += tl.sum(pieces, 0)
    for number in range(tl.max(pieces, 0)):
        place = items + (item + number) * 5
        start = begin + number * piece
        mask = number < pieces
        tl.store(place, row, mask=mask)
        tl.store(place + 1, tl.full([ROWS], 1, tl.int32), mask=mask)
        tl.store(place + 2, start, mask=mask)
        tl.store(place + 3, tl.minimum(start + piece, length), mask=mask)
        tl.store(place + 4, tl.full([ROWS], 0, tl.int32) + 2 * number, mask=mask)
    rest = tl.arange(0, ITEMS)
    unused = (rest >= items_in_all) & (rest < most)
    tl.store(items + rest * 5 + 1, tl.zeros([ITEMS], tl.int32), mask=unused)


def plan_decode(
    plan: DecodePlan,
    positions: Tensor,
    kv_heads: int,
    live: Tensor | None = None,
    sharing: Sharing | None = None,
    window: int | None = None,
    dependent: bool = False,
) -> None:
    """Write the items of a step.

    positions: [rows] int64 of the token that each row computes; live: [1] int32, how many rows
    count (None: all). With a window nothing is shared.
    """
    rows = len(positions)
    tiles = 0 if sharing is None or window is not None else len(sharing.tiles)
    _plan_kernel[(1,)](
        positions,
        positions if live is None else live,
        positions if sharing is None else sharing.tile_of_row,
        positions if sharing is None else sharing.tiles,
        plan.items, plan.spans, rows, len(plan.items), window or 0,
        kv_heads=kv_heads, ROWS=triton.next_power_of_2(rows), TILES=tiles,
        ITEMS=triton.next_power_of_2(len(plan.items)),
        LIVE=live is not None, WINDOW=window is not None, TILE=TILE, ENOUGH=ENOUGH, TARGET=TARGET,
        num_warps=4, **launch(dependent),
    )  # fmt: skip


def empty_plan(rows: int, tiles: int, kv_heads: int, device: torch.device) -> DecodePlan:
    """Room for a plan."""
    return DecodePlan(
        items=torch.zeros(
            most_items(rows, tiles, kv_heads), ITEM, dtype=torch.int32, device=device
        ),
        spans=torch.zeros(rows, SPAN, dtype=torch.int32, device=device),
    )
