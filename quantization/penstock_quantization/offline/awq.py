"""AWQ (Lin et al., 2023, arXiv:2306.00978): inputs that are large make their columns larger before
those are rounded, and are divided by as much themselves; then the ranges of groups are cut.

Both are searched for the least error of the product, whose expectation the sum of x x^T over inputs
x gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from penstock_quantization.offline.groups import Grid, Quantised

STEPS = 20  # of the exponent
SHARES = 10  # that are tried
LEAST_SHARE = 0.5


class Reader(NamedTuple):
    """A matrix, and the sum of x x^T over the inputs that it multiplied."""

    weight: Tensor  # [n, k]
    hessian: Tensor  # [k, k]


def best_scale(readers: Sequence[Reader], mean: Tensor, grid: Grid) -> Tensor:
    """[k], by which columns are multiplied. readers: of the same inputs; mean: of their sizes."""
    best, least = torch.ones_like(mean), float("inf")
    for step in range(STEPS):
        scale = mean.clamp(min=1e-4) ** (step / STEPS)
        scale = scale / (scale.max() * scale.min()).sqrt()
        error = sum(_lost(each, scale, grid) for each in readers)
        if error < least:
            best, least = scale, error
    return best


def _lost(reader: Reader, scale: Tensor, grid: Grid) -> float:
    lost = grid.nearest(reader.weight * scale).meant() / scale - reader.weight
    return float(((lost @ reader.hessian) * lost).sum())


def cut(weight: Tensor, hessian: Tensor, grid: Grid) -> Quantised:
    """To the nearest, of ranges that lose least, each group for itself."""
    n, k = weight.shape
    groups = k // grid.group
    parts = weight.view(n, groups, grid.group)
    blocks = hessian.view(groups, grid.group, groups, grid.group)
    own = blocks.diagonal(dim1=0, dim2=2).permute(2, 0, 1)  # [groups, group, group]
    best = torch.ones(n, groups, 1, device=weight.device)
    least = torch.full((n, groups), float("inf"), device=weight.device)
    for step in range(SHARES):
        share = 1 - (1 - LEAST_SHARE) * step / SHARES
        lost = grid.nearest(weight, share).meant().view_as(parts) - parts
        error = (torch.einsum("ngk,gkj->ngj", lost, own) * lost).sum(2)
        better = error < least
        least = torch.where(better, error, least)
        best[better] = share
    return grid.nearest(weight, best)
