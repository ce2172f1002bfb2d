"""AWQ (Lin et al., 2023, arXiv:2306.00978): inputs that are large make their columns larger before
those are rounded, and are divided by as much themselves; then the ranges of groups are cut.

Both are searched for the least error of the product, whose expectation the sum of x x^T over inputs
x gives.
"""

from __future__ import annotations

import torch
from torch import Tensor

from penstock_quantization.offline.groups import Grid, Quantised

STEPS = 20  # of the exponent
SHARES = 10  # that are tried
LEAST_SHARE = 0.5


def best_scale(weight: Tensor, hessian: Tensor, mean: Tensor, grid: Grid) -> Tensor:
    """[k], by which columns are multiplied. weight: [n, k]; mean: [k], of the inputs' sizes."""
    best, least = torch.ones_like(mean), float("inf")
    for step in range(STEPS):
        scale = mean.clamp(min=1e-4) ** (step / STEPS)
        scale = scale / (scale.max() * scale.min()).sqrt()
        lost = grid.nearest(weight * scale).meant() / scale - weight
        error = float(((lost @ hessian) * lost).sum())
        if error < least:
            best, least = scale, error
    return best


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
