"""Tokens drawn without a sort: where a row is cut is searched, then one pass adds noise.

A cut by top_k or top_p keeps the logits above some value: the largest one above which, itself
included, there are k tokens, or a share p of the mass. Floats ordered as integers are searched for
it, four parts at a time: each turn reads the row, which is in L2 by then, and no turn needs more
than three sums. In bfloat16 a nucleus lies within some 300 neighbouring values, so four or five
turns find it. One program a row: other rows never change the order of its sums, and so its token.

64 rows of 128,256 logits with top_p: 103 to 134 us, where torch sorted for 1,926 (H100).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.draw import Draws
from penstock_kernels.gpu.argmax import PIECE, best_of_row

BLOCK, WARPS = 8192, 16  # logits that a program looks at together
# Bits of a float32 that are the same in all values of a type, where floats are ordered as integers.
SPARE_BITS = {torch.float32: 0, torch.float16: 13, torch.bfloat16: 16}


@triton.jit
def _mix(x, key):
    """`noise._mix` of uint32 words."""
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ key
    x = x ^ (x >> 15)
    x = x * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def _gumbel(column, first, second):
    """`noise.gumbel`, but for the rounding of logarithms: below 1e-5. Small values of `uniform`
    make winners: there a series stands for log1p, which the device has not in hardware."""
    signed = _mix(column.to(tl.uint32) ^ first, second).to(tl.int32, bitcast=True)
    uniform = signed.to(tl.float32)
    uniform = tl.where(signed < 0, uniform + 4294967296.0, uniform)
    uniform = tl.minimum((uniform + 0.5) * 2.3283064365386963e-10, 1.0 - 5.9604644775390625e-08)
    series = 0.2 + uniform * (1 / 6)
    series = 0.25 + uniform * series
    series = 1 / 3 + uniform * series
    series = uniform * (1 + uniform * (0.5 + uniform * series))
    exponential = tl.where(uniform < 0.0625, series, -tl.log(1 - uniform))
    return -tl.log(exponential)


@triton.jit
def _ordered(value):
    """Integers in the order of floats."""
    bits = (value + 0.0).to(tl.int32, bitcast=True)  # -0 is 0
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def _float_at(place, SPARE: tl.constexpr):
    """The smallest float at a place."""
    ordered = place.to(tl.int32) << SPARE
    bits = tl.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def _read(line, start, n, BLOCK: tl.constexpr):
    column = start + tl.arange(0, BLOCK)
    return tl.load(line + column, mask=column < n, other=float("-inf")).to(tl.float32)


@triton.jit
def _largest(line, n, BLOCK: tl.constexpr):
    """NaN counts as infinity."""
    most = tl.full([BLOCK], float("-inf"), tl.float32)
    for start in range(0, n, BLOCK):
        value = _read(line, start, n, BLOCK)
        most = tl.maximum(most, tl.where(value == value, value, float("inf")))
    return tl.max(most, 0)


@triton.jit
def _above(line, n, scale, shift, a, b, c, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """Weights of the logits that are at least a, b and c: 2^(logit * scale - shift), or one each.

    A program is alone on its multiprocessor, whose instructions are what takes the time: some 14 a
    logit. Places are compared as floats, and the next logits are on their way meanwhile."""
    at_a = tl.zeros([BLOCK], tl.float32)
    at_b = tl.zeros([BLOCK], tl.float32)
    at_c = tl.zeros([BLOCK], tl.float32)
    value = _read(line, 0, n, BLOCK)
    for start in range(0, n, BLOCK):
        following = _read(line, start + BLOCK, n, BLOCK)
        weight = tl.full([BLOCK], 1.0, tl.float32)
        if not COUNT:
            weight = tl.exp2(value * scale - shift)
        at_a += tl.where(value >= a, weight, 0.0)
        at_b += tl.where(value >= b, weight, 0.0)
        at_c += tl.where(value >= c, weight, 0.0)
        value = following
    return tl.sum(at_a, 0), tl.sum(at_b, 0), tl.sum(at_c, 0)


@triton.jit
def _search(
    line, n, most, scale, low, target,
    COUNT: tl.constexpr, SPARE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The highest place at and above which the weights reach the target; `low` is one where they
    do."""
    shift = most * scale
    low = low.to(tl.int64)
    high = (_ordered(most) >> SPARE).to(tl.int64) + 1
    while high - low > 1:
        step = (high - low + 3) // 4
        a = low + step
        b = tl.minimum(a + step, high)
        c = tl.minimum(b + step, high)
        at_a, at_b, at_c = _above(
            line, n, scale, shift, _float_at(a, SPARE), _float_at(b, SPARE), _float_at(c, SPARE),
            COUNT, BLOCK,
        )  # fmt: skip
        higher = tl.where(at_c >= target, high, tl.where(at_b >= target, c, b))
        high = tl.where(at_a >= target, higher, a)
        lower = tl.where(at_c >= target, c, tl.where(at_b >= target, b, a))
        low = tl.where(at_a >= target, lower, low)
    return low.to(tl.int32)


