"""Where a row of logits is cut by top_k, top_p and min_p, without a sort.

A cut by top_k or top_p keeps the logits above some value: the largest one at and above which there
are k tokens, or a share p of the mass. Bits of floats, ordered as the floats are (places), are
searched for it. Each turn is a launch: some sixteen programs a row hold a piece of it each and add
up what lies at and above seven places; the programs of the next turn read those sums and go on
between two of the places. Places of bfloat16 are found in six turns at most, and where one is found
earlier the programs of the turns left end at once. The pieces of a row are the same whatever other
rows there are, and so are its sums and its token.

A draw from 128,256 logits with top_p takes 33 us where they are flat and 26 where few stand out, of
64 rows 121 and 68 (H100). One program a row took 100 and 70, and 133 and 103.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.draw import SamplingBatch
from penstock_kernels.gpu.launch.dependent import launch, wait
from penstock_kernels.gpu.sampling.mask import hide, tensors

PIECE, WARPS = 8192, 4  # logits of a program
PARTS = 8  # of an interval, that a turn tells apart
# Bits of a float32 that are the same in all values of a type, where floats are ordered as integers.
SPARE_BITS = {torch.float32: 0, torch.float16: 13, torch.bfloat16: 16}


@triton.jit
def _ordered_bits(value, SPARE: tl.constexpr):
    """Integers in the order of floats; two of float32 can be 2^32 apart."""
    bits = (value + 0.0).to(tl.int32, bitcast=True)  # -0 is 0
    place = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits) >> SPARE
    return place.to(tl.int64) if SPARE == 0 else place


@triton.jit
def _from_ordered_bits(place, SPARE: tl.constexpr):
    """The smallest float at a place."""
    ordered = place.to(tl.int32) << SPARE
    bits = tl.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def _read(
    logits, rows, i, piece, n, stride, bits, on, slot, words, PIECE: tl.constexpr,
    MASK: tl.constexpr,
):  # fmt: skip
    """What is allowed of a piece of a row."""
    column = piece * PIECE + tl.arange(0, PIECE)
    line = logits + tl.load(rows + i) * stride
    value = tl.load(line + column, mask=column < n, other=float("-inf")).to(tl.float32)
    if MASK:
        value = hide(value, bits, on, slot, column, n, words)
    return value


@triton.jit(do_not_specialize_on_alignment=["rows"])
def _begin_kernel(
    logits, rows, slots, temperatures, largest, floor, n, stride, parameter_stride, pieces, bits,
    on, words, SPARE: tl.constexpr, PIECE: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """The largest logit of a piece of a row, NaN as infinity; and the place of the least."""
    i, piece = tl.program_id(0), tl.program_id(1)
    if piece == 0:
        tl.store(floor + i, _ordered_bits(tl.full([], -3.4028234663852886e38, tl.float32), SPARE))
    slot = tl.load(slots + i)
    if tl.load(temperatures + slot * parameter_stride) > 0:
        value = _read(logits, rows, i, piece, n, stride, bits, on, slot, words, PIECE, MASK)
        value = tl.where(value == value, value, float("inf"))
        tl.store(largest + i * pieces + piece, tl.max(value, 0))


@triton.jit
def _largest_of(i, largest, pieces, PIECES: tl.constexpr):
    piece = tl.arange(0, PIECES)
    value = tl.load(largest + i * pieces + piece, mask=piece < pieces, other=float("-inf"))
    return tl.max(value, 0)


@triton.jit
def _first_interval(most, floor, temperature, for_top_k, k, p, n, SPARE: tl.constexpr):
    """The weights at and above its beginning reach the target, those at its end do not; an empty
    one where there is nothing to search."""
    low, high = floor, floor
    searched = ((for_top_k != 0) & (k > 0) & (k < n)) | ((for_top_k == 0) & (p < 1))
    if (temperature > 0) & searched & (most < float("inf")):
        high = _ordered_bits(most, SPARE) + 1
        if for_top_k == 0:
            # What lies so far below the largest is less than 1 - p of all, even together.
            depth = temperature * (tl.log(n / (1 - p)) + 1)
            low = tl.maximum(low, _ordered_bits(most - depth, SPARE))
    return low, high


@triton.jit
def _between(low, high, turn, part, SPARE: tl.constexpr, PARTS: tl.constexpr):
    """Where a part of an interval begins: they are equal, but in the first turn of a long search
    short at its end, where most cuts are."""
    step = (high - low + PARTS - 1) // PARTS
    equal = tl.minimum(low + part * step, high)
    back = tl.where(part < 3, 16384 * (4 - part), 64 << (2 * (7 - tl.minimum(part, 7))))
    short = tl.maximum(high - (back.to(low.dtype) << (16 - SPARE)), low)
    short = tl.where(part == 0, low, tl.where(part == PARTS, high, short))
    return tl.where((turn == 0) & (high - low > (4096 << (16 - SPARE))), short, equal)


@triton.jit
def _narrowed(
    i, bounds, sums, turn, for_top_k, k, p, count, pieces, SPARE: tl.constexpr,
    PIECES: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """The part of a turn's interval to search on in."""
    row = turn * count + i
    low, high = tl.load(bounds + row * 2), tl.load(bounds + row * 2 + 1)
    if high - low > 1:
        piece, part = tl.arange(0, PIECES)[:, None], tl.arange(0, PARTS)
        places = sums + (row * pieces + piece) * PARTS + part[None, :]
        at = tl.sum(tl.load(places, mask=piece < pieces, other=0.0), 0)
        target = k.to(tl.float32)
        if for_top_k == 0:
            target = p * tl.sum(tl.where(part == 0, at, 0.0), 0)
        reached = tl.sum(((part > 0) & (at >= target)).to(tl.int32), 0)
        begin = _between(low, high, turn, reached, SPARE, PARTS)
        high = _between(low, high, turn, reached + 1, SPARE, PARTS)
        low = begin
    return low, high


