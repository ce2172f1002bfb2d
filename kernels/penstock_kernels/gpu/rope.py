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
    HEADS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head = (tl.program_id(1) * HEADS + tl.arange(0, HEADS))[:, None]
    half = tl.arange(0, HALF)[None, :]
    inside = (half < D // 2) & (head < heads + 2 * kv_heads)
    source = qkv + (row * (heads + 2 * kv_heads) + head) * D + half
    low = tl.load(source, mask=inside, other=0.0)
    high = tl.load(source + D // 2, mask=inside, other=0.0)
    dtype = low.dtype
    position = tl.load(positions + row)
    page = tl.load(table + tl.load(slots + row).to(tl.int64) * width + position // PAGE)
    a, b = low.to(tl.float32), high.to(tl.float32)
    if NORM:
        scale = tl.rsqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / D + eps)[:, None]
        weight = tl.where(head < heads, q_norm, k_norm) + half
        weight_a = tl.load(weight, mask=inside, other=0.0)
        weight_b = tl.load(weight + D // 2, mask=inside, other=0.0)
        a = ((a * scale).to(dtype) * weight_a).to(tl.float32)
        b = ((b * scale).to(dtype) * weight_b).to(tl.float32)
    angle = angles + position * D + half
    cos = tl.load(angle, mask=half < D // 2, other=0.0)
    sin = tl.load(angle + D // 2, mask=half < D // 2, other=0.0)
    rotated = head < heads + kv_heads
    low = tl.where(rotated, (a * cos - b * sin).to(dtype), low)
    high = tl.where(rotated, (b * cos + a * sin).to(dtype), high)
    queries = inside & (head < heads)
    tl.store(source, low, mask=queries)
    tl.store(source + D // 2, high, mask=queries)
    token = page.to(tl.int64) * PAGE + position % PAGE
    plane = (head - heads).to(tl.int64)  # keys of each KV head, then values
    place = cache + (plane * blocks * PAGE + token) * D + half
    tl.store(place, low, mask=inside & (head >= heads))
    tl.store(place + D // 2, high, mask=inside & (head >= heads))


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
    # Few rows: a program a head is done first; many: programs of one head do too little each.
    group = 1 if qkv.shape[0] <= 16 else 8
    _rope_kernel[(qkv.shape[0], triton.cdiv(heads + 2 * kv_heads, group))](
        qkv, cache, table, slots, positions, angles, q_norm, k_norm, eps, blocks, table.stride(0),
        heads=heads, kv_heads=kv_heads, D=d,
        HALF=triton.next_power_of_2(d // 2), PAGE=page, NORM=norms is not None, HEADS=group,
        num_warps=1 if group == 1 else 2,
    )  # fmt: skip
