"""Rotary embedding of queries and keys, their optional norm, and the write to the cache at once.

Reference: `penstock_kernels.rope` (`rotate_`, `write_kv`) after `penstock_kernels.norm.rms_norm`.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _rope_kernel(
    qkv,  # [n, (heads + 2 * kv_heads) * D]; queries are rotated in place
    cache,  # [2, kv_heads, blocks, PAGE, D]
    table,  # [slots, width] int32
    slots,  # [n] int32
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
):
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    half = tl.arange(0, HALF)
    inside = half < D // 2
    source = qkv + (row * (heads + 2 * kv_heads) + head) * D
    low = tl.load(source + half, mask=inside, other=0.0)
    high = tl.load(source + D // 2 + half, mask=inside, other=0.0)
    dtype = low.dtype
    position = tl.load(positions + row)
    if head < heads + kv_heads:
        a, b = low.to(tl.float32), high.to(tl.float32)
        if NORM:
            scale = tl.rsqrt((tl.sum(a * a, 0) + tl.sum(b * b, 0)) / D + eps)
            weight = q_norm if head < heads else k_norm
            weight_a = tl.load(weight + half, mask=inside, other=0.0)
            weight_b = tl.load(weight + D // 2 + half, mask=inside, other=0.0)
            a = ((a * scale).to(dtype) * weight_a).to(tl.float32)
            b = ((b * scale).to(dtype) * weight_b).to(tl.float32)
        cos = tl.load(angles + position * D + half, mask=inside, other=0.0)
        sin = tl.load(angles + position * D + D // 2 + half, mask=inside, other=0.0)
        low = (a * cos - b * sin).to(dtype)
        high = (b * cos + a * sin).to(dtype)
    if head < heads:
        tl.store(source + half, low, mask=inside)
        tl.store(source + D // 2 + half, high, mask=inside)
    else:
        page = tl.load(table + tl.load(slots + row).to(tl.int64) * width + position // PAGE)
        token = page.to(tl.int64) * PAGE + position % PAGE
        plane = (head - heads).to(tl.int64)  # keys of each KV head, then values
        place = cache + (plane * blocks * PAGE + token) * D
        tl.store(place + half, low, mask=inside)
        tl.store(place + D // 2 + half, high, mask=inside)


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
) -> None:
    """Rotate the queries in place; rotate the keys and store them and the values in the cache.

    qkv: [n, (heads + 2 * kv_heads) * d] dense; cache: [2, kv_heads, blocks, page, d];
    table: [slots, width] int32; slots: [n] int32; positions: [n] int64;
    angles: [positions, 2, d / 2] float32; norms: weights [d] of the queries' and the keys' norm.
    """
    _, kv_heads, blocks, page, d = cache.shape
    q_norm, k_norm = norms or (angles, angles)
    _rope_kernel[(qkv.shape[0], heads + 2 * kv_heads)](
        qkv, cache, table, slots, positions, angles, q_norm, k_norm, eps, blocks, table.stride(0),
        heads=heads, kv_heads=kv_heads, D=d,
        HALF=triton.next_power_of_2(d // 2), PAGE=page, NORM=norms is not None, num_warps=1,
    )  # fmt: skip
