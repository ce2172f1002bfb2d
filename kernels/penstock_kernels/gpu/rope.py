"""Rotary embedding of queries and keys, their optional norm, and the write to the cache at once.

Reference: `penstock_kernels.rope` (`rotate_`, `write_kv`) after `penstock_kernels.norm.rms_norm`.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.dependent import launch, wait

# Of one program. On an H100, 48 heads of 128: 2.0 us for a row and 39 us for 4096 (2.6 TB/s), where
# a program a head takes 2.1 us and 121 us.
HEADS = 16


@dataclass(frozen=True, slots=True)
class Seats:
    """Where the rows of a step stand, and what turns them there."""

    slots: Tensor  # [n] integers
    positions: Tensor  # [n] int64
    table: Tensor  # [slots, width] int32
    angles: Tensor  # [positions, 2, d / 2] float32, cosines then sines


@triton.jit
def _rope_kernel(
    qkv,  # [n, (heads + 2 * kv_heads) * D]; queries are rotated in place
    cache,  # [2, kv_heads, blocks, PAGE, D]
    table,  # [slots, width] int32
    slots,  # [n] integers
    positions,  # [n] int64
    angles,  # [positions, 2, D / 2] float32, cosines then sines
    q_norm,  # [D], with NORM
    k_norm,
    eps,
    blocks,
    width,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    D: tl.constexpr,
    HALF: tl.constexpr,
    PAGE: tl.constexpr,
    NORM: tl.constexpr,
    SHARE: tl.constexpr,  # heads of one program
    PDL: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * SHARE + tl.arange(0, SHARE)
    half = tl.arange(0, HALF)[None, :]
    within = half < D // 2
    inside = (head < heads + 2 * kv_heads)[:, None] & within
    is_query, is_rotated = (head < heads)[:, None], (head < heads + kv_heads)[:, None]
    wait(PDL)
    source = qkv + (row * (heads + 2 * kv_heads) + head[:, None]) * D + half
    low = tl.load(source, mask=inside, other=0.0)
    high = tl.load(source + D // 2, mask=inside, other=0.0)
    dtype = low.dtype
    position = tl.load(positions + row)
    page = tl.load(table + tl.load(slots + row).to(tl.int64) * width + position // PAGE)
    a, b = low.to(tl.float32), high.to(tl.float32)
    if NORM:
        scale = tl.rsqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / D + eps)[:, None]
        weights = tl.where(is_query, q_norm, k_norm) + half
        weight_a = tl.load(weights, mask=inside, other=0.0)
        weight_b = tl.load(weights + D // 2, mask=inside, other=0.0)
        a = ((a * scale).to(dtype) * weight_a).to(tl.float32)
        b = ((b * scale).to(dtype) * weight_b).to(tl.float32)
    cos = tl.load(angles + position * D + half, mask=within, other=0.0)
    sin = tl.load(angles + position * D + D // 2 + half, mask=within, other=0.0)
    # Said how to round, so that `gpu.hopper_qkv` comes to the same bits.
    low = tl.where(is_rotated, tl.fma(a, cos, -(b * sin)).to(dtype), low)
    high = tl.where(is_rotated, tl.fma(b, cos, a * sin).to(dtype), high)
    tl.store(source, low, mask=inside & is_query)
    tl.store(source + D // 2, high, mask=inside & is_query)
    plane = tl.maximum(head - heads, 0).to(tl.int64)  # keys of each KV head, then values
    token = page.to(tl.int64) * PAGE + position % PAGE
    place = cache + (plane[:, None] * blocks * PAGE + token) * D + half
    tl.store(place, low, mask=inside & ~is_query)
    tl.store(place + D // 2, high, mask=inside & ~is_query)


def rope_and_write(
    qkv: Tensor,
    cache: Tensor,
    table: Tensor,
    slots: Tensor,
    positions: Tensor,
    angles: Tensor,
    heads: int,
    norms: tuple[Tensor, Tensor] | None = None,
    eps: float = 0.0,
    dependent: bool = False,
) -> None:
    """Rotate the queries in place; rotate the keys and store them and the values in the cache.

    qkv: [n, (heads + 2 * kv_heads) * d] dense; cache: [2, kv_heads, blocks, page, d];
    table: [slots, width] int32; slots: [n] integers; positions: [n] int64;
    angles: [positions, 2, d / 2] float32; norms: weights [d] of the queries' and the keys' norm.
    """
    _, kv_heads, blocks, page, d = cache.shape
    q_norm, k_norm = norms or (angles, angles)
    total = heads + 2 * kv_heads
    share = min(HEADS, triton.next_power_of_2(total))
    _rope_kernel[(qkv.shape[0], triton.cdiv(total, share))](
        qkv, cache, table, slots, positions, angles, q_norm, k_norm, eps, blocks, table.stride(0),
        heads=heads, kv_heads=kv_heads, D=d, HALF=triton.next_power_of_2(d // 2), PAGE=page,
        NORM=norms is not None, SHARE=share, num_warps=4,
        **launch(dependent),
    )  # fmt: skip
