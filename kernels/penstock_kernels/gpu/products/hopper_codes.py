"""4-bit codes on their way to Hopper's tensor cores: from shared memory to registers, looked up.

A register of eight codes becomes four of two numbers each in half precision. `prmt` chooses four
bytes of eight by the low bits of four nibbles, which are the codes as they lie in memory: so the
upper and the lower bytes of four numbers are looked up by three instructions each, two of which
take a half of the table, and the third the right one of both by the codes' highest bits.

Columns stand in the order of `penstock_kernels.fp8.interleave`, so that eight neighbouring codes
are a thread's share of two products.
"""

from __future__ import annotations

import functools

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import mma_v2
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from penstock_kernels.lut import TABLES

_OF_BOTH = """
prmt.b32 first, {0}0, {0}1, codes;
prmt.b32 second, {0}2, {0}3, codes;
prmt.b32 {1}, first, second, half;
"""
_OF_EITHER = (
    "prmt.b32 {1}, {0}0, {0}1, codes;"  # where both halves of the table have the same bytes
)
_PAIRS = """
prmt.b32 ${}, lower, upper, {};
prmt.b32 ${}, lower, upper, {};
"""
# Which numbers of a word's first four codes, and of its second four, go to which result.
_NEIGHBOURS = ((0, "0x5140", 1, "0x7362"), (2, "0x5140", 3, "0x7362"))
_APART = ((0, "0x6240", 2, "0x7351"), (1, "0x6240", 3, "0x7351"))


@functools.cache
def lookup(code: str, dtype: torch.dtype, apart: bool = False) -> str:
    """PTX of a table: $4 are eight codes, $0 to $3 the numbers of two each: of neighbours, or
    `apart`: $0 and $1 of the low codes of bytes, $2 and $3 of the high ones."""
    first, second = _APART if apart else _NEIGHBOURS
    table = torch.tensor(TABLES[code]).to(dtype).view(torch.int16).tolist()
    parts = {
        name: [sum((table[4 * i + j] >> shift & 255) << 8 * j for j in range(4)) for i in range(4)]
        for name, shift in (("low", 0), ("high", 8))
    }
    find = "".join(
        (_OF_EITHER if parts[name][:2] == parts[name][2:] else _OF_BOTH).format(name, target)
        for name, target in (("low", "lower"), ("high", "upper"))
    )
    words = {f"{name}{i}": word for name, four in parts.items() for i, word in enumerate(four)}
    lines = [
        "{",
        ".reg .b32 codes, half, first, second, lower, upper;",
        f".reg .b32 {', '.join(words)};",
        *(f"mov.b32 {name}, {word:#010x};" for name, word in words.items()),
        "and.b32 codes, $4, 0x77777777;",  # the fourth bit means something else to prmt
        "shr.b32 half, $4, 1;",
        "and.b32 half, half, 0x44444444;",
        "or.b32 half, half, 0x32103210;",
        find,
        _PAIRS.format(*first),
        "shr.b32 codes, codes, 16;",
        "shr.b32 half, half, 16;",
        find,
        _PAIRS.format(*second),
        "}",
    ]
    return "\n".join(lines)


@functools.cache
def scale_layout(blocks: int) -> gl.DistributedLinearLayout:
    """Scales [64, blocks] as the threads need them that hold the rows' numbers."""
    return gl.DistributedLinearLayout(
        reg_bases=[[8, 0], *([0, 1 << bit] for bit in range(blocks.bit_length() - 1))],
        lane_bases=[[0, 0], [0, 0], [1, 0], [2, 0], [4, 0]],
        warp_bases=[[16, 0], [32, 0]],
        block_bases=[],
        shape=[64, blocks],
    )


@gluon.jit
def load_scales(scales, row, depth, SCALES: gl.constexpr):
    """Of 64 rows from `row` on and of 128 columns: [64, blocks]. scales: and the rows in all."""
    scale, total = scales
    BLOCKS: gl.constexpr = SCALES.shape[1]
    rows = row + gl.arange(0, 64, gl.SliceLayout(1, SCALES))
    blocks = depth * BLOCKS + gl.arange(0, BLOCKS, gl.SliceLayout(0, SCALES))
    place = gl.expand_dims(blocks, 0) * total + gl.expand_dims(rows, 1)
    return gl.load(scale + place)


