"""What a product of one row is made of, on Hopper, with weights of 8 bits or 4-bit codes.

A unit is 16 rows of the weight for each four warps: those behind one another, or where two halves
are gated those of gate and of up. Each warp of four multiplies a piece of its own of 128 columns
with the row's digits (`hopper_digits`); of a product's eight columns two are wanted, the digits of
the warp's own piece.
"""

from __future__ import annotations

import functools

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import mma_v2


@functools.cache
def byte_layout(width: int, warps: int) -> gl.DistributedLinearLayout:
    """What the threads read of 64 columns: 32 bytes of codes or 64 of whole numbers a row."""
    own = width // 4
    return gl.DistributedLinearLayout(
        reg_bases=[*([0, 1 << bit] for bit in range(own.bit_length() - 1)), [8, 0]],
        lane_bases=[[0, own], [0, 2 * own], [1, 0], [2, 0], [4, 0]],
        warp_bases=[[16 << bit, 0] for bit in range(warps.bit_length() - 1)],
        block_bases=[],
        shape=[16 * warps, width],
    )


@gluon.jit
def _none():
    """What tuples begin as."""
    return ()


@gluon.jit
def rows_of(unit, member, MEMBERS: gl.constexpr, N: gl.constexpr, GATED: gl.constexpr):
    """The weight's row of each of the rows of a unit; sixteen for a warp."""
    OWN: gl.constexpr = 16 if GATED else MEMBERS // 4
    HALF: gl.constexpr = N // 2 if GATED else 16
    return unit * OWN + member // 64 * HALF + member % 16


@gluon.jit
def table_words(words, CODES: gl.constexpr, BYTES: gl.constexpr):
    """Those of `words_of`, to be looked up in."""
    table = _none()
    if CODES:
        lane = gl.arange(0, BYTES.shape[0], gl.SliceLayout(1, BYTES)) % 8
        for i in gl.static_range(3):
            table = table + (gl.expand_dims(gl.load(words + (i * 8 + lane)), 1),)
    return table


@gluon.jit
def _numbers(data, target: gl.constexpr):
    """A block of whole numbers as the left side of a product."""
    MEMBERS: gl.constexpr = data.shape[0]
    parts = data.reshape([MEMBERS, 4, 4, 4]).permute((0, 2, 1, 3)).reshape([MEMBERS, 64])
    return gl.convert_layout(parts, target, assert_trivial=True)


@gluon.jit
def _digit(first, second, target: gl.constexpr):
    """The same of a digit of numbers that were looked up; first: of the first four codes of
    eight."""
    MEMBERS: gl.constexpr = first.shape[0]
    parts = gl.join(first, second).reshape([MEMBERS, 4, 2, 4, 2]).permute((0, 2, 4, 1, 3))
    return gl.convert_layout(parts.reshape([MEMBERS, 64]), target, assert_trivial=True)


@gluon.jit
def _looked_up_sums(codes, table, plus, less, zeros, LOOKUP: gl.constexpr):
    """Products of a block's numbers with digits and those of the negative row, as int32."""
    target: gl.constexpr = gl.DotOperandLayout(0, zeros.type.layout, 4)
    ones, v, w = table
    a, b, c, d = gl.inline_asm_elementwise(
        LOOKUP, "=r,=r,=r,=r" + ",r" * 13, [codes, ones, v, w],
        dtype=(gl.int8, gl.int8, gl.int8, gl.int8), is_pure=True, pack=4,
    )  # fmt: skip
    sums = mma_v2(_digit(a, b, target), plus, zeros)
    return mma_v2(_digit(c, d, target), less, sums)


