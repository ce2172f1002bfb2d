"""Sums over ranks through inboxes: in one process, and between two GPUs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from triton import knobs

from penstock_kernels.gpu.ranks.rank_sum import (
    TURNS,
    Inboxes,
    bits_of,
    empty_of,
    inbox_shape,
    sum_add_rms_norm,
)
from penstock_kernels.ops import Norm
from penstock_kernels.reference.norm import add_norm
from support.paged import difference

EPS = 1e-5


def inboxes_of_all(world: int, width: int, dtype: torch.dtype, device: str) -> list[Inboxes]:
    """Every rank's, in the memory of one device."""
    shape, empty = inbox_shape(width, world), empty_of(dtype)
    every = tuple(
        torch.full(shape, empty, dtype=bits_of(dtype), device=device) for _ in range(world)
    )
    return [
        Inboxes(rank, dtype, every, torch.zeros(shape[2], dtype=torch.int32, device=device))
        for rank in range(world)
    ]


def bits_to_send(part: Tensor) -> Tensor:
    """A part as its rank pushes it."""
    return torch.where(part == 0, torch.zeros_like(part), part).view(bits_of(part.dtype))


@pytest.fixture(
    params=[
        pytest.param(("cpu", torch.float32), id="interpreter"),
        pytest.param(("cuda", torch.float32), id="float32", marks=pytest.mark.gpu),
        pytest.param(("cuda", torch.bfloat16), id="bfloat16", marks=pytest.mark.gpu),
    ]
)
def place(request: pytest.FixtureRequest) -> tuple[str, torch.dtype]:
    device, dtype = request.param
    if device == "cpu" and not knobs.runtime.interpret:
        pytest.skip("with a GPU the kernels are compiled: run -m gpu")
    torch.manual_seed(0)
    return device, dtype


@pytest.mark.parametrize(("world", "width"), [(1, 64), (2, 96), (3, 40)])
def test_ranks_one_after_the_other(place: tuple[str, torch.dtype], world: int, width: int) -> None:
    """Rows come and go, so that they stand at different turns; zeros of both signs are summed."""
    device, dtype = place
    ranks = inboxes_of_all(world, width, dtype, device)
    weight = torch.randn(width, device=device, dtype=dtype)
    calls = [0] * 8  # of each row
    for rows in (5, 1, 8, 3, 3, 8, 1, 8):
        parts = torch.randn(world, rows, width, device=device, dtype=dtype)
        parts[:, :, ::3] = 0.0
        parts[:, :, 1::3] *= -0.0
        residual = torch.randn(rows, width, device=device, dtype=dtype)
        expected = residual.clone()
        out = add_norm(parts.float().sum(0).to(dtype), expected, Norm(weight, EPS))
        wide = add_norm(parts.float().sum(0), residual.float().clone(), Norm(weight.float(), EPS))
        for me in ranks:
            for source in range(me.rank + 1, world):
                for row in range(rows):
                    part = parts[source, row : row + 1]
                    me.every[me.rank][calls[row] % TURNS, source, row] = bits_to_send(part)[0]
        for me in ranks:
            assert me.supports(parts[me.rank])
            own = residual.clone()
            found = sum_add_rms_norm(parts[me.rank], me, own, weight, EPS)
            torch.testing.assert_close(own, expected, rtol=0, atol=0)
            torch.testing.assert_close(found, out)
            assert difference(found, wide) < (1e-5 if dtype == torch.bfloat16 else 1e-12)
        for row in range(rows):
            calls[row] += 1
            last = (calls[row] - 1) % TURNS
            for me in ranks:
                empty = (me.every[me.rank][:, :, row] == empty_of(dtype)).all(dim=2)
                others = [rank for rank in range(world) if rank != me.rank]
                assert empty[:, others].all(dim=1).tolist() == [
                    world == 1 or turn != last for turn in range(TURNS)
                ]
    for me in ranks:
        assert me.turns[:8].tolist() == [count % TURNS for count in calls]
