"""Activation functions between the two halves of an MLP, gated (Shazeer, 2020, arXiv:2002.05202)
or not."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from penstock_kernels.ops import ALPHA, LIMIT, Act


def activate(x: Tensor, act: Act) -> Tensor:
    """act(x) of the same dtype; x may be overwritten."""
    match act:
        case Act.SILU:
            return F.silu(x)
        case Act.GELU:
            return F.gelu(x)
        case Act.GELU_TANH:
            return F.gelu(x, approximate="tanh")
        case Act.RELU:
            return F.relu(x)
        case Act.RELU2:
            return F.relu(x).square_()
        case Act.CLAMPED_SWIGLU:
            x = x.clamp(max=LIMIT)
            return x * torch.sigmoid(ALPHA * x)


def gate(
    gate_up: Tensor, act: Act, activated: Callable[[Tensor, Act], Tensor] = activate
) -> Tensor:
    """act(gate) * up. gate_up: [n, 2 * d], gate first; returns [n, d] of the same dtype."""
    gates, up = gate_up.chunk(2, dim=-1)
    if act is Act.CLAMPED_SWIGLU:
        up = up.clamp(-LIMIT, LIMIT).add_(1)
    return activated(gates, act).mul_(up)