@gluon.jit
def _widened_sums(held, halves, j, layout: gl.constexpr):
    """Products of a step's numbers in FP8 with the row in halves."""
    operand: gl.constexpr = gl.DotOperandLayout(0, layout, 2)
    inputs: gl.constexpr = gl.DotOperandLayout(1, layout, 2)
    MEMBERS: gl.constexpr = held[0][0].shape[0]
    blocks = halves._reinterpret(gl.float16, [halves.shape[0] // 8, 8, 64], halves.layout)
    sums = gl.zeros([MEMBERS, 8], gl.float32, layout)
    for b in gl.static_range(2):
        # Four threads, four products, and the 2 x 2 numbers that a thread has in one.
        wide = held[b][0].to(gl.float16).reshape([MEMBERS, 4, 4, 2, 2]).permute((0, 2, 3, 1, 4))
        wide = gl.convert_layout(wide.reshape([MEMBERS, 64]), operand, assert_trivial=True)
        x = blocks.index(2 * j + b).permute((1, 0)).load(inputs)
        sums = mma_v2(wide, x, sums)
    return sums


@gluon.jit
def _digits_of_step(digits, j):
    """[8, 128], of step j."""
    STEPS: gl.constexpr = digits.shape[0] // 8
    return digits._reinterpret(gl.int8, [STEPS, 8, 128], digits.layout).index(j)


@gluon.jit
def _of_block(digits, b: gl.constexpr, layout: gl.constexpr):
    """Those of block b of 64 columns, as the right side of a product."""
    inputs: gl.constexpr = gl.DotOperandLayout(1, layout, 4)
    return digits.slice(64 * b, 64, 1).permute((1, 0)).load(inputs)


@gluon.jit
def _scaled_sums(held, digits, negatives, table, j, LOOKUP: gl.constexpr, layout: gl.constexpr):
    """Products of a step's codes, each block's times its scales."""
    MEMBERS: gl.constexpr = held[0][0].shape[0]
    zeros = gl.zeros([MEMBERS, 8], gl.int32, layout)
    total = gl.zeros([MEMBERS, 8], gl.float32, layout)
    plus, less = _digits_of_step(digits, j), _digits_of_step(negatives, j)
    for b in gl.static_range(2):
        codes, scale = held[b]
        x, minus = _of_block(plus, b, layout), _of_block(less, b, layout)
        sums = _looked_up_sums(codes, table, x, minus, zeros, LOOKUP)
        total = total + sums.to(gl.float32) * gl.expand_dims(scale.to(gl.float32), 1)
    return total


@gluon.jit
def _whole_sums(held, digits, j, layout: gl.constexpr):
    """Products of a step's whole numbers."""
    MEMBERS: gl.constexpr = held[0][0].shape[0]
    operand: gl.constexpr = gl.DotOperandLayout(0, layout, 4)
    sums = gl.zeros([MEMBERS, 8], gl.int32, layout)
    plus = _digits_of_step(digits, j)
    for b in gl.static_range(2):
        sums = mma_v2(_numbers(held[b][0], operand), _of_block(plus, b, layout), sums)
    return sums.to(gl.float32)


@gluon.jit
def add_step(acc, held, row, table, j, LOOKUP: gl.constexpr):
    """acc plus the products of step j. held: of its two blocks of 64 columns bytes and scales;
    LOOKUP: of codes, else empty."""
    layout: gl.constexpr = acc.type.layout
    numbers, negatives, factors = row
    STEPS: gl.constexpr = factors.shape[0] // 8
    factor = factors._reinterpret(gl.float32, [STEPS, 8], factors.layout).index(j)
    factor = gl.expand_dims(factor.load(gl.SliceLayout(0, layout)), 0)
    if numbers.dtype == gl.float16:
        sums = _widened_sums(held, numbers, j, layout)
    elif LOOKUP != "":
        sums = _scaled_sums(held, numbers, negatives, table, j, LOOKUP, layout)
    else:
        sums = _whole_sums(held, numbers, j, layout)
    return acc + sums * factor


@gluon.jit
def _whole(acc):
    """The sums of a program's rows, of each warp those with its own piece: [1 or 2, 16]."""
    layout: gl.constexpr = acc.type.layout
    MEMBERS: gl.constexpr = acc.shape[0]
    warp = gl.expand_dims(gl.arange(0, MEMBERS, gl.SliceLayout(1, layout)) // 16 % 4, 1)
    piece = gl.expand_dims(gl.arange(0, 8, gl.SliceLayout(0, layout)) // 2, 0)
    wanted = gl.sum(gl.where(piece == warp, acc, 0.0), 1)
    return gl.sum(wanted.reshape([MEMBERS // 64, 4, 16]), 1)


@gluon.jit
def store_row(
    acc, unit, out, scale, bias, N: gl.constexpr, GATED: gl.constexpr, BIASED: gl.constexpr,
    ADDS: gl.constexpr, CODES: gl.constexpr, UNIT: gl.constexpr,
):  # fmt: skip
    """A unit's outputs from its sums."""
    MEMBERS: gl.constexpr = acc.shape[0]
    dtype: gl.constexpr = out.dtype.element_ty
    flat: gl.constexpr = gl.BlockedLayout([1, 1], [2, 16], [1, MEMBERS // 16], [1, 0])
    HALVES: gl.constexpr = MEMBERS // 64
    sums = gl.convert_layout(_whole(acc), flat)
    half = gl.expand_dims(gl.arange(0, HALVES, gl.SliceLayout(1, flat)), 1)
    member = gl.expand_dims(gl.arange(0, 16, gl.SliceLayout(0, flat)), 0)
    place = rows_of(unit, half * 64 + member, MEMBERS, N, GATED)
    sums = sums * UNIT if CODES else sums * gl.load(scale + place)
    if BIASED:
        sums = sums + gl.load(bias + place).to(gl.float32)
    if GATED:
        rounded = sums.to(dtype).to(gl.float32)
        gate = gl.sum(gl.where(half == 0, rounded, 0.0), 0)
        up = gl.sum(gl.where(half == 1, rounded, 0.0), 0)
        gate = (gate / (1 + gl.exp(-gate))).to(dtype).to(gl.float32)
        own = unit * 16 + gl.arange(0, 16, gl.SliceLayout(0, flat))
        gl.store(out + own, (gate * up).to(dtype))
    else:
        if ADDS:
            sums = sums.to(dtype).to(gl.float32) + gl.load(out + place).to(gl.float32)
        gl.store(out + place, sums.to(dtype))
