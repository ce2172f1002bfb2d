"""A tile of whole numbers of 4 bits on its way to Hopper's tensor cores: from shared memory to
registers, in FP8, where all that they can mean is exact.

A byte of e4m3 from 0 to 16 stands for so many times 2^-9. So |number - zero|, at most 16, is the
byte that means it, and its sign is the highest bit; sums are multiplied with 2^9 at the end.

See `penstock_kernels.int4` for how a tile stands in memory: a word has four numbers of row g in its
low nibbles and four of row g + 8 in the high ones, which is what one product of 16 columns takes
from a thread if the columns of x stand in the order of `int4.interleave`.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from penstock_kernels.gpu.products.hopper_int4_tile import HALF_LINES, TILE_LINES

UNIT = 2.0**9  # what a sum is multiplied with

# Eight numbers stored plus 8. With $y = number xor 8 a positive one is its own byte, and a negative
# one's is 0x90 - $y; prmt repeats the highest bit of each byte, which says which.
SIGNED = gl.constexpr("""
{
.reg .b32 s, m, y, z;
shl.b32 s, $2, 4;
prmt.b32 m, s, 0, 0xba98;
lop3.b32 y, $2, 0x0f0f0f0f, 0x08080808, 0x6a;
sub.u32 z, 0x90909090, y;
lop3.b32 $0, m, y, z, 0xca;
shr.u32 s, $2, 4;
prmt.b32 m, $2, 0, 0xba98;
lop3.b32 y, s, 0x0f0f0f0f, 0x08080808, 0x6a;
sub.u32 z, 0x90909090, y;
lop3.b32 $1, m, y, z, 0xca;
}
""")
NIBBLES = gl.constexpr("""
{
.reg .b32 s;
and.b32 $0, $2, 0x0f0f0f0f;
shr.u32 s, $2, 4;
and.b32 $1, s, 0x0f0f0f0f;
}
""")
# Four numbers less what stands for 0, which is given as 128 - zero: sums of 128 and more are
# positive, and 256 less the sum is the byte of a negative one.
LESS = gl.constexpr("""
{
.reg .b32 e, m, p;
add.u32 e, $1, $2;
prmt.b32 m, e, 0, 0xba98;
sub.u32 p, 0x01010100, e;
lop3.b32 m, m, e, p, 0xca;
lop3.b32 $0, m, e, 0x7f7f7f7f, 0xb1;
}
""")


@gluon.jit
def _in_place(low, high, operand: gl.constexpr):
    """Numbers of rows g and of rows g + 8, as their lines stand, as the left side of a product."""
    VECTORS: gl.constexpr = low.shape[0] // 16
    # Vector, warp, row, thread, product, four columns, half of rows.
    parts = gl.join(low, high).reshape([VECTORS, 4, 8, 4, 4, 4, 2])
    parts = parts.permute((1, 6, 2, 0, 4, 3, 5)).reshape([64, 64 * VECTORS])
    return gl.convert_layout(parts, operand, assert_trivial=True)


@gluon.jit
def fp8_numbers(
    ring, slot, g: gl.constexpr, G: gl.constexpr, ZEROS: gl.constexpr, layout: gl.constexpr
):  # fmt: skip
    """Group g of a tile, less what stands for 0, over 512, as the left side of a product."""
    w_tiles, s_tiles, z_tiles, x_tiles, full, empty = ring
    operand: gl.constexpr = gl.DotOperandLayout(0, layout, 4)
    LINES: gl.constexpr = 32 // G
    source: gl.constexpr = TILE_LINES if G == 1 else HALF_LINES
    words = w_tiles.index(slot).slice(LINES * g, LINES).load(source)
    if ZEROS:
        low, high = gl.inline_asm_elementwise(
            NIBBLES, "=r,=r,r", [words], dtype=(gl.uint8, gl.uint8), is_pure=True, pack=4
        )
        zero = z_tiles.index(slot).slice(64 * g, 64).load(gl.SliceLayout(1, operand))
        less = gl.expand_dims((120 - zero.to(gl.float32)).to(gl.uint8), 1)
        return gl.inline_asm_elementwise(
            LESS, "=r,r,r", [_in_place(low, high, operand), less], dtype=gl.float8e4nv,
            is_pure=True, pack=4,
        )  # fmt: skip
    else:
        low, high = gl.inline_asm_elementwise(
            SIGNED, "=r,=r,r", [words], dtype=(gl.float8e4nv, gl.float8e4nv), is_pure=True, pack=4
        )
        return _in_place(low, high, operand)
