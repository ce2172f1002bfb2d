"""Weights in whole numbers, made from dense ones.

rounded(weight, 4, 128)                    to the nearest, a scale for each 128 columns of a row
rounded(weight, 8, None, zeros=True)       for each row, with another number for 0
"""

from __future__ import annotations

import torch

from penstock_kernels.weight import Weight
from penstock_quantization.integers import Integers, pack


def rounded(
    weight: Weight, bits: int, group: int | None, zeros: bool = False,
    scales: torch.dtype = torch.float16,
) -> Weight:  # fmt: skip
    """weight: dense, [n, k]; zeros: whether what stands for 0 differs from group to group."""
    n, k = weight.data.shape
    group = group or k
    groups = -(-k // group)
    padded = torch.nn.functional.pad(weight.data.float(), (0, groups * group - k))
    parts = padded.view(n, groups, group)
    most, middle = (1 << bits) - 1, 1 << (bits - 1)
    low, high = parts.amin(2).clamp(max=0), parts.amax(2).clamp(min=0)
    if not zeros:
        high = torch.maximum(high, -low)
        low = -high
    scale = ((high - low) / most).clamp(min=1e-5).to(scales)
    zero = (-low / scale.float()).round().clamp(0, most) if zeros else torch.full_like(low, middle)
    q = (parts / scale.float().unsqueeze(2) + zero.unsqueeze(2)).round().clamp(0, most) - middle
    q = q.view(n, -1)[:, :k].to(torch.int8)
    given = (zero - middle).short() if zeros else None
    return pack(Integers(bits, q, scale, given, group), weight.bias, None, k)
