"""Experts in plain torch: one after the other, each over the rows that take it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from penstock_kernels.experts import Experts, choose
from penstock_kernels.ops import Act
from penstock_kernels.reference.activation import gate
from penstock_kernels.weight import Weight


def mix(
    x: Tensor,
    logits: Tensor,
    experts: Experts,
    product: Callable[[Tensor, Tensor, Tensor | None], Tensor] = F.linear,
    gating: Callable[[Tensor, Act], Tensor] = gate,
) -> Tensor:
    """The sum of each row's experts times their weights.

    x: [n, hidden]; logits: [n, experts], of the router; product: x W^T + b of rows, a
    matrix and a bias; gating: see `activation.gate`. Returns [n, hidden] of x's dtype; products
    are rounded to it, and summed in float32.
    """

    def multiplied(x: Tensor, weight: Weight) -> Tensor:
        return product(x, weight.dequantised().to(x.dtype), weight.bias)

    out = torch.zeros_like(x, dtype=torch.float32)
    for index, row, share in taken(logits, experts):
        inner = gating(multiplied(x[row], experts.up[index]), experts.act)
        y = multiplied(inner, experts.down[index]).float()
        out.index_add_(0, row, y.mul_(share[:, None]))
    return out.to(x.dtype)


def taken(logits: Tensor, experts: Experts) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Each expert that some row takes, those rows [m] int64, and its weight in them [m] float32."""
    weight, chosen = choose(logits, experts)
    for index in sorted(set(chosen.flatten().tolist())):
        row, place = (chosen == index).nonzero(as_tuple=True)
        yield index, row, weight[row, place]
