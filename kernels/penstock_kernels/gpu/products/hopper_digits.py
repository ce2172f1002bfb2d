"""One row of activations as whole numbers, for products with weights of bytes, on Hopper.

The tensor cores' products of whole numbers take eight columns beside a weight, and one row needs
one. So the others hold more of its digits: a number is 16 bits of its piece's largest, two signed
bytes, each in a column of its own. A weight of 8 bits then goes to the tensor cores as it lies in
memory, and one that is looked up as two bytes, high and low, which are looked up as they are
multiplied: widened to half precision a number takes twice as many instructions, and those, not its
bytes, would be what a product costs. Sums of products are exact; a piece's scale joins afterwards.

Numbers in FP8 are halves of float16 at once, and so is the row: a piece's numbers over a power of
two, which are exact but for the smallest. One column a piece is enough then, and every second is 0.

Pieces are 128 columns. What four of them become stands together, eight columns: digits of the
first, of the second, and so on. Within 16 columns numbers stand in the order in which weights in
`fp8.interleave` meet them.
"""

from __future__ import annotations

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from penstock_kernels.gpu.launch.hopper import tile_layout
from penstock_kernels.weight import Layout, Weight

PIECE = 128
LARGEST = gl.constexpr(127 * 256.0)  # of a number: digits are within +-127
SMALLEST = gl.constexpr(1e-30)  # of a piece's largest: pieces of zeros stay zeros

# Four numbers in float32 to their high and low digits. Added to 1.5 * 2^23 + 128 a whole number is
# the last bits of the sum, and its digits are bytes of it, the low one but for its sign.
_DIGITS = """
{{
.reg .b32 a, b, c, d, low, high;
{};
{};
{};
{};
prmt.b32 low, a, b, 0x5140;
prmt.b32 high, c, d, 0x5140;
prmt.b32 $0, low, high, 0x7632;
prmt.b32 low, low, high, 0x5410;
xor.b32 $1, low, 0x80808080;
}}
"""
DIGITS = gl.constexpr(
    _DIGITS.format(*(f"add.rn.f32 {name}, ${i}, 0f4B400080" for i, name in enumerate("abcd", 2)))
)
NEGATIVES = gl.constexpr(
    _DIGITS.format(*(f"sub.rn.f32 {name}, 0f4B400080, ${i}" for i, name in enumerate("abcd", 2)))
)


