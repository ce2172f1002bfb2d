"""A tile of whole numbers of 4 bits on its way to Hopper's tensor cores: from shared memory to
registers, in half precision, and multiplied there.

See `penstock_kernels.int4` for how it stands in memory.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import mma_v2
from triton.experimental.gluon.language.nvidia.hopper import warpgroup_mma, warpgroup_mma_wait

# Eight numbers of a word as halves whose last bits they are: 128 and more of bfloat16, 1024 and
# more of float16. Rows g to $0 and $1, rows g + 8 to $2 and $3.
_WIDEN = """
{{
.reg .b32 b, c, d;
shr.u32 b, $4, 4;
shr.u32 c, $4, 8;
shr.u32 d, $4, 12;
lop3.b32 $0, $4, 0x000f000f, {magic}, 0xea;
lop3.b32 $2, b, 0x000f000f, {magic}, 0xea;
lop3.b32 $1, c, 0x000f000f, {magic}, 0xea;
lop3.b32 $3, d, 0x000f000f, {magic}, 0xea;
}}
"""
WIDEN_BF16 = gl.constexpr(_WIDEN.format(magic="0x43004300"))
WIDEN_FP16 = gl.constexpr(_WIDEN.format(magic="0x64006400"))
SUBTRACT_BF16 = gl.constexpr("sub.rn.bf16x2 $0, $1, $2;")
SUBTRACT_FP16 = gl.constexpr("sub.rn.f16x2 $0, $1, $2;")
MIDDLE_BF16 = gl.constexpr(128 + 8)
MIDDLE_FP16 = gl.constexpr(1024 + 8)


def _lines(vectors: int) -> gl.constexpr:
    return gl.constexpr(
        gl.DistributedLinearLayout(
            reg_bases=[[0, 1], [0, 2], [0, 4], [0, 8], [16, 0]][: 3 + vectors],
            lane_bases=[[0, 16], [0, 32], [0, 64], [1, 0], [2, 0]],
            warp_bases=[[4, 0], [8, 0]],
            block_bases=[],
            shape=[16 * vectors, 128],
        )
    )


# Which bytes of a tile's lines, or of those of half of its columns, are whose.
TILE_LINES, HALF_LINES = _lines(2), _lines(1)


@gluon.jit
def widened4(words, operand: gl.constexpr, dtype: gl.constexpr):
    """The numbers of a tile, or of half of its columns, plus 136 (1032 in float16), as the left
    side of a product. words: its lines, as their layout has them."""
    VECTORS: gl.constexpr = words.shape[0] // 16
    if dtype == gl.bfloat16:
        low, high = gl.inline_asm_elementwise(
            WIDEN_BF16, "=r,=r,=r,=r,r", [words], dtype=(gl.bfloat16, gl.bfloat16), is_pure=True,
            pack=4,
        )  # fmt: skip
    else:
        low, high = gl.inline_asm_elementwise(
            WIDEN_FP16, "=r,=r,=r,=r,r", [words], dtype=(gl.float16, gl.float16), is_pure=True,
            pack=4,
        )  # fmt: skip
    both = gl.join(low, high)
    # Vector, warp, row, thread, product, half of columns, neighbour, half of rows.
    parts = both.reshape([VECTORS, 4, 8, 4, 4, 2, 2, 2]).permute((1, 7, 2, 0, 4, 5, 3, 6))
    return gl.convert_layout(parts.reshape([64, 64 * VECTORS]), operand, assert_trivial=True)


@gluon.jit
def centred(numbers, zeros):
    """numbers - zeros, two at a time. zeros: [64, 1], with the middle added."""
    subtract: gl.constexpr = SUBTRACT_BF16 if numbers.dtype == gl.bfloat16 else SUBTRACT_FP16
    return gl.inline_asm_elementwise(
        subtract, "=r,r,r", [numbers, zeros], dtype=numbers.dtype, is_pure=True, pack=2
    )


@gluon.jit
def group_product(
    acc, ring, slot, x_slot, d: gl.constexpr, g: gl.constexpr,
    G: gl.constexpr, ZEROS: gl.constexpr, FEW: gl.constexpr,
):  # fmt: skip
    """acc plus the products of group g of the stage's tile d: [64, BM]."""
    x_tiles = ring[3]
    layout: gl.constexpr = acc.type.layout
    numbers = group_numbers(ring, slot, d, g, G, ZEROS, layout, x_tiles.dtype)
    x = x_tiles.index(x_slot).slice(128 // G * g, 128 // G, 1).permute((1, 0))
    nothing = gl.zeros(acc.shape, gl.float32, layout)
    if FEW:
        columns: gl.constexpr = gl.DotOperandLayout(1, layout, 2)
        part = mma_v2(numbers, x.load(columns), nothing)
    else:
        part = warpgroup_mma(numbers, x, nothing, use_acc=False, is_async=True)
        part, numbers = warpgroup_mma_wait(0, deps=[part, numbers])
    return acc + part * group_scales(ring, slot, d, g, G, layout)


@gluon.jit
def group_numbers(
    ring, slot, d: gl.constexpr, g: gl.constexpr, G: gl.constexpr, ZEROS: gl.constexpr,
    layout: gl.constexpr, dtype: gl.constexpr,
):  # fmt: skip
    """Group g of the stage's tile d, less what stands for 0, as the left side of a product."""
    w_tiles, s_tiles, z_tiles, x_tiles, full, empty = ring
    operand: gl.constexpr = gl.DotOperandLayout(0, layout, 2)
    LINES: gl.constexpr = 32 // G
    source: gl.constexpr = TILE_LINES if G == 1 else HALF_LINES
    words = w_tiles.index(slot).slice(32 * d + LINES * g, LINES).load(source)
    numbers = widened4(words, operand, dtype)
    along: gl.constexpr = gl.SliceLayout(1, operand)
    middle: gl.constexpr = MIDDLE_BF16 if dtype == gl.bfloat16 else MIDDLE_FP16
    at: gl.constexpr = 64 * (d * G + g)
    zeros = gl.full([64], middle, numbers.dtype, along)
    if ZEROS:
        zeros = zeros + z_tiles.index(slot).slice(at, 64).load(along).to(numbers.dtype)
    return centred(numbers, gl.expand_dims(zeros, 1))


@gluon.jit
def group_scales(
    ring, slot, d: gl.constexpr, g: gl.constexpr, G: gl.constexpr, layout: gl.constexpr
):
    """The scales of the group's 64 rows: [64, 1] float32."""
    scale = ring[1].index(slot).slice(64 * (d * G + g), 64).load(gl.SliceLayout(1, layout))
    return gl.expand_dims(scale.to(gl.float32), 1)
