"""Rotary embedding of queries and keys, their optional norm, and the write to the cache at once.

Reference: `penstock_kernels.reference.rope` (`rotate_`, `write_kv`) behind `reference.norm`.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.attention import kv8
from penstock_kernels.gpu.attention.kv8 import narrowed
from penstock_kernels.gpu.launch.dependent import launch, wait
from penstock_kernels.gpu.step.mean_squares import mean_squares
from penstock_kernels.ops import AttentionSpec, NormKind, QKNorm

# Of one program. On an H100, 48 heads of 128: 2.0 us for a row and 39 us for 4096 (2.6 TB/s), where
# a program a head takes 2.1 us and 121 us.
HEADS = 16


@dataclass(frozen=True, slots=True)
class RowPlacement:
    """Where the rows of a step stand, what turns them there, and how they are stored."""

    slots: Tensor  # [n] integers
    positions: Tensor  # [n] int64
    table: Tensor  # [slots, width] int32
    angles: Tensor  # [positions, 2, rotary / 2] float32, cosines then sines
    inverses: tuple[float, float] = (1.0, 1.0)  # keys and values in FP8 are multiplied with them


@triton.jit
def _rope_kernel(
    qkv,  # [n, (heads + 2 * kv_heads) * D]; queries are rotated in place
    cache,  # [2, kv_heads, blocks, PAGE, D], bytes with FP8
    table,  # [slots, width] int32
    slots,  # [n] integers
    positions,  # [n] int64
    angles,  # [positions, 2, ROTARY / 2] float32, cosines then sines
    q_norm,  # [D], with NORM; with JOINT [heads * D]
    k_norm,
    means,  # [n, 2] float32, with JOINT: of the squares of queries and of keys
    eps,
    by_key,  # with FP8: see `RowPlacement`
    by_value,
    blocks,
    width,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    D: tl.constexpr,
    ROTARY: tl.constexpr,  # leading elements of a head that are rotated
    APART: tl.constexpr,  # how far the two of a pair are; 1: neighbours, and pairs follow
    HALF: tl.constexpr,  # a power of two that holds half of them
    TAIL: tl.constexpr,  # and the others; 0: there are none
    PAGE: tl.constexpr,
    NORM: tl.constexpr,
    JOINT: tl.constexpr,  # of all heads together
    ONE: tl.constexpr,  # the norm's weights count from one
    SHARE: tl.constexpr,  # heads of one program
    FP8: tl.constexpr,
    CONVERTS: tl.constexpr,
    PDL: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * SHARE + tl.arange(0, SHARE)
    pair = tl.arange(0, HALF)[None, :]
    within = pair < ROTARY // 2
    half = pair * 2 if APART == 1 else pair
    there = (head < heads + 2 * kv_heads)[:, None]
    inside = there & within
    is_query, is_rotated = (head < heads)[:, None], (head < heads + kv_heads)[:, None]
    wait(PDL)
    start = qkv + (row * (heads + 2 * kv_heads) + head[:, None]) * D
    source = start + half
    low = tl.load(source, mask=inside, other=0.0)
    high = tl.load(source + APART, mask=inside, other=0.0)
    if TAIL:
        rest = ROTARY + tl.arange(0, TAIL)[None, :]
        unturned = there & (rest < D)
        tail = tl.load(start + rest, mask=unturned, other=0.0)
    dtype = low.dtype
    position = tl.load(positions + row)
    page = tl.load(table + tl.load(slots + row).to(tl.int64) * width + position // PAGE)
    a, b = low.to(tl.float32), high.to(tl.float32)
    if NORM:
        weights = tl.where(is_query, q_norm, k_norm)
        if TAIL:
            c = tail.to(tl.float32)
        if JOINT:
            mean = tl.load(means + row * 2 + tl.where(head < heads, 0, 1))
            # Values are not normalised: their heads only have to stay inside the keys' weights.
            within_kind = tl.where(head < heads, head, (head - heads) % kv_heads)
            weights += within_kind[:, None] * D
        else:
            squares = tl.sum(a * a, 1) + tl.sum(b * b, 1)
            if TAIL:
                squares += tl.sum(c * c, 1)
            mean = squares / D
        scale = tl.rsqrt(mean + eps)[:, None]
        weight_a = tl.load(weights + half, mask=inside, other=0.0)
        weight_b = tl.load(weights + half + APART, mask=inside, other=0.0)
        a = _gain(a * scale, weight_a, ONE).to(tl.float32)
        b = _gain(b * scale, weight_b, ONE).to(tl.float32)
        if TAIL:
            weight_c = tl.load(weights + rest, mask=unturned, other=0.0)
            tail = tl.where(is_rotated, _gain(c * scale, weight_c, ONE), tail)
    cos = tl.load(angles + position * ROTARY + pair, mask=within, other=0.0)
    sin = tl.load(angles + position * ROTARY + ROTARY // 2 + pair, mask=within, other=0.0)
    # Said how to round, so that `hopper_qkv` comes to the same bits.
    low = tl.where(is_rotated, tl.fma(a, cos, -(b * sin)).to(dtype), low)
    high = tl.where(is_rotated, tl.fma(b, cos, a * sin).to(dtype), high)
    tl.store(source, low, mask=inside & is_query)
    tl.store(source + APART, high, mask=inside & is_query)
    plane = tl.maximum(head - heads, 0).to(tl.int64)  # keys of each KV head, then values
    token = page.to(tl.int64) * PAGE + position % PAGE
    target = cache + (plane[:, None] * blocks * PAGE + token) * D
    if FP8:
        by = tl.where(is_rotated, by_key, by_value)
        low = narrowed(low.to(tl.float32) * by, FP8, CONVERTS)
        high = narrowed(high.to(tl.float32) * by, FP8, CONVERTS)
    tl.store(target + half, low, mask=inside & ~is_query)
    tl.store(target + half + APART, high, mask=inside & ~is_query)
    if TAIL:
        tl.store(start + rest, tail, mask=unturned & is_query)
        if FP8:
            tail = narrowed(tail.to(tl.float32) * by, FP8, CONVERTS)
        tl.store(target + rest, tail, mask=unturned & ~is_query)


@triton.jit
def _gain(x, weight, ONE: tl.constexpr):
    """x float32 times a norm's weight, of the weight's type."""
    if ONE:
        return (x * (weight.to(tl.float32) + 1)).to(weight.dtype)
    return x.to(weight.dtype) * weight


def rope_and_write(
    qkv: Tensor,
    cache: Tensor,
    placement: RowPlacement,
    spec: AttentionSpec,
    norm: QKNorm | None = None,
    dependent: bool = False,
) -> None:
    """Rotate the queries in place; rotate the keys and store them and the values in the cache.

    qkv: [n, (heads + 2 * kv_heads) * d] dense; cache: [2, kv_heads, blocks, page, d], of qkv's
    type or FP8.
    """
    _, kv_heads, blocks, page, d = cache.shape
    rotary = 0 if spec.rope is None else spec.rotary or d
    q_norm, k_norm = (norm.query, norm.key) if norm else (None, None)
    joint = norm is not None and norm.mean is not None
    means = norm.mean(mean_squares(qkv, spec, dependent)) if norm and norm.mean else qkv
    total = spec.heads + 2 * kv_heads
    share = min(HEADS, triton.next_power_of_2(total))
    cache, kinds = kv8.operands(cache)
    _rope_kernel[(qkv.shape[0], triton.cdiv(total, share))](
        qkv, cache, placement.table, placement.slots, placement.positions, placement.angles,
        q_norm.weight if q_norm else qkv, k_norm.weight if k_norm else qkv,
        means, q_norm.eps if q_norm else 0.0, *placement.inverses, blocks,
        placement.table.stride(0), heads=spec.heads, kv_heads=kv_heads, D=d, ROTARY=rotary,
        APART=1 if spec.interleaved else rotary // 2,
        HALF=triton.next_power_of_2(max(rotary // 2, 1)),
        TAIL=triton.next_power_of_2(d - rotary) if rotary < d else 0, PAGE=page,
        NORM=norm is not None, JOINT=joint,
        ONE=q_norm is not None and q_norm.kind is NormKind.RMS_ONE,
        SHARE=share, **kinds, num_warps=4, **launch(dependent),
    )  # fmt: skip
