"""Keys and values in FP8: from the cache to registers and back, on every card.

Reference: `penstock_kernels.fp8.saturated`. Kernels see the cache as bytes. Cards that know FP8
convert by an instruction for two numbers; for others the bits are moved to where half precision has
them, which is exact.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.fp8 import bits
from penstock_kernels.gpu.launch import card
from penstock_kernels.ops import CacheSpec

E4M3, E5M2 = 4, 5  # bits of the exponent; 0: the cache is no FP8


def exponent_bits(cache: Tensor) -> int:
    """Of a cache's numbers, as kernels tell its types apart."""
    return {torch.float8_e4m3fn: E4M3, torch.float8_e5m2: E5M2}.get(cache.dtype, 0)


def operands(cache: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """The cache as kernels take it, and what they must know when they are compiled."""
    return bits(cache), _kinds(cache.dtype, exponent_bits(cache), cache.device)


@functools.cache
def _kinds(dtype: torch.dtype, kind: int, device: torch.device) -> dict[str, Any]:
    return {"FP8": kind, "CONVERTS": kind > 0 and card.converts_fp8(device)}


def inverses(cache: Tensor, spec: CacheSpec) -> tuple[float, float]:
    """What keys and values are multiplied with before they are stored."""
    return spec.inverses if exponent_bits(cache) else (1.0, 1.0)


@triton.jit
def widened(x, dtype: tl.constexpr, FP8: tl.constexpr, CONVERTS: tl.constexpr):
    """Numbers of the cache in dtype, exactly."""
    if FP8 == 0:
        return x
    if CONVERTS:
        if FP8 == 4:
            return x.to(tl.float8e4nv, bitcast=True).to(dtype)
        # By way of float16: what Triton makes of one in bfloat16 is a number where it is NaN.
        return x.to(tl.float8e5, bitcast=True).to(tl.float16).to(dtype)
    wide = x.to(tl.uint16)
    if FP8 == 5:
        return (wide << 8).to(tl.float16, bitcast=True).to(dtype)
    half = ((wide & 0x80) << 8) | ((wide & 0x7F) << 7)
    exact = half.to(tl.float16, bitcast=True).to(tl.float32) * 256
    return tl.where((wide & 0x7F) == 0x7F, float("nan"), exact).to(dtype)


@triton.jit
def narrowed(x, FP8: tl.constexpr, CONVERTS: tl.constexpr):
    """float32 as the cache's bytes: to the nearest, the largest where it is larger, NaN as NaN."""
    largest: tl.constexpr = 448.0 if FP8 == 4 else 57344.0
    drop: tl.constexpr = 20 if FP8 == 4 else 21  # bits of the mantissa
    bias: tl.constexpr = (127 - 7) << 3 if FP8 == 4 else (127 - 15) << 2
    # Below the least normal number all are multiples of the least one, 2^-9 or 2^-16, which is what
    # numbers about the anchor are multiples of in float32.
    least: tl.constexpr = 0.015625 if FP8 == 4 else 6.103515625e-05
    anchor: tl.constexpr = 16384.0 if FP8 == 4 else 128.0
    x = tl.where(x > largest, largest, tl.where(x < -largest, -largest, x))
    if CONVERTS:
        if FP8 == 4:
            return x.to(tl.float8e4nv).to(tl.uint8, bitcast=True)
        return x.to(tl.float8e5).to(tl.uint8, bitcast=True)
    sign = x.to(tl.uint32, bitcast=True) >> 24 & 0x80
    size = tl.abs(x)
    whole = size.to(tl.uint32, bitcast=True)
    normal = (whole + (1 << (drop - 1)) - 1 + (whole >> drop & 1) >> drop) - bias
    small = (size + anchor).to(tl.uint32, bitcast=True) & 0xF
    number = tl.where(size < least, small, normal)
    return (tl.where(x != x, 0x7F, number) | sign).to(tl.uint8)