@gluon.jit
def looked_up(tile, scales, target: gl.constexpr, dtype: gl.constexpr, LOOKUP: gl.constexpr):
    """A tile of bytes [64, 64] in shared memory, times the scales of its blocks [64, blocks], as
    the left side of a product."""
    ROWS: gl.constexpr = tile.shape[0]
    BYTES: gl.constexpr = tile.shape[1]
    BLOCKS: gl.constexpr = scales.shape[1]
    source: gl.constexpr = gl.DistributedLinearLayout(
        reg_bases=[[0, 1], [0, 2], [0, 4], [8, 0], [0, 32]],
        lane_bases=[[0, 8], [0, 16], [1, 0], [2, 0], [4, 0]],
        warp_bases=[[16, 0], [32, 0]],
        block_bases=[],
        shape=[ROWS, BYTES],
    )
    codes = tile.load(source)
    if dtype == gl.bfloat16:
        even, odd = gl.inline_asm_elementwise(
            LOOKUP, "=r,=r,=r,=r,r", [codes], dtype=(gl.bfloat16, gl.bfloat16), is_pure=True,
            pack=4,
        )  # fmt: skip
    else:
        even, odd = gl.inline_asm_elementwise(
            LOOKUP, "=r,=r,=r,=r,r", [codes], dtype=(gl.float16, gl.float16), is_pure=True, pack=4
        )
    # Of each 64 columns: 4 threads, 2 words, the 2 x 2 numbers of a product, and 2 products.
    parts = gl.join(even, odd).reshape([ROWS, BYTES // 32, 4, 2, 2, 2, 2])
    parts = parts.permute((0, 1, 3, 6, 4, 2, 5)).reshape([ROWS, BLOCKS, 2 * BYTES // BLOCKS])
    across: gl.constexpr = gl.SliceLayout(2, parts.type.layout)
    by = gl.convert_layout(scales.to(gl.float32).to(dtype), across, assert_trivial=True)
    parts = parts * gl.expand_dims(by, 2)
    return gl.convert_layout(parts.reshape([ROWS, 2 * BYTES]), target, assert_trivial=True)


@gluon.jit
def accumulate_codes(
    ring, scales, columns, acc, acc_up, place, done,
    STAGES: gl.constexpr, GATED: gl.constexpr, FEW: gl.constexpr, LOOKUP: gl.constexpr,
    SCALES: gl.constexpr,
):  # fmt: skip
    """`hopper_linear.accumulate_widened` of codes. Scales come from memory, one stage ahead.

    FEW: by the smaller products (mma.sync), beside which a warp looks the next numbers up.
    """
    w_tiles, x_tiles, full, empty = ring
    tile, first, depths = place
    dtype: gl.constexpr = x_tiles.dtype
    operand: gl.constexpr = gl.DotOperandLayout(0, acc.type.layout, 2)
    row = tile * 64
    shift = tile // 2  # as the loader begins
    next_gate = load_scales(scales, row, first + shift % depths, SCALES)
    next_up = next_gate
    if GATED:
        next_up = load_scales(scales, columns + row, first + shift % depths, SCALES)
    for j in range(depths):
        by, by_up = next_gate, next_up
        depth = first + (j + 1 + shift) % depths
        next_gate = load_scales(scales, row, depth, SCALES)
        if GATED:
            next_up = load_scales(scales, columns + row, depth, SCALES)
        stage = done % STAGES
        mbarrier.wait(full.index(stage), done // STAGES & 1)
        x = x_tiles.index(stage).permute((1, 0))
        if FEW:
            inputs = x.load(gl.DotOperandLayout(1, acc.type.layout, 2))
            if GATED:
                gate = looked_up(w_tiles.index(2 * stage), by, operand, dtype, LOOKUP)
                acc = mma_v2(gate, inputs, acc)
                up = looked_up(w_tiles.index(2 * stage + 1), by_up, operand, dtype, LOOKUP)
                acc_up = mma_v2(up, inputs, acc_up)
            else:
                weight = looked_up(w_tiles.index(stage), by, operand, dtype, LOOKUP)
                acc = mma_v2(weight, inputs, acc)
        elif GATED:
            gate = looked_up(w_tiles.index(2 * stage), by, operand, dtype, LOOKUP)
            acc = warpgroup_mma(gate, x, acc, use_acc=True, is_async=True)
            up = looked_up(w_tiles.index(2 * stage + 1), by_up, operand, dtype, LOOKUP)
            acc_up = warpgroup_mma(up, x, acc_up, use_acc=True, is_async=True)
            acc, acc_up, gate, up = warpgroup_mma_wait(0, deps=[acc, acc_up, gate, up])
        else:
            weight = looked_up(w_tiles.index(stage), by, operand, dtype, LOOKUP)
            acc = warpgroup_mma(weight, x, acc, use_acc=True, is_async=True)
            acc, weight = warpgroup_mma_wait(0, deps=[acc, weight])
        mbarrier.arrive(empty.index(stage))
        done += 1
    return acc, acc_up, done
