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
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from penstock_kernels.lut import TABLES

_HALF = """
prmt.b32 first, low0, low1, codes;
prmt.b32 second, low2, low3, codes;
prmt.b32 lower, first, second, half;
prmt.b32 first, high0, high1, codes;
prmt.b32 second, high2, high3, codes;
prmt.b32 upper, first, second, half;
prmt.b32 ${0}, lower, upper, 0x5140;
prmt.b32 ${1}, lower, upper, 0x7362;
"""


@functools.cache
def lookup(code: str, dtype: torch.dtype) -> str:
    """PTX of a table: $4 are eight codes, $0 to $3 the numbers of two each."""
    table = torch.tensor(TABLES[code]).to(dtype).view(torch.int16).tolist()
    words = {
        f"{name}{i}": sum((value >> shift & 255) << 8 * j for j, value in enumerate(four))
        for name, shift in (("low", 0), ("high", 8))
        for i, four in enumerate(table[start : start + 4] for start in range(0, 16, 4))
    }
    lines = [
        "{",
        ".reg .b32 codes, half, first, second, lower, upper;",
        f".reg .b32 {', '.join(words)};",
        *(f"mov.b32 {name}, {value:#010x};" for name, value in words.items()),
        "and.b32 codes, $4, 0x77777777;",  # the fourth bit means something else to prmt
        "shr.b32 half, $4, 1;",
        "and.b32 half, half, 0x44444444;",
        "or.b32 half, half, 0x32103210;",
        _HALF.format(0, 1).strip(),
        "shr.b32 codes, codes, 16;",
        "shr.b32 half, half, 16;",
        _HALF.format(2, 3).strip(),
        "}",
    ]
    return "\n".join(lines)


@gluon.jit
def looked_up(tile, scales, BM: gl.constexpr, dtype: gl.constexpr, LOOKUP: gl.constexpr):
    """A tile of bytes [64, 64] in shared memory, times the scales of its blocks [blocks, 64], as
    the left side of a product with BM columns."""
    ROWS: gl.constexpr = tile.shape[0]
    BYTES: gl.constexpr = tile.shape[1]
    BLOCKS: gl.constexpr = scales.shape[0]
    source: gl.constexpr = gl.DistributedLinearLayout(
        reg_bases=[[0, 1], [0, 2], [0, 4], [8, 0], [0, 32]],
        lane_bases=[[0, 8], [0, 16], [1, 0], [2, 0], [4, 0]],
        warp_bases=[[16, 0], [32, 0]],
        block_bases=[],
        shape=[ROWS, BYTES],
    )
    product: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BM, 16])
    target: gl.constexpr = gl.DotOperandLayout(0, product, 2)
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
    by = scales.permute((1, 0)).load(across).to(gl.float32).to(dtype)
    parts = parts * gl.expand_dims(by, 2)
    return gl.convert_layout(parts.reshape([ROWS, 2 * BYTES]), target, assert_trivial=True)


@gluon.jit
def accumulate_codes(
    ring, scales, acc, acc_up, depths, done,
    STAGES: gl.constexpr, GATED: gl.constexpr, LOOKUP: gl.constexpr,
):  # fmt: skip
    """`hopper_linear.accumulate_widened` of codes. scales: [stages (times two), blocks, 64]."""
    w_tiles, x_tiles, full, empty = ring
    BM: gl.constexpr = x_tiles.shape[1]
    dtype: gl.constexpr = x_tiles.dtype
    for j in range(depths):
        stage = done % STAGES
        mbarrier.wait(full.index(stage), done // STAGES & 1)
        x = x_tiles.index(stage).permute((1, 0))
        if GATED:
            at = 2 * stage
            gate = looked_up(w_tiles.index(at), scales.index(at), BM, dtype, LOOKUP)
            acc = warpgroup_mma(gate, x, acc, use_acc=j > 0, is_async=True)
            up = looked_up(w_tiles.index(at + 1), scales.index(at + 1), BM, dtype, LOOKUP)
            acc_up = warpgroup_mma(up, x, acc_up, use_acc=j > 0, is_async=True)
            acc, acc_up, gate, up = warpgroup_mma_wait(0, deps=[acc, acc_up, gate, up])
        else:
            weight = looked_up(w_tiles.index(stage), scales.index(stage), BM, dtype, LOOKUP)
            acc = warpgroup_mma(weight, x, acc, use_acc=j > 0, is_async=True)
            acc, weight = warpgroup_mma_wait(0, deps=[acc, weight])
        mbarrier.arrive(empty.index(stage))
        done += 1
    return acc, acc_up, done
