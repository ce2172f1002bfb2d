"""Which experts rows take, and pairs of both in tiles.

Each row and each expert that it takes make a pair. Pairs are sorted by expert, and those of an
expert fill whole tiles, the last one up with none: a tile multiplies by one expert. How many pairs
an expert has stands on the device alone, so there are as many tiles as there could be, and those
that are left over end at once.

Reference: `penstock_kernels.experts.choose`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.launch.card import shared_bytes
from penstock_kernels.gpu.launch.dependent import launch, wait

CHUNK = 1024  # pairs that a program looks at together
LEAST, MOST = 16, 128  # pairs of a tile
ROOM = 99 << 10  # bytes of shared memory for the most


@dataclass(frozen=True, slots=True)
class Grouping:
    """Pairs in tiles.

    pair: [tiles * tile_rows] int32, `row * top + place` of each, `count` for none;
    expert: [tiles] int32, of each tile; -1: it is left over.
    """

    pair: Tensor
    expert: Tensor
    count: int  # pairs
    tile_rows: int


def tile_rows(x: Tensor, count: int, top: int) -> int:
    """Pairs of a tile: about as many as an expert has, and as a small card holds."""
    share = triton.next_power_of_2(max(1, len(x) * top // count))
    roomy = x.element_size() == 2 and shared_bytes(x.device) >= ROOM
    return max(LEAST, min(MOST if roomy else 2 * LEAST, int(share)))


@triton.jit
def _choose_kernel(
    logits,  # [rows, E]
    weight,  # [rows, TOP] float32
    chosen,  # [rows, TOP] int32
    E: tl.constexpr,
    WIDE: tl.constexpr,  # E as a power of two
    TOP: tl.constexpr,
    MANY: tl.constexpr,  # TOP as a power of two
    NORMALISED: tl.constexpr,
    PDL: tl.constexpr,
):
    wait(PDL)
    row = tl.program_id(0).to(tl.int64)
    expert, place = tl.arange(0, WIDE), tl.arange(0, MANY)
    logit = tl.load(logits + row * E + expert, mask=expert < E, other=float("-inf"))
    logit = logit.to(tl.float32)
    part = tl.exp(logit - tl.max(logit, 0))
    part /= tl.sum(part, 0)
    most = tl.zeros([MANY], tl.float32)
    which = tl.zeros([MANY], tl.int32)
    for turn in range(TOP):
        best = tl.argmax(part, 0)
        most = tl.where(place == turn, tl.max(part, 0), most)
        which = tl.where(place == turn, tl.minimum(best, E - 1), which)
        part = tl.where(expert == best, -1.0, part)
    if NORMALISED:
        most /= tl.sum(most, 0)
    at = row * TOP + place
    tl.store(weight + at, most, mask=place < TOP)
    tl.store(chosen + at, which, mask=place < TOP)


@triton.jit(do_not_specialize=["count", "tiles"])
def _group_kernel(
    chosen,  # [count]
    pairs,  # [tiles * BM]
    owners,  # [tiles]
    count,
    tiles,
    WIDE: tl.constexpr,
    BM: tl.constexpr,
    CHUNK: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program an expert: each counts all pairs, and writes the tiles of its own."""
    wait(PDL)
    mine, expert = tl.program_id(0), tl.arange(0, WIDE)
    sizes = tl.zeros([WIDE], tl.int32)
    for start in range(0, count, CHUNK):
        at = start + tl.arange(0, CHUNK)
        found = tl.load(chosen + at, mask=at < count, other=0)
        sizes += tl.histogram(found, WIDE, mask=at < count)
    tiles_of = (sizes + BM - 1) // BM
    begin = tl.sum(tl.where(expert < mine, tiles_of, 0), 0)
    own = tl.sum(tl.where(expert == mine, tiles_of, 0), 0)
    done = 0
    for start in range(0, count, CHUNK):
        at = start + tl.arange(0, CHUNK)
        found = tl.load(chosen + at, mask=at < count, other=-1)
        is_mine = found == mine
        place = done + tl.cumsum(is_mine.to(tl.int32), 0) - 1
        tl.store(pairs + begin * BM + place, at, mask=is_mine)
        done += tl.sum(is_mine.to(tl.int32), 0)
    last = tl.arange(0, BM)
    tl.store(pairs + begin * BM + done + last, count, mask=done + last < own * BM)
    for start in range(0, own, BM):
        at = start + last
        tl.store(owners + begin + at, mine, mask=at < own)
    if mine == tl.num_programs(0) - 1:
        for start in range(begin + own, tiles, CHUNK):
            at = start + tl.arange(0, CHUNK)
            tl.store(owners + at, -1, mask=at < tiles)


def choose(
    logits: Tensor, top: int, normalised: bool, dependent: bool = False
) -> tuple[Tensor, Tensor]:
    """Weights [rows, top] float32 and experts [rows, top] int32, the likeliest first.

    logits: [rows, experts], dense.
    """
    rows, experts = logits.shape
    weight = torch.empty(rows, top, dtype=torch.float32, device=logits.device)
    chosen = torch.empty(rows, top, dtype=torch.int32, device=logits.device)
    _choose_kernel[(rows,)](
        logits, weight, chosen, E=experts, WIDE=triton.next_power_of_2(experts), TOP=top,
        MANY=triton.next_power_of_2(top), NORMALISED=normalised, **launch(dependent),
    )  # fmt: skip
    return weight, chosen


def group(chosen: Tensor, experts: int, rows_of_tile: int, dependent: bool = False) -> Grouping:
    """Pairs sorted by expert. chosen: [rows, top] int32."""
    count = chosen.numel()
    tiles = min(count, experts) + count // rows_of_tile
    pair = torch.empty(tiles * rows_of_tile, dtype=torch.int32, device=chosen.device)
    owners = torch.empty(tiles, dtype=torch.int32, device=chosen.device)
    chunk = min(CHUNK, max(32, triton.next_power_of_2(count)))
    _group_kernel[(experts,)](
        chosen, pair, owners, count, tiles, WIDE=triton.next_power_of_2(experts),
        BM=rows_of_tile, CHUNK=chunk, **launch(dependent),
    )  # fmt: skip
    return Grouping(pair, owners, count, rows_of_tile)