def pieces(k: int) -> int:
    """Of a row: a power of two, four at least."""
    return max(4, 1 << (-(-k // PIECE) - 1).bit_length())


def row_bytes(k: int, layout: Layout) -> int:
    """Of shared memory, for a row and what its columns' sums are multiplied with."""
    return pieces(k) * ({Layout.LUT: 4, Layout.INT8: 2, Layout.FP8: 4}[layout] * PIECE + 8)


def row_layout(weight: Weight) -> gl.NVMMASharedLayout:
    """How the row for a product with a weight stands in shared memory."""
    count = pieces(weight.k)
    if weight.layout is Layout.FP8:
        return tile_layout(4 * count, PIECE // 2, torch.float16)
    return tile_layout(2 * count, PIECE, torch.int8)


@gluon.jit
def row_pieces(x, K: gl.constexpr, PIECES: gl.constexpr, block: gl.constexpr):
    """A row of K numbers in pieces, [PIECES, 128]; behind its end zeros."""
    line = gl.expand_dims(gl.arange(0, PIECES, gl.SliceLayout(1, block)), 1)
    place = line * 128 + gl.expand_dims(gl.arange(0, 128, gl.SliceLayout(0, block)), 0)
    if PIECES * 128 > K:
        return gl.load(x + place, mask=place < K, other=0.0)
    return gl.load(x + place)


@gluon.jit
def row_room(
    PIECES: gl.constexpr, NEGATED: gl.constexpr, HALVES: gl.constexpr, LAYOUT: gl.constexpr
):
    """Shared memory for a row: its digits and, NEGATED, those of its negative, or HALVES, blocks of
    64 columns; and what a column's sums are multiplied with."""
    line: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    factors = gl.allocate_shared_memory(gl.float32, [2 * PIECES], line)
    if HALVES:
        numbers = gl.allocate_shared_memory(gl.float16, [4 * PIECES, 64], LAYOUT)
        negatives = numbers
    else:
        numbers = gl.allocate_shared_memory(gl.int8, [2 * PIECES, 128], LAYOUT)
        negatives = numbers
        if NEGATED:
            negatives = gl.allocate_shared_memory(gl.int8, [2 * PIECES, 128], LAYOUT)
    return numbers, negatives, factors


@gluon.jit
def place_row(
    x, gain, eps, row, K: gl.constexpr, NORMED: gl.constexpr, ONE: gl.constexpr,
    NEGATED: gl.constexpr, RATIO: gl.constexpr, block: gl.constexpr,
):  # fmt: skip
    """The row in its room, normalised as `step.norm` does. gain: of the norm, in pieces;
    RATIO: what the negative row is multiplied with."""
    numbers, negatives, factors = row
    PIECES: gl.constexpr = factors.shape[0] // 2
    dtype: gl.constexpr = x.dtype.element_ty
    value = row_pieces(x, K, PIECES, block).to(gl.float32)
    if NORMED:
        scaled = value * gl.rsqrt(gl.sum(gl.sum(value * value, 1), 0) / K + eps)
        wide = gain.to(gl.float32)
        result = scaled * (wide + 1) if ONE else scaled.to(dtype).to(gl.float32) * wide
        value = result.to(dtype).to(gl.float32)
    # As whole numbers NaN is the largest: it stays one.
    largest = gl.max(value.to(gl.int32, bitcast=True) & 0x7FFFFFFF, 1)
    if numbers.dtype == gl.float16:
        _place_halves(value, largest, numbers, factors)
    else:
        largest = largest.to(gl.float32, bitcast=True)
        SPAN: gl.constexpr = RATIO if RATIO > 1.0 else 1.0
        unit = gl.where(largest < SMALLEST, SMALLEST, largest) * (SPAN / LARGEST)
        value = value * gl.expand_dims(1.0 / unit, 1)
        # Of 16 columns: two halves, four threads, two neighbours. A thread's four stand together.
        value = value.reshape([PIECES, 8, 2, 4, 2]).permute((0, 1, 3, 2, 4))
        value = gl.convert_layout(value.reshape([PIECES, 128]), block, assert_trivial=True)
        _store_digits(value, numbers, DIGITS)
        if NEGATED:
            _store_digits(value * RATIO, negatives, NEGATIVES)
        factors.store(gl.join(unit * 256.0, unit).reshape([2 * PIECES]))


@gluon.jit
def _place_halves(value, largest, halves, factors):
    """value: [PIECES, 128]; largest: the bits of each piece's."""
    PIECES: gl.constexpr = value.shape[0]
    power = (largest & 0x7F800000).to(gl.float32, bitcast=True)
    unit = gl.where(power < SMALLEST, SMALLEST, power)
    value = (value * gl.expand_dims(1.0 / unit, 1)).to(gl.float16)
    # A step's pieces, their two blocks; a column, and one of zeros.
    both = gl.join(value, value * 0).reshape([PIECES // 4, 4, 2, 64, 2])
    halves.store(both.permute((0, 2, 1, 4, 3)).reshape([4 * PIECES, 64]))
    factors.store(gl.join(unit, unit * 0).reshape([2 * PIECES]))


@gluon.jit
def _store_digits(value, target, ASSEMBLY: gl.constexpr):
    """value: [PIECES, 128]; target: [2 PIECES, 128] int8."""
    PIECES: gl.constexpr = value.shape[0]
    high, low = gl.inline_asm_elementwise(
        ASSEMBLY, "=r,=r,f,f,f,f", [value], dtype=(gl.int8, gl.int8), is_pure=True, pack=4
    )
    target.store(gl.join(high, low).permute((0, 2, 1)).reshape([2 * PIECES, 128]))
