"""The sum of rows over ranks, its addition to the residual and the norm of that: one launch.

Every rank pushes its part of a row into an inbox of each other rank, memory of that rank which all
of them map, and adds up what it finds in its own. A part is its own signal: an inbox is full of a
number that no part holds, and a rank reads until none is left of it ("Lamport" all-reduce, as in
TensorRT-LLM). So a sum costs one way over NVLink, without a barrier before or after it.

Why no barrier is needed. An inbox has three turns, and row r of a call takes the next turn of row
r. In its call i a rank pushes to turn i, reads turn i of its own inbox, and empties turn i - 1,
which it read in call i - 1. It ends call i only with the parts that its peers push in their call i.
So while a rank is in call i, its peers are in call i or i + 1 (for the next one they would need its
part of i + 1), and write to turns i and i + 1: never to i - 1, which is being emptied. A peer
writes to that one again in its call i + 2, once it has seen this rank's part of call i + 1, which
is pushed after call i is complete, its emptying included: kernels of a stream follow one another,
with dependent launch from `wait` on.

Turns are counted on the device, row by row: so a CUDA graph may be replayed, graphs of different
numbers of rows may alternate, and other collectives may run between, as long as all ranks run the
same steps. A program waits for nothing but the same row on its peers, and pushes before it waits.
Programs that hold a multiprocessor while they wait can only keep back later rows of their own
launch (those that were launched before have all begun, those launched after start once all rows
run), and rows begin in order on every rank: the lowest row that has not ended runs everywhere, so
it ends. Besides, as many rows as are taken fit on a card at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.launch.dependent import launch, wait

TURNS = 3
PARTS = 512  # rows x ranks of an inbox's turn


def bits_of(dtype: torch.dtype) -> torch.dtype:
    """Integers of the same size: parts travel as bits."""
    return torch.int32 if dtype == torch.float32 else torch.int16


def empty_of(dtype: torch.dtype) -> int:
    """The bits of -0.0, where nothing was pushed yet: parts are sent with +0.0 instead."""
    return int(torch.iinfo(bits_of(dtype)).min)


def inbox_shape(width: int, world_size: int) -> tuple[int, int, int, int]:
    """[turns, from rank, rows, width] of an inbox."""
    return TURNS, world_size, PARTS // world_size, width


@dataclass(frozen=True, slots=True)
class Inboxes:
    """What one rank knows of the inboxes of all.

    every: of each rank, as this rank maps it: `inbox_shape` in `bits_of` the dtype, full of
    `empty_of` before any rank's first call; turns: [rows] int32, zeros at first.
    """

    rank: int
    dtype: torch.dtype  # of the rows
    every: tuple[Tensor, ...]
    turns: Tensor

    def supports(self, x: Tensor) -> bool:
        """Whether x [n, d] is such rows, and few enough; the same on every rank."""
        _, _, rows, width = self.every[0].shape
        right = x.dtype == self.dtype and x.shape[1] == width and x.is_contiguous()
        return right and 0 < len(x) <= rows


@triton.jit
def _add_both(a, b, c, d):
    return a + c, b + d


@triton.jit
def _rank_sum_kernel(
    x,  # [rows, d]: this rank's part
    residual,  # [rows, d]
    weight,  # [d]
    out,  # [rows, d]
    inboxes,  # WORLD times [TURNS, WORLD, most, d] integers
    turns,  # [most] int32
    d,
    most,
    eps,
    RANK: tl.constexpr,
    WORLD: tl.constexpr,
    TURNS: tl.constexpr,
    EMPTY: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < d
    dtype: tl.constexpr = out.dtype.element_ty
    bits: tl.constexpr = inboxes[0].dtype.element_ty
    gain = tl.load(weight + column, mask=inside)
    wait(PDL)
    turn = tl.load(turns + row)
    part = tl.load(x + row * d + column, mask=inside, other=0.0).to(bits, bitcast=True)
    part = tl.where(part == EMPTY, 0, part).to(bits)
    this = turn * WORLD * most * d + row * d + column
    before = (turn + TURNS - 1) % TURNS * WORLD * most * d + row * d + column
    for peer in tl.static_range(WORLD):
        if peer != RANK:
            tl.store(inboxes[peer] + this + RANK * most * d, part, mask=inside)
    tl.debug_barrier()  # all of it is on its way before anyone waits
    old = tl.load(residual + row * d + column, mask=inside, other=0.0)
    for source in tl.static_range(WORLD):
        if source != RANK:
            tl.store(inboxes[RANK] + before + source * most * d, EMPTY, mask=inside)
    # What is not there yet counts as well, and everything is read once more: one reduction tells
    # whether all have come and how large they are.
    value, squares, missing = old, 0.0, 1
    while missing > 0:
        total = tl.zeros([BLOCK], tl.float32)
        absent = tl.zeros([BLOCK], tl.int32)
        for source in tl.static_range(WORLD):
            theirs = part
            if source != RANK:
                place = inboxes[RANK] + this + source * most * d
                theirs = tl.load(place, mask=inside, other=0, volatile=True)
                absent += (theirs == EMPTY).to(tl.int32)
            total += theirs.to(dtype, bitcast=True).to(tl.float32)  # by rank, the same on each
        value = total.to(dtype) + old
        wide = value.to(tl.float32)
        squares, missing = tl.reduce((wide * wide, absent), 0, _add_both)
    tl.store(residual + row * d + column, value, mask=inside)
    scale = tl.rsqrt(squares / d + eps)
    scaled = (value.to(tl.float32) * scale).to(dtype)  # first, as the checkpoints were trained
    tl.store(out + row * d + column, scaled * gain, mask=inside)
    # Every warp has read the turn: the reduction needed all of them.
    tl.store(turns + row, (turn + 1) % TURNS)


def sum_add_rms_norm(
    x: Tensor,
    inboxes: Inboxes,
    residual: Tensor,
    weight: Tensor,
    eps: float,
    dependent: bool = False,
) -> Tensor:
    """Add the sum of the ranks' x to residual in place, then normalise. All ranks must call it.

    The parts are added in float32 in the order of the ranks and rounded once, so that every rank
    has the same bits. x, residual: [n, d], such as `inboxes.takes`; weight: [d]. Returns [n, d].
    Reference: `penstock_kernels.reference.norm.add_rms_norm` of the sum.
    """
    out = torch.empty_like(residual)
    n, d = x.shape
    _, world, most, _ = inboxes.every[0].shape
    block = triton.next_power_of_2(d)
    _rank_sum_kernel[(n,)](
        x, residual, weight, out, inboxes.every, inboxes.turns, d, most, eps,
        RANK=inboxes.rank, WORLD=world, TURNS=TURNS, EMPTY=empty_of(x.dtype), BLOCK=block,
        num_warps=_warps(block), **launch(dependent),
    )  # fmt: skip
    return out


def _warps(block: int) -> int:
    """8 for rows of 4096: as fast as 16 on two H200 (2.6 us a row, 4.2 for 64 rows), 4 take 3.3."""
    return max(1, min(16, block // 512))
