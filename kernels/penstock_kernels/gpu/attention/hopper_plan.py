"""Which program of `hopper_decode` reads what: equal shares, made on the device once a step.

The spans of a step, those that a tile of rows shares and then each row's own, are laid end to end,
in tiles of keys. Program g of a KV head takes tiles g * share .. (g + 1) * share - 1 of that line,
wherever spans begin and end ("stream-K", Osama et al., arXiv:2301.03598). So all programs finish
together, whatever the lengths, and no span is cut more often than needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.launch.dependent import launch, wait
from penstock_kernels.ops import Sharing

# Numbers of an item: first row, rows, first token, end, piece * 2 + shared, slot of the first row,
# and how many tokens from the first one on no row sees, less than a tile of keys.
ITEM = 7
LEAST_ROWS = 32  # of a compiled kernel: each takes a quarter of a second at start
SPAN = 3  # numbers of a row: its first partial result, those of its own span, all of them


@dataclass(frozen=True, slots=True)
class HopperPlan:
    """The items of a step, program after program."""

    items: Tensor  # [most, ITEM] int32
    bounds: Tensor  # [programs of a KV head + 1] int32: first item of each
    spans: Tensor  # [rows, SPAN] int32


def most_items(rows: int, tiles: int, programs: int) -> int:
    """Every span is one item at least, and each program but the first begins with a cut."""
    return rows + tiles + programs


def most_partials(rows: int, programs: int, members: int) -> int:
    """Each row has one of its own span and one of its tile's, and a cut adds one for each member
    of a tile."""
    return 2 * rows + programs * members


def empty_plan(rows: int, tiles: int, programs: int, device: torch.device) -> HopperPlan:
    """Room for a plan. programs: those of a KV head."""

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=torch.int32, device=device)

    items = zeros(most_items(rows, tiles, programs), ITEM)
    return HopperPlan(items, zeros(programs + 1), zeros(rows, SPAN))


@triton.jit
def _cut(place, steps, share):
    """First program of spans that begin at some places of the line, and how many take part."""
    first = place // share
    return first, tl.where(steps > 0, (place + steps - 1) // share - first + 1, 0)


@triton.jit
def _store_items(
    items, bounds, row, members, slot, begin, skip, end, place, gap, share, first_item, shared,
    KEYS: tl.constexpr,
):  # fmt: skip
    """The items of spans of tokens begin .. end - 1, and where programs begin.

    The first `skip` tokens of a span are there because tiles begin where pages do.
    """
    first, pieces = _cut(place, tl.cdiv(end - begin, KEYS), share)
    item = first_item + tl.cumsum(pieces, 0) - pieces
    # A span that begins a program has no other before it there.
    heads = (place - gap - 1 + share) // share != first + 1
    for number in range(tl.max(pieces, 0)):
        entry, mask = items + (item + number) * 7, number < pieces
        cut = ((first + number) * share - place) * KEYS
        tl.store(entry, row, mask=mask)
        tl.store(entry + 1, members, mask=mask)
        tl.store(entry + 2, begin + tl.maximum(cut, 0), mask=mask)
        tl.store(entry + 3, tl.minimum(begin + cut + share * KEYS, end), mask=mask)
        tl.store(entry + 4, 2 * number + shared + 0 * row, mask=mask)
        tl.store(entry + 5, slot, mask=mask)
        tl.store(entry + 6, tl.where(number > 0, 0, skip), mask=mask)
        tl.store(bounds + first + number, item + number, mask=mask & (heads | (number > 0)))
    return tl.sum(pieces, 0)


@triton.jit(
    do_not_specialize=["rows", "most_tiles", "programs", "window"],
    do_not_specialize_on_alignment=["positions", "slots", "live", "tile_of_row", "tiles"],
)
def _plan_kernel(
    positions,  # [rows] int64
    slots,  # [rows] integers
    live,  # [1] int32, with LIVE
    tile_of_row,  # [rows] int32, with tiles
    tiles,  # [most_tiles, 3] int32
    items,
    bounds,
    spans,
    rows,
    most_tiles,
    programs,
    window,
    ROWS: tl.constexpr,
    PROGRAMS: tl.constexpr,
    LIVE: tl.constexpr,
    WINDOW: tl.constexpr,
    KEYS: tl.constexpr,
    PDL: tl.constexpr,
):
    wait(PDL)
    row = tl.arange(0, ROWS)
    present = row < rows
    if LIVE:
        present = row < tl.load(live)
    length = tl.load(positions + row, mask=present, other=-1).to(tl.int32) + 1
    slot = tl.load(slots + row, mask=present, other=0).to(tl.int32)
    tile = tl.load(tile_of_row + row, mask=present & (most_tiles > 0), other=-1)
    begin = tl.load(tiles + tile * 3 + 2, mask=tile >= 0, other=0)
    skip = 0 * length
    if WINDOW:
        seen = tl.maximum(length - window, 0)
        begin = seen // KEYS * KEYS
        skip = seen - begin
    index = tl.arange(0, ROWS // 2)  # a tile has two rows at least
    there = index < most_tiles
    leader = tl.load(tiles + index * 3, mask=there, other=0)
    members = tl.load(tiles + index * 3 + 1, mask=there, other=0)
    shared = tl.load(tiles + index * 3 + 2, mask=members > 0, other=0)
    tile_slot = tl.load(slots + leader, mask=members > 0, other=0).to(tl.int32)
    tile_steps = tl.cdiv(shared, KEYS)
    steps = tl.cdiv(length - begin, KEYS)
    steps_in_all = tl.sum(tile_steps, 0) + tl.sum(steps, 0)
    spans_in_all = tl.sum((tile_steps > 0).to(tl.int32), 0) + tl.sum((steps > 0).to(tl.int32), 0)
    # Queries to load and a result to store cost a program about as much as a tile of keys, so
    # there is a gap before each span on the line; where all is short, spans are cut to the last.
    gap = (steps_in_all > programs).to(tl.int32)
    line = steps_in_all + gap * spans_in_all
    share = tl.maximum(tl.cdiv(line, programs), 1)
    # Tiles first, because they are the longest.
    taken = tile_steps + gap * (tile_steps > 0).to(tl.int32)
    place = tl.cumsum(taken, 0) - tile_steps
    count = _store_items(
        items, bounds, leader, members, tile_slot, 0 * shared, 0 * shared, shared, place, gap,
        share, 0, 1, KEYS,
    )  # fmt: skip
    _, pieces = _cut(place, tile_steps, share)
    of_row = tl.where(tile >= 0, tl.gather(pieces, tl.maximum(tile, 0), 0), 0)
    before = tl.sum(taken, 0)
    place = before + tl.cumsum(steps + gap * (steps > 0).to(tl.int32), 0) - steps
    count += _store_items(
        items,
        bounds,
        row,
        0 * row + 1,
        slot,
        begin,
        skip,
        length,
        place,
        gap,
        share,
        count,
        0,
        KEYS,
    )
    _, pieces = _cut(place, steps, share)
    of_row += pieces
    first_partial = tl.cumsum(of_row, 0) - of_row
    tl.store(spans + row * 3, first_partial, mask=row < rows)
    tl.store(spans + row * 3 + 1, pieces, mask=row < rows)
    tl.store(spans + row * 3 + 2, of_row, mask=row < rows)
    program = tl.arange(0, PROGRAMS)
    idle = (program >= tl.cdiv(line, share)) & (program <= programs)
    tl.store(bounds + program, 0 * program + count, mask=idle)


def plan_hopper(
    plan: HopperPlan,
    positions: Tensor,
    slots: Tensor,
    keys: int,
    live: Tensor | None = None,
    sharing: Sharing | None = None,
    window: int | None = None,
    dependent: bool = False,
) -> None:
    """Write the items of a step.

    positions: [rows] int64 of the token that each row computes; slots: [rows] integers; keys:
    tokens of a tile; live: [1] int32, how many rows count (None: all). With a window nothing is
    shared.
    """
    rows, programs = len(positions), len(plan.bounds) - 1
    if window is not None:
        sharing = None
    _plan_kernel[(1,)](
        positions, slots,
        plan.bounds if live is None else live,
        plan.bounds if sharing is None else sharing.tile_of_row,
        plan.bounds if sharing is None else sharing.tiles,
        plan.items, plan.bounds, plan.spans, rows, 0 if sharing is None else len(sharing.tiles),
        programs, window or 0, ROWS=max(LEAST_ROWS, triton.next_power_of_2(rows)),
        PROGRAMS=triton.next_power_of_2(programs + 1), LIVE=live is not None,
        WINDOW=window is not None, KEYS=keys, num_warps=4, **launch(dependent),
    )  # fmt: skip
