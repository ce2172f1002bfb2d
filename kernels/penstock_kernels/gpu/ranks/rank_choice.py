"""The most likely token of rows whose vocabulary is split over ranks, known to all of them.

Every rank finds the largest of its own logits and pushes that with its place, 8 bytes, to the other
ranks; all choose among the same numbers in the same order. Turns and what makes them safe without a
barrier are those of `rank_sum`. Beside this the logits themselves go to rank 0, for whatever it
samples: it sees all of them once it has seen a rank's vote, which is released after they are sent.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.launch.dependent import launch, wait
from penstock_kernels.gpu.ranks.rank_sum import TURNS
from penstock_kernels.gpu.sampling.argmax import best_of_pieces, token_of
from penstock_kernels.sampler import NO_TOKEN

EMPTY = -1  # no vote: places are not negative


@dataclass(frozen=True, slots=True)
class Votes:
    """What one rank knows of the votes of all.

    every: of each rank, as this rank maps it: [TURNS, from rank, rows] int64, full of EMPTY before
    any rank's first call; turns: [rows] int32, zeros at first.
    """

    rank: int
    every: tuple[Tensor, ...]
    turns: Tensor


@triton.jit
def _vote_kernel(
    best,  # [rows, pieces] float32
    where,  # [rows, pieces] int32
    token,  # [rows] int64
    votes,  # WORLD times [TURNS, WORLD, most] int64
    turns,  # [most] int32
    first,
    pieces,
    most,
    RANK: tl.constexpr,
    WORLD: tl.constexpr,
    TURNS: tl.constexpr,
    EMPTY: tl.constexpr,
    PIECES: tl.constexpr,
    NO_TOKEN: tl.constexpr,
    PDL: tl.constexpr,
):
    wait(PDL)
    row = tl.program_id(0)
    turn = tl.load(turns + row)
    piece = tl.arange(0, PIECES)
    value = tl.load(best + row * pieces + piece, mask=piece < pieces, other=float("-inf"))
    most_likely, index = tl.max(value, 0, return_indices=True)
    place = tl.load(where + row * pieces + index) + first
    vote = (most_likely.to(tl.int32, bitcast=True).to(tl.int64) << 32) | place.to(tl.int64)
    before = (turn + TURNS - 1) % TURNS
    for peer in tl.static_range(WORLD):
        if peer != RANK:
            theirs = votes[peer] + (turn * WORLD + RANK) * most + row
            tl.atomic_xchg(theirs, vote, sem="release", scope="sys")
            tl.store(votes[RANK] + (before * WORLD + peer) * most + row, EMPTY)
    for source in tl.static_range(WORLD):
        theirs = vote
        if source != RANK:
            mine = votes[RANK] + (turn * WORLD + source) * most + row
            theirs = tl.atomic_add(mine, 0, sem="acquire", scope="sys")
            while theirs == EMPTY:
                theirs = tl.atomic_add(mine, 0, sem="acquire", scope="sys")
        likely = (theirs >> 32).to(tl.int32).to(tl.float32, bitcast=True)
        if source == 0:
            highest, chosen = likely, theirs
        else:
            higher = likely > highest
            chosen = tl.where(higher, theirs, chosen)
            highest = tl.where(higher, likely, highest)
    # NaN was voted for as infinite: where one rank has it, all ranks know.
    tl.store(token + row, token_of(highest, chosen & 0xFFFFFFFF, NO_TOKEN))
    tl.store(turns + row, (turn + 1) % TURNS)


def argmax_over_ranks(
    logits: Tensor,
    kept: Tensor,
    token: Tensor,
    first: int,
    votes: Votes,
    dependent: bool = False,
) -> None:
    """The first of the largest logits of each row over all ranks. All ranks must call it.

    logits, kept: [rows, n] of one dtype, rows may be strided: this rank's part, and where a copy of
    it is left, on whatever device; token: [rows] int64, NO_TOKEN where the largest is not finite;
    first: place of the part in the whole row.
    """
    best, where = best_of_pieces(logits, kept, dependent)
    rows, pieces = best.shape
    _vote_kernel[(rows,)](
        best, where, token, votes.every, votes.turns, first, pieces, votes.every[0].shape[2],
        RANK=votes.rank, WORLD=len(votes.every), TURNS=TURNS, EMPTY=EMPTY,
        PIECES=triton.next_power_of_2(pieces), NO_TOKEN=NO_TOKEN, num_warps=1, **launch(dependent),
    )  # fmt: skip
