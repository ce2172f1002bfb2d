"""GPTQ (Frantar et al., 2022, arXiv:2210.17323): columns are rounded one after the other, and what
each loses the columns behind it make good, as far as their inputs go together."""

from __future__ import annotations

import torch
from torch import Tensor

from penstock_quantization.offline.groups import Grid, Quantised

DAMPING = 0.01  # of the mean of the Hessian's diagonal, as the paper has it
MOST_DAMPING = 1.0
BLOCK = 128  # columns whose losses are passed on together


def gptq(weight: Tensor, hessian: Tensor, grid: Grid) -> Quantised:
    """weight: [n, k]; hessian: [k, k], the sum of x x^T over inputs x."""
    weight = weight.float().clone()
    n, k = weight.shape
    hessian = hessian.float().clone()
    dead = hessian.diagonal() == 0  # inputs that are always 0
    hessian.diagonal()[dead] = 1
    weight[:, dead] = 0
    factor = _inverse_factor(hessian)
    q = torch.empty_like(weight)
    scales, zeros = [], []
    for start in range(0, k, BLOCK):
        stop = min(start + BLOCK, k)
        losses = torch.zeros(n, stop - start, device=weight.device)
        for column in range(start, stop):
            if column % grid.group == 0:  # by the numbers as they are by now
                within = _up_to_date(weight, losses, factor, start, stop, column, grid.group)
                scale, zero = grid.fit(within[:, None])
                scales.append(scale)
                zeros.append(zero)
            one = weight[:, column : column + 1]
            rounded = grid.round(one[:, None], scale, zero)
            q[:, column] = rounded[:, 0, 0]
            meant = ((rounded - zero) * scale)[:, 0]
            loss = (one - meant) / factor[column, column]
            weight[:, column:stop] -= loss * factor[column, column:stop]
            losses[:, column - start] = loss[:, 0]
        weight[:, stop:] -= losses @ factor[start:stop, stop:]
    return grid.stored(q, torch.cat(scales, 1), torch.cat(zeros, 1))


def _up_to_date(
    weight: Tensor, losses: Tensor, factor: Tensor, start: int, stop: int, column: int, group: int
) -> Tensor:
    """The columns of a group, of which those behind the block lack its losses so far."""
    last = column + group
    if last <= stop:
        return weight[:, column:last]
    behind = weight[:, stop:last] - losses @ factor[start:stop, stop:last]
    return torch.cat((weight[:, column:stop], behind), dim=1)


def _inverse_factor(hessian: Tensor) -> Tensor:
    """The upper triangular factor of the inverse. Raises ValueError where there is none."""
    damping, mean = DAMPING, hessian.diagonal().mean()
    while damping <= MOST_DAMPING:
        damped = hessian.clone()
        damped.diagonal().add_(damping * mean)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            inverse = torch.cholesky_inverse(lower)
            upper: Tensor
            upper, failed = torch.linalg.cholesky_ex(inverse, upper=True)
            if not failed and bool(upper.isfinite().all()):
                return upper
        damping *= 10
    raise ValueError("the inputs of a matrix have no usable Hessian: more text is needed")
