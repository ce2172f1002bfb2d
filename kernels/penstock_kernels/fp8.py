"""Matrices in FP8 (e4m3), a scale for each row: Micikevicius et al., 2022, arXiv:2209.05433."""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 448.0  # of e4m3
SMALLEST = 1e-12  # scale: rows of zeros stay zeros


def scale_of(largest: Tensor) -> Tensor:
    """The scale with which the largest number of a row becomes e4m3's. In and out: float32."""
    return (largest / LARGEST).clamp_(min=SMALLEST)


def quantise(x: Tensor, scale: Tensor) -> Tensor:
    """x / scale in e4m3. x: [n, k]; scale: [n, 1] float32."""
    return (x.float() / scale).clamp_(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
