"""Weights of every layout."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from penstock_kernels.weight import Layout, Weight
from penstock_quantization.online import ONLINE, fp8
from support.whole_numbers import rounded


def weight_of(
    layout: Layout,
    n: int,
    k: int,
    dtype: torch.dtype,
    bias: Tensor | None = None,
    device: str = "cuda",
) -> Weight:
    """A random weight."""
    weight = Weight(torch.randn(n, k, device=device, dtype=dtype) * k**-0.5, bias)
    if layout is Layout.DENSE:
        return weight
    if layout is Layout.LUT:
        return ONLINE["bitsandbytes-nf4"](weight, lambda largest: largest, None)
    if layout in (Layout.INT8, Layout.INT4):
        bits = 8 if layout is Layout.INT8 else 4
        return rounded(weight, bits, math.gcd(128, k))
    quantised = fp8(weight, lambda largest: largest)
    if layout is Layout.FP8:
        return quantised
    scale = torch.rand(-(-n // 128), -(-k // 128), device=device) * k**-0.5 / 100
    return replace(quantised, layout=layout, scale=scale, scale_rows=128, scale_columns=128)
