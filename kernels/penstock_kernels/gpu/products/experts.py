"""Experts as two grouped products. Reference: `penstock_kernels.reference.experts`.

Five launches: which experts rows take, pairs in tiles, the two products, and the sum of each row's
pairs. No size but the number of rows counts: a graph may hold them.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.experts import Experts
from penstock_kernels.gpu.launch.dependent import launch, wait
from penstock_kernels.gpu.products.expert_groups import choose, group, tile_rows
from penstock_kernels.gpu.products.expert_tiles import tile_for
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
    multiplied together, None: as many as suit."""
    up, down, act = experts.up, experts.down, experts.act
    rows, top = len(x), experts.top
    share, chosen = choose(logits, top, experts.normalised, dependent)
    bm = rows_of_tile or tile_rows(x, experts.count, top)
    groups = group(chosen, experts.count, bm, dependent)
    if takes_gate(up):
        tile = tile_for(up, x.dtype, bm, True, x.device)
        inner = grouped(x, up, groups, tile, top, act, dependent)
    else:
        tile = tile_for(up, x.dtype, bm, False, x.device)
        both = grouped(x, up, groups, tile, top, dependent=dependent)
        inner = activation.gate(both, act, dependent)
    parts = grouped(
        inner, down, groups, tile_for(down, x.dtype, bm, False, x.device), dependent=dependent
    )
    out = torch.empty_like(x)
    _sum_kernel[(rows, triton.cdiv(down.n, BLOCK))](
        parts, share, out, down.n, TOP=top, BLOCK=BLOCK, **launch(dependent)
    )
    return out
