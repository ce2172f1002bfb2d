"""Tokens drawn without a sort: a pass over the logits adds noise to what the cuts leave."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.draw import SamplingBatch
from penstock_kernels.gpu.launch.dependent import launch, wait
from penstock_kernels.gpu.sampling.argmax import PIECE, best_of_row
from penstock_kernels.gpu.sampling.mask import hide, tensors
from penstock_kernels.gpu.sampling.threshold import filter_threshold


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


@triton.jit(do_not_specialize_on_alignment=["rows"])
def _draw_kernel(
    logits, rows, slots, temperatures, keys, generated, least, best, where, n, stride,
    parameter_stride, pieces, bits, on, words, PIECE: tl.constexpr, CUTS: tl.constexpr,
    MASK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """The first of the largest scores of a piece of a row."""
    wait(PDL)
    i, piece = tl.program_id(0), tl.program_id(1)
    slot = tl.load(slots + i)
    column = piece * PIECE + tl.arange(0, PIECE)
    value = tl.load(
        logits + tl.load(rows + i) * stride + column, mask=column < n, other=float("-inf")
    )
    score = value.to(tl.float32)
    if MASK:
        score = hide(score, bits, on, slot, column, n, words)
    score = tl.where(score == score, score, float("inf"))  # NaN, as in `argmax`
    temperature = tl.load(temperatures + slot * parameter_stride)
    if temperature > 0:
        kept, left = float("-inf"), True
        if CUTS:
            kept = tl.load(least + i)
            left = tl.max(score, 0) >= kept  # of most pieces nothing is
        if left:
            step = tl.load(generated + slot).to(tl.uint32) * 0x9E3779B9
            first = tl.load(keys + slot * 2).to(tl.uint32, bitcast=True)
            second = tl.load(keys + slot * 2 + 1).to(tl.uint32, bitcast=True)
            noise = _gumbel(column, _mix(first ^ step, 0), _mix(second ^ step, 0))
            drawn = score / temperature + noise
            if CUTS:
                drawn = tl.where(score >= kept, drawn, float("-inf"))
            score = drawn
        else:
            score = tl.full([PIECE], float("-inf"), tl.float32)
    most, index = tl.max(score, 0, return_indices=True)
    tl.store(best + i * pieces + piece, most)
    tl.store(where + i * pieces + piece, piece * PIECE + index)


def draw(logits: Tensor, draws: SamplingBatch, dependent: bool = False) -> Tensor:
    """See `penstock_kernels.draw.draw`; noise differs by less than 1e-5."""
    n, count = logits.shape[1], len(draws.slots)
    pieces = triton.cdiv(n, PIECE)
    best = torch.empty(count, pieces, dtype=torch.float32, device=logits.device)
    where = torch.empty(count, pieces, dtype=torch.int32, device=logits.device)
    least = (
        filter_threshold(logits, draws, dependent) if draws.any_filter else best
    )  # not read unless there are cuts
    stride, parameter_stride = logits.stride(0), draws.temperature.stride(0)
    _draw_kernel[(count, pieces)](
        logits, draws.rows, draws.slots, draws.temperature, draws.keys, draws.generated, least,
        best, where, n, stride, parameter_stride, pieces, *tensors(draws), PIECE=PIECE,
        CUTS=draws.any_filter, MASK=draws.mask is not None, num_warps=4,
        **launch(dependent and draws.any_filter),
    )  # fmt: skip
    token = torch.empty(count, dtype=torch.int64, device=logits.device)
    best_of_row(best, where, token, dependent)
    return token