@triton.jit
def _cut_kernel(
    logits, rows, slots, temperature, top_k, top_p, min_p, cut, n, stride, parameter_stride,
    SPARE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The smallest logit of a row that its cuts leave."""
    i = tl.program_id(0)
    slot = tl.load(slots + i)
    warmth = tl.load(temperature + slot * parameter_stride)
    k, p = tl.load(top_k + slot), tl.load(top_p + slot * parameter_stride)
    m = tl.load(min_p + slot * parameter_stride)
    least = float("-inf")
    if (warmth > 0) & ((k > 0) | (p < 1) | (m > 0)):
        line = logits + tl.load(rows + i) * stride
        most = _largest(line, n, BLOCK)
        least = most
        if most < float("inf"):
            scale = 1.4426950408889634 / warmth
            low = _ordered(tl.full([], -3.4028234663852886e38, tl.float32)) >> SPARE
            if (k > 0) & (k < n):
                low = _search(line, n, most, 0.0, low, k.to(tl.float32), True, SPARE, BLOCK)
            if p < 1:
                all_of = _float_at(low, SPARE)
                total, _, _ = _above(
                    line, n, scale, most * scale, all_of, all_of, all_of, False, BLOCK
                )
                # What lies so far below the largest is less than 1 - p of all, even together.
                depth = warmth * (tl.log(n / (1 - p)) + 1)
                low = tl.maximum(low, _ordered(most - depth) >> SPARE)
                low = _search(line, n, most, scale, low, p * total, False, SPARE, BLOCK)
            least = _float_at(low, SPARE)
            if m > 0:
                least = tl.maximum(least, most + warmth * tl.log(m))
    tl.store(cut + i, least)


@triton.jit(do_not_specialize=["cuts"])
def _draw_kernel(
    logits, rows, slots, temperature, keys, generated, cut, best, where, n, stride,
    parameter_stride, pieces, cuts, PIECE: tl.constexpr,
):  # fmt: skip
    """The first of the largest scores of a piece of a row."""
    i, piece = tl.program_id(0), tl.program_id(1)
    slot = tl.load(slots + i)
    column = piece * PIECE + tl.arange(0, PIECE)
    value = tl.load(
        logits + tl.load(rows + i) * stride + column, mask=column < n, other=float("-inf")
    )
    score = value.to(tl.float32)
    score = tl.where(score == score, score, float("inf"))  # NaN, as in `argmax`
    warmth = tl.load(temperature + slot * parameter_stride)
    if warmth > 0:
        step = tl.load(generated + slot).to(tl.uint32) * 0x9E3779B9
        first = tl.load(keys + slot * 2).to(tl.uint32, bitcast=True)
        second = tl.load(keys + slot * 2 + 1).to(tl.uint32, bitcast=True)
        noise = _gumbel(column, _mix(first ^ step, 0), _mix(second ^ step, 0))
        drawn = score / warmth + noise
        if cuts != 0:
            drawn = tl.where(score >= tl.load(cut + i), drawn, float("-inf"))
        score = drawn
    most, index = tl.max(score, 0, return_indices=True)
    tl.store(best + i * pieces + piece, most)
    tl.store(where + i * pieces + piece, piece * PIECE + index)


def draw(logits: Tensor, draws: Draws) -> Tensor:
    """See `penstock_kernels.draw.draw`; noise differs by less than 1e-5."""
    n, count = logits.shape[1], len(draws.slots)
    pieces = triton.cdiv(n, PIECE)
    best = torch.empty(count, pieces, dtype=torch.float32, device=logits.device)
    where = torch.empty(count, pieces, dtype=torch.int32, device=logits.device)
    cut = best  # not read unless there are cuts
    stride, parameter_stride = logits.stride(0), draws.temperature.stride(0)
    if draws.cuts:
        cut = torch.empty(count, dtype=torch.float32, device=logits.device)
        _cut_kernel[(count,)](
            logits, draws.rows, draws.slots, draws.temperature, draws.top_k, draws.top_p,
            draws.min_p, cut, n, stride, parameter_stride,
            SPARE=SPARE_BITS[logits.dtype], BLOCK=BLOCK, num_warps=WARPS,
        )  # fmt: skip
    _draw_kernel[(count, pieces)](
        logits, draws.rows, draws.slots, draws.temperature, draws.keys, draws.generated, cut,
        best, where, n, stride, parameter_stride, pieces, int(draws.cuts), PIECE=PIECE, num_warps=4,
    )  # fmt: skip
    token = torch.empty(count, dtype=torch.int64, device=logits.device)
    best_of_row(best, where, token)
    return token
