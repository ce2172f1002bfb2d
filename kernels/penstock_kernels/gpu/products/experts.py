"""Experts as two grouped products. Reference: `penstock_kernels.reference.experts`.

Five launches: which experts rows take, pairs in tiles, the two products, and the sum of each row's
pairs; few rows need no tiles. No size but the number of rows counts: a graph may hold them.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.experts import Experts
from penstock_kernels.gpu.launch.dependent import launch, wait
from penstock_kernels.gpu.products.expert_groups import Grouping, choose, group, tile_rows
from penstock_kernels.gpu.products.expert_tiles import tile_for
from penstock_kernels.gpu.products.expert_vectors import MOST_ROWS, single, vector_tile
from penstock_kernels.gpu.products.grouped import grouped, takes_gate
from penstock_kernels.gpu.step import activation

BLOCK = 1024


@triton.jit
def _sum_kernel(
    parts,  # [rows, TOP, N]
    share,  # [rows, TOP] float32
    out,  # [rows, N]
    N,
    TOP: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    wait(PDL)
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for turn in range(TOP):
        pair = row * TOP + turn
        part = tl.load(parts + pair * N + at, mask=at < N, other=0.0)
        total += part.to(tl.float32) * tl.load(share + pair)
    tl.store(out + row * N + at, total.to(out.dtype.element_ty), mask=at < N)


def mix(
    x: Tensor,
    logits: Tensor,
    experts: Experts,
    dependent: bool = False,
    rows_of_tile: int | None = None,
) -> Tensor:
    """See `reference.experts.mix`. x: [n, hidden], dense rows; rows_of_tile: pairs that are
    multiplied together, also those of one row; None: as many as suit."""
    rows, top = len(x), experts.top
    share, chosen = choose(logits, top, experts.normalised, dependent)
    parts = None
    if rows_of_tile is None and rows <= MOST_ROWS:
        parts = _without_tiles(x, chosen, experts, dependent)
    if parts is None:
        bm = rows_of_tile or tile_rows(x, experts.count, top)
        groups = group(chosen, experts.count, bm, dependent)
        parts = _of_rows(x, groups, experts, dependent)
    out = torch.empty_like(x)
    _sum_kernel[(rows, triton.cdiv(experts.down.n, BLOCK))](
        parts, share, out, experts.down.n, TOP=top, BLOCK=BLOCK, **launch(dependent)
    )
    return out


def _without_tiles(x: Tensor, chosen: Tensor, experts: Experts, dependent: bool) -> Tensor | None:
    """As `_of_rows`; None: their layouts are for tensor cores."""
    up, down = vector_tile(experts.up, True), vector_tile(experts.down, False)
    if up is None or down is None:
        return None
    inner = single(x, experts.up, chosen, up, experts.top, experts.act, dependent)
    return single(inner, experts.down, chosen, down, dependent=dependent)


def _of_rows(x: Tensor, groups: Grouping, experts: Experts, dependent: bool) -> Tensor:
    """What each expert makes of each row that takes it, [pairs, hidden]."""
    up, down, act, bm = experts.up, experts.down, experts.act, groups.tile_rows
    tile = tile_for(up, x.dtype, bm, takes_gate(up), x.device)
    if takes_gate(up):
        inner = grouped(x, up, groups, tile, experts.top, act, dependent)
    else:
        both = grouped(x, up, groups, tile, experts.top, dependent=dependent)
        inner = activation.gate(both, act, dependent)
    tile = tile_for(down, x.dtype, bm, False, x.device)
    return grouped(inner, down, groups, tile, dependent=dependent)