@triton.jit
def _from(value, weight, low, high, turn, part, SPARE: tl.constexpr, PARTS: tl.constexpr):
    """What a thread's logits weigh from a place on. Multiplied by one or zero it is compared and
    added in two instructions, selected in three."""
    least = _from_ordered_bits(_between(low, high, turn, part, SPARE, PARTS), SPARE)
    return tl.sum(tl.where(value >= least, 1.0, 0.0) * weight, 1)


@triton.jit(
    do_not_specialize=["count", "turn", "for_top_k"], do_not_specialize_on_alignment=["rows"]
)
def _turn_kernel(
    logits, rows, slots, temperatures, top_k, top_p, largest, floor, bounds, sums, n, stride,
    parameter_stride, count, pieces, turn, for_top_k, bits, on, words,
    SPARE: tl.constexpr, PIECE: tl.constexpr, PIECES: tl.constexpr, PARTS: tl.constexpr,
    MASK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """What a piece of a row weighs: first all that is left of it, then what lies at and above the
    places that part the interval. Weights are one, or 2^(logit * scale - shift)."""
    wait(PDL)
    i, piece = tl.program_id(0), tl.program_id(1)
    slot = tl.load(slots + i)
    temperature = tl.load(temperatures + slot * parameter_stride)
    k, p = tl.load(top_k + slot), tl.load(top_p + slot * parameter_stride)
    lowest, most = tl.load(floor + i), _largest_of(i, largest, pieces, PIECES)
    if turn == 0:
        low, high = _first_interval(most, lowest, temperature, for_top_k, k, p, n, SPARE)
    else:
        low, high = _narrowed(
            i, bounds, sums, turn - 1, for_top_k, k, p, count, pieces, SPARE, PIECES, PARTS
        )
    row = turn * count + i
    if piece == 0:
        tl.store(bounds + row * 2, low)
        tl.store(bounds + row * 2 + 1, high)
    if high - low > 1:
        value = _read(logits, rows, i, piece, n, stride, bits, on, slot, words, PIECE, MASK)
        value = tl.reshape(value, [PIECE // 8, 8])  # eight side by side are a thread's
        scale = 1.4426950408889634 / temperature
        weight = tl.exp2(value * scale - most * scale)
        if for_top_k != 0:
            weight = tl.full([PIECE // 8, 8], 1.0, tl.float32)
        left = tl.where(value >= _from_ordered_bits(lowest, SPARE), 1.0, 0.0)
        at_left = tl.sum(left * weight, 1)
        at_a = _from(value, weight, low, high, turn, 1, SPARE, PARTS)
        at_b = _from(value, weight, low, high, turn, 2, SPARE, PARTS)
        at_c = _from(value, weight, low, high, turn, 3, SPARE, PARTS)
        at_d = _from(value, weight, low, high, turn, 4, SPARE, PARTS)
        at_e = _from(value, weight, low, high, turn, 5, SPARE, PARTS)
        at_f = _from(value, weight, low, high, turn, 6, SPARE, PARTS)
        at_g = _from(value, weight, low, high, turn, 7, SPARE, PARTS)
        # One reduction of eight columns; each join adds a bit to the left of a column's number.
        even = tl.join(tl.join(at_left, at_d), tl.join(at_b, at_f))
        odd = tl.join(tl.join(at_a, at_e), tl.join(at_c, at_g))
        at = tl.reshape(tl.sum(tl.join(even, odd), 0), [PARTS])
        tl.store(sums + (row * pieces + piece) * PARTS + tl.arange(0, PARTS), at)


@triton.jit(do_not_specialize=["count", "turns", "for_top_k"])
def _end_kernel(
    slots, temperatures, top_k, top_p, min_p, largest, floor, bounds, sums, cut, parameter_stride,
    count, pieces, turns, for_top_k,
    SPARE: tl.constexpr, PIECES: tl.constexpr, PARTS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """The place that was found in so many turns, and the smallest logit that is left of a row."""
    wait(PDL)
    i = tl.program_id(0)
    slot = tl.load(slots + i)
    temperature = tl.load(temperatures + slot * parameter_stride)
    low = tl.load(floor + i)
    if turns > 0:
        k, p = tl.load(top_k + slot), tl.load(top_p + slot * parameter_stride)
        low, _ = _narrowed(
            i, bounds, sums, turns - 1, for_top_k, k, p, count, pieces, SPARE, PIECES, PARTS
        )
        tl.store(floor + i, low)
    least = float("-inf")
    if temperature > 0:
        least = _largest_of(i, largest, pieces, PIECES)
        if least < float("inf"):
            share = tl.load(min_p + slot * parameter_stride)
            likely = tl.where(share > 0, least + temperature * tl.log(share), float("-inf"))
            least = tl.maximum(_from_ordered_bits(low, SPARE), likely)
    tl.store(cut + i, least)


def turns_of(dtype: torch.dtype) -> int:
    """Turns in which any place of a type is found: each leaves one of PARTS parts."""
    return -(-(32 - SPARE_BITS[dtype]) // (PARTS.bit_length() - 1))


def filter_threshold(logits: Tensor, draws: SamplingBatch, dependent: bool = False) -> Tensor:
    """The smallest logit that the cuts leave of each row that is not greedy: [n] float32."""
    n, count, device = logits.shape[1], len(draws.slots), logits.device
    pieces, spare = triton.cdiv(n, PIECE), SPARE_BITS[logits.dtype]
    turns = turns_of(logits.dtype)
    places = torch.int32 if spare else torch.int64
    largest = torch.empty(count, pieces, dtype=torch.float32, device=device)
    floor = torch.empty(count, dtype=places, device=device)
    least = torch.empty(count, dtype=torch.float32, device=device)
    bounds = torch.empty(turns, count, 2, dtype=places, device=device)
    sums = torch.empty(turns, count, pieces, PARTS, dtype=torch.float32, device=device)
    stride, parameter_stride = logits.stride(0), draws.temperature.stride(0)
    masked, mask = draws.mask is not None, tensors(draws)
    sizes = {"PIECES": triton.next_power_of_2(pieces), "PARTS": PARTS} | launch(dependent)
    _begin_kernel[(count, pieces)](
        logits, draws.rows, draws.slots, draws.temperature, largest, floor, n, stride,
        parameter_stride, pieces, *mask, SPARE=spare, PIECE=PIECE, MASK=masked, num_warps=WARPS,
    )  # fmt: skip
    searches = [
        for_top_k for for_top_k, wanted in ((1, draws.any_top_k), (0, draws.any_top_p)) if wanted
    ]
    for for_top_k in searches or [0]:
        for turn in range(turns if searches else 0):
            _turn_kernel[(count, pieces)](
                logits, draws.rows, draws.slots, draws.temperature, draws.top_k, draws.top_p,
                largest, floor, bounds, sums, n, stride, parameter_stride, count, pieces, turn,
                for_top_k, *mask, SPARE=spare, PIECE=PIECE, MASK=masked, num_warps=WARPS, **sizes,
            )  # fmt: skip
        _end_kernel[(count,)](
            draws.slots, draws.temperature, draws.top_k, draws.top_p, draws.min_p, largest, floor,
            bounds, sums, least, parameter_stride, count, pieces, turns if searches else 0,
            for_top_k, SPARE=spare, num_warps=1, **sizes,
        )  # fmt: skip
    return least
