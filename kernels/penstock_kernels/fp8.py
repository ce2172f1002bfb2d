"""Matrices in FP8 (e4m3), a scale for each row: Micikevicius et al., 2022, arXiv:2209.05433."""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 448.0  # of e4m3
SMALLEST = 1e-12  # scale: rows of zeros stay zeros
GROUP = 64  # columns that are reordered among themselves

# Within a group the bits of a column's number are, from the highest, which of 4 products of 16
# columns it takes part in, which half of those, which of 4 threads, which of the thread's two. In
# memory the thread comes first, so that it finds its 16 numbers together.
_SHAPE = (4, 2, 4, 2)
_IN_MEMORY = (2, 0, 1, 3)
_BACK = (1, 2, 0, 3)


def scale_of(largest: Tensor) -> Tensor:
    """The scale with which the largest number of a row becomes e4m3's. In and out: float32."""
    return (largest / LARGEST).clamp_(min=SMALLEST)


def quantise(x: Tensor, scale: Tensor) -> Tensor:
    """x / scale in e4m3. x: [n, k]; scale: [n, 1] float32."""
    return (x.float() / scale).clamp_(-LARGEST, LARGEST).to(torch.float8_e4m3fn)


def rounded_rows(x: Tensor) -> Tensor:
    """Rows [n, k] as FP8 has them, each with a scale of its own, in their own type."""
    scale = scale_of(x.float().abs().amax(1, keepdim=True))
    return quantise(x, scale).float().mul_(scale).to(x.dtype)


def saturated(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x in a type of FP8, rounded to the nearest; its largest number where x is larger."""
    largest = torch.finfo(dtype).max
    return x.float().clamp(-largest, largest).to(dtype)


def bits(x: Tensor) -> Tensor:
    """Numbers in FP8 as bytes: few operations of torch, and kernels on few cards, know the type.
    Others as they are."""
    return x.view(torch.uint8) if x.dtype.itemsize == 1 else x


def interleave(x: Tensor) -> Tensor:
    """Columns in the order in which tensor cores take them from registers. x: [n, k]; where k is no
    multiple of 64 they stay as they are."""
    return _reordered(x, _SHAPE, _IN_MEMORY)


def in_order(x: Tensor) -> Tensor:
    """The columns of `interleave` as they were."""
    memory = tuple(_SHAPE[axis] for axis in _IN_MEMORY)
    return _reordered(x, memory, _BACK)


def _reordered(x: Tensor, shape: tuple[int, ...], order: tuple[int, ...]) -> Tensor:
    n, k = x.shape
    if k % GROUP:
        return x
    axes = (0, 1, *(axis + 2 for axis in order))
    return x.view(n, k // GROUP, *shape).permute(axes).reshape(n, k)
