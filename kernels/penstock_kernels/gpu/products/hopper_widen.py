"""Weights of 8 bits, FP8 or whole numbers, on their way to Hopper's tensor cores: from shared
memory to registers, in half precision.

The columns of a weight stand in the order of `penstock_kernels.fp8.interleave`: so the numbers that
a thread feeds to the tensor cores are 16 neighbours, one read, and no thread needs another's.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

# Four numbers of e4m3 to bfloat16: their bits moved to where bfloat16 has them are too small by
# 2^120, whatever the number; a product with that power is exact.
WIDEN = gl.constexpr("""
{
.reg .b32 low, high, power;
mov.b32 power, 0x7b807b80;
prmt.b32 low, 0, $2, 0x5040;
prmt.b32 high, 0, $2, 0x7060;
{
.reg .b32 sign, rest;
and.b32 sign, low, 0x80008000;
shr.b32 rest, low, 4;
and.b32 rest, rest, 0x07f007f0;
or.b32 rest, rest, sign;
mul.rn.bf16x2 $0, rest, power;
}
{
.reg .b32 sign, rest;
and.b32 sign, high, 0x80008000;
shr.b32 rest, high, 4;
and.b32 rest, rest, 0x07f007f0;
or.b32 rest, rest, sign;
mul.rn.bf16x2 $1, rest, power;
}
}
""")

# Four whole numbers: seven bits are the last of 128 to 255, and the sign says whether 128 or 256 is
# too much.
WIDEN_INT8 = gl.constexpr("""
{
.reg .b32 low, high, rest, less;
prmt.b32 low, $2, 0, 0x4140;
prmt.b32 high, $2, 0, 0x4342;
lop3.b32 rest, low, 0x007f007f, 0x43004300, 0xea;
lop3.b32 less, low, 0x00800080, 0x43004300, 0xea;
sub.rn.bf16x2 $0, rest, less;
lop3.b32 rest, high, 0x007f007f, 0x43004300, 0xea;
lop3.b32 less, high, 0x00800080, 0x43004300, 0xea;
sub.rn.bf16x2 $1, rest, less;
}
""")


@gluon.jit
def widened(tile, target: gl.constexpr, dtype: gl.constexpr):
    """A tile [64, 128] of e4m3 or int8 in shared memory as the left side of a product."""
    ROWS: gl.constexpr = tile.shape[0]
    DEPTH: gl.constexpr = tile.shape[1]
    source: gl.constexpr = gl.DistributedLinearLayout(
        reg_bases=[[0, 1], [0, 2], [0, 4], [0, 8], [8, 0], [0, 64]],
        lane_bases=[[0, 16], [0, 32], [1, 0], [2, 0], [4, 0]],
        warp_bases=[[16, 0], [32, 0]],
        block_bases=[],
        shape=[ROWS, DEPTH],
    )
    numbers = tile.load(source)
    if dtype == gl.bfloat16:
        widen: gl.constexpr = WIDEN_INT8 if tile.dtype == gl.int8 else WIDEN
        numbers = gl.inline_asm_elementwise(
            widen, "=r,=r,r", [numbers], dtype=gl.bfloat16, is_pure=True, pack=4
        )
    else:
        numbers = numbers.to(dtype)
    # Of each 64 columns: 4 threads, 4 products, and the 2 x 2 numbers that a thread has in one.
    parts = numbers.reshape([ROWS, DEPTH // 64, 4, 4, 2, 2]).permute((0, 1, 3, 4, 2, 5))
    return gl.convert_layout(parts.reshape([ROWS, DEPTH]), target, assert_trivial=True)
