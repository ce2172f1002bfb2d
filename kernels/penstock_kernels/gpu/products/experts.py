"""Experts as two grouped products. Reference: `penstock_kernels.reference.experts`.

Each row and each expert that it takes make a pair. Pairs are sorted by expert, and those of an
expert fill whole tiles of rows, the last one up with none: a tile multiplies by one expert. How
many pairs an expert has stands on the device alone, so there are as many tiles as there could be,
and those that are left over end at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.experts import Experts, choose
from penstock_kernels.gpu.step.activation import _act

# Columns and depth of a tile; in float32 half as deep, so that it fits where half precision does.
HALF = {"BN": 64, "BK": 64, "PRECISION": "tf32", "num_warps": 4, "num_stages": 3}
WIDE = {"BN": 64, "BK": 32, "PRECISION": "ieee", "num_warps": 4, "num_stages": 2}


@dataclass(frozen=True, slots=True)
class Grouping:
    """Pairs in tiles.

    pair: [tiles * tile_rows] int32, `row * top + place` of each, beyond the last pair for none;
    expert: [tiles] int32, of each tile; -1: it is left over.
    """

    pair: Tensor
    expert: Tensor


def tile_rows(rows: int, experts: Experts) -> int:
    """Pairs in a tile: about as many as an expert has."""
    share = triton.next_power_of_2(max(1, rows * experts.top // experts.count))
    return max(16, min(64, int(share)))


def group(chosen: Tensor, count: int, rows_of_tile: int) -> Grouping:
    """Sort pairs by expert. chosen: [n, top] int64. Launches only, and no size but that of
    `chosen`: a graph may hold it."""
    pairs = chosen.numel()
    tiles = min(pairs, count) + pairs // rows_of_tile
    expert, pair = chosen.flatten().sort(stable=True)
    numbers = torch.arange(count, device=chosen.device)
    first = torch.searchsorted(expert, numbers)  # where each expert's pairs begin, sorted
    sizes = torch.searchsorted(expert, numbers, right=True) - first
    ends = ((sizes + rows_of_tile - 1) // rows_of_tile).cumsum(0)  # in tiles
    begins = torch.cat([ends.new_zeros(1), ends[:-1]])
    order = torch.arange(pairs, device=chosen.device)
    place = (begins * rows_of_tile - first)[expert] + order
    filled = pair.new_full((tiles * rows_of_tile,), pairs).scatter_(0, place, pair)
    tile = torch.arange(tiles, device=chosen.device)
    owner = torch.searchsorted(ends, tile, right=True)
    return Grouping(filled.int(), torch.where(owner < count, owner, -1).int())


@triton.jit(do_not_specialize=["count"])
def _grouped_kernel(
    x,  # [rows, K]: one for each TOP pairs
    weight,  # [experts, N, K], with GATED the gate's rows before those of up
    pairs,  # [tiles * BM]
    owners,  # [tiles]
    share,  # [count], of a pair, with SCALED
    out,  # [count, N] (or N / 2 when GATED), one row a pair
    count,
    N: tl.constexpr,
    K: tl.constexpr,
    TOP: tl.constexpr,
    ACT: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    GATED: tl.constexpr,
    SCALED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    tile = tl.program_id(1)
    owner = tl.load(owners + tile)
    if owner < 0:
        return
    pair = tl.load(pairs + tile * BM + tl.arange(0, BM))
    real = pair < count
    width: tl.constexpr = N // 2 if GATED else N
    column = tl.program_id(0) * BN + tl.arange(0, BN)
    inside = column < width
    k = tl.arange(0, BK)
    inputs = x + (pair // TOP).to(tl.int64)[:, None] * K
    weights = weight + owner.to(tl.int64) * N * K + column.to(tl.int64)[None, :] * K
    acc = tl.zeros((BM, BN), tl.float32)
    acc_up = tl.zeros((BM, BN), tl.float32)
    for start in range(0, K, BK):
        here = start + k
        known = here < K
        value = tl.load(inputs + here[None, :], mask=real[:, None] & known[None, :], other=0.0)
        wanted = known[:, None] & inside[None, :]
        part = tl.load(weights + here[:, None], mask=wanted, other=0.0)
        acc = tl.dot(value, part, acc, input_precision=PRECISION)
        if GATED:
            up = tl.load(weights + here[:, None] + N // 2 * K, mask=wanted, other=0.0)
            acc_up = tl.dot(value, up, acc_up, input_precision=PRECISION)
    dtype = x.dtype.element_ty
    if GATED:
        acc = (_act(acc.to(dtype).to(tl.float32), ACT).to(dtype) * acc_up.to(dtype)).to(tl.float32)
    if SCALED:
        by = tl.load(share + pair, mask=real, other=0.0)
        acc = acc.to(dtype).to(tl.float32) * by[:, None]
    place = out + pair.to(tl.int64)[:, None] * width + column[None, :]
    tl.store(place, acc.to(out.dtype.element_ty), mask=real[:, None] & inside[None, :])


def mix(x: Tensor, logits: Tensor, experts: Experts, rows_of_tile: int | None = None) -> Tensor:
    """See `reference.experts.mix`. x: [n, hidden], dense rows; rows_of_tile: pairs that are
    multiplied together, None: as many as suit."""
    rows, hidden = x.shape
    weight, chosen = choose(logits, experts)
    bm = rows_of_tile or tile_rows(rows, experts)
    groups = group(chosen, experts.count, bm)
    pairs, tiles = chosen.numel(), len(groups.expert)
    inner = x.new_empty(pairs, experts.inner)
    out = torch.empty(pairs, hidden, dtype=torch.float32, device=x.device)
    fixed = {"BM": bm, **(WIDE if x.dtype == torch.float32 else HALF)}
    _grouped_kernel[(triton.cdiv(experts.inner, fixed["BN"]), tiles)](
        x, experts.up, groups.pair, groups.expert, None, inner, pairs, N=2 * experts.inner,
        K=hidden, TOP=experts.top, ACT=experts.act.value, GATED=True, SCALED=False, **fixed,
    )  # fmt: skip
    _grouped_kernel[(triton.cdiv(hidden, fixed["BN"]), tiles)](
        inner, experts.down, groups.pair, groups.expert, weight, out, pairs, N=hidden,
        K=experts.inner, TOP=1, ACT=experts.act.value, GATED=False, SCALED=True, **fixed,
    )  # fmt: skip
    return out.view(rows, experts.top, hidden).sum(1).to(x.dtype)
