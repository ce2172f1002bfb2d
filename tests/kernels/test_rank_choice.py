"""The choice of a token over ranks, in one process: votes of later ranks are there beforehand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from triton import knobs

from penstock_kernels.gpu.ranks.rank_choice import EMPTY, Votes, argmax_over_ranks
from penstock_kernels.gpu.ranks.rank_sum import TURNS
from penstock_kernels.sampler import NO_TOKEN


def vote(value: Tensor, place: int) -> int:
    """As a rank pushes it."""
    return int(value.float().view(torch.int32).long() << 32 | place)


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)], ids=["interpreter", "cuda"]
)
@pytest.mark.parametrize("world", [1, 2, 3])
def test_first_of_the_largest(device: str, world: int) -> None:
    """Ties go to the lower rank; logits may be negative; the last rank may have fewer. Where one
    rank has a NaN, or none has a finite logit, all know."""
    if device == "cpu" and not knobs.runtime.interpret:
        pytest.skip("with a GPU the kernels are compiled: run -m gpu")
    torch.manual_seed(0)
    most, width = 8, 4100
    vocabulary = width * world - 7 * (world - 1)
    every = tuple(
        torch.full((TURNS, world, most), EMPTY, dtype=torch.int64, device=device)
        for _ in range(world)
    )
    ranks = [
        Votes(rank, every, torch.zeros(most, dtype=torch.int32, device=device))
        for rank in range(world)
    ]
    for call, broken in enumerate((math.nan, math.inf, math.nan, math.inf, math.nan)):
        rows = 5
        logits = torch.randn(rows, vocabulary, device=device) - 10
        logits[0] = logits[0].round()  # several are the largest
        logits[1, [5, vocabulary - 1]] = -2.0  # in the first rank and in the last
        logits[2, vocabulary - 2] = 3.0
        logits[3, call * vocabulary // 5] = broken  # in one rank or another
        parts = logits.split(width, dim=1)
        logits[4] = -torch.inf
        expected = logits.argmax(dim=1)
        expected[0] = int((logits[0] == logits[0].max()).nonzero()[0])
        expected[1] = 5
        expected[3:] = NO_TOKEN
        turn = call % TURNS
        for me in ranks:
            for source in range(me.rank + 1, world):
                for row in range(rows):
                    theirs = parts[source][row].nan_to_num(torch.inf, torch.inf, -torch.inf)
                    place = int((theirs == theirs.max()).nonzero()[0])
                    every[me.rank][turn, source, row] = vote(theirs[place], source * width + place)
        kept = torch.zeros_like(logits)
        for me in ranks:
            token = torch.full((rows,), -1, device=device)
            first = me.rank * width
            into = kept[:, first : first + width]
            argmax_over_ranks(parts[me.rank], into, token, first, me)
            assert token.tolist() == expected.tolist()
            assert me.turns[:rows].tolist() == [(call + 1) % TURNS] * rows
            others = [rank for rank in range(world) if rank != me.rank]
            full = (every[me.rank][:, others, :rows] != EMPTY).flatten(1)
            assert full.any(dim=1).tolist() == [
                world > 1 and index == turn for index in range(TURNS)
            ]
        assert torch.equal(kept.nan_to_num(1e9), logits.nan_to_num(1e9))
