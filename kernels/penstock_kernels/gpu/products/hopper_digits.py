"""One row of activations as whole numbers, for products with weights of bytes, on Hopper.

The tensor cores' products of whole numbers take eight columns beside a weight, and one row needs
one. So the others hold more of its digits: a number is 16 bits of its piece's largest, two signed
bytes, each in a column of its own. A weight of 8 bits then goes to the tensor cores as it lies in
memory, and one that is looked up as two bytes, high and low, which are looked up as they are
multiplied: widened to half precision a number takes twice as many instructions, and those, not its
bytes, would be what a product costs. Sums of products are exact; a piece's scale joins afterwards.

Pieces are 128 columns. What four of them become stands together, eight columns: digits of the
first, of the second, and so on. Within 16 columns numbers stand in the order in which weights in
`fp8.interleave` meet them.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

PIECE = 128
LINES = 16  # pieces that are made at a time
BLOCK = LINES * PIECE
LARGEST = gl.constexpr(127 * 256.0)  # of a number: digits are within +-127
SMALLEST = gl.constexpr(1e-30)  # of a piece's largest: pieces of zeros stay zeros

# Four numbers in float32 to their high and low digits, and those of their negatives. Added to
# 1.5 * 2^23 + 128 a whole number is the last bits of the sum, and its digits are bytes of it, the
# low one but for its sign.
DIGITS = gl.constexpr("""
{
.reg .b32 a, b, c, d, low, high;
add.rn.f32 a, $4, 0f4B400080;
add.rn.f32 b, $5, 0f4B400080;
add.rn.f32 c, $6, 0f4B400080;
add.rn.f32 d, $7, 0f4B400080;
prmt.b32 low, a, b, 0x5140;
prmt.b32 high, c, d, 0x5140;
sub.rn.f32 a, 0f4B400080, $4;
sub.rn.f32 b, 0f4B400080, $5;
sub.rn.f32 c, 0f4B400080, $6;
sub.rn.f32 d, 0f4B400080, $7;
prmt.b32 $0, low, high, 0x7632;
prmt.b32 low, low, high, 0x5410;
xor.b32 $1, low, 0x80808080;
prmt.b32 low, a, b, 0x5140;
prmt.b32 high, c, d, 0x5140;
prmt.b32 $2, low, high, 0x7632;
prmt.b32 low, low, high, 0x5410;
xor.b32 $3, low, 0x80808080;
}
""")


@gluon.jit
def _none():
    """What tuples begin as."""
    return ()


@gluon.jit
def row_pieces(x, K: gl.constexpr, block: gl.constexpr):
    """A row of K numbers in pieces; behind its end zeros."""
    line = gl.expand_dims(gl.arange(0, 16, gl.SliceLayout(1, block)), 1)
    column = gl.expand_dims(gl.arange(0, 128, gl.SliceLayout(0, block)), 0)
    pieces = _none()
    for p in gl.static_range((K + 2047) // 2048):
        place = p * 2048 + line * 128 + column
        if p * 2048 + 2048 > K:
            pieces = pieces + (gl.load(x + place, mask=place < K, other=0.0),)
        else:
            pieces = pieces + (gl.load(x + place),)
    return pieces


@gluon.jit
def place_digits(
    x, gains, eps, row, K: gl.constexpr, NORMED: gl.constexpr, ONE: gl.constexpr,
    block: gl.constexpr,
):  # fmt: skip
    """The row in shared memory as digits and as those of its negative, normalised as `step.norm`
    does. row: digits, negatives, and what a column's sums are multiplied with."""
    digits, negatives, factors = row
    dtype: gl.constexpr = x.dtype.element_ty
    values = row_pieces(x, K, block)
    by = 1.0
    if NORMED:
        squares = gl.zeros([16, 128], gl.float32, block)
        for p in gl.static_range((K + 2047) // 2048):
            wide = values[p].to(gl.float32)
            squares = squares + wide * wide
        by = gl.rsqrt(gl.sum(gl.sum(squares, 1), 0) / K + eps)
    for p in gl.static_range((K + 2047) // 2048):
        value = values[p].to(gl.float32)
        if NORMED:
            scaled, gain = value * by, gains[p].to(gl.float32)
            result = scaled * (gain + 1) if ONE else scaled.to(dtype).to(gl.float32) * gain
            value = result.to(dtype).to(gl.float32)
        _place_piece(value, digits.index(p), negatives.index(p), factors.index(p), block)


@gluon.jit
def _place_piece(value, digits, negatives, factors, block: gl.constexpr):
    """value: [16, 128] float32."""
    # As whole numbers NaN is the largest: it stays one.
    largest = gl.max(value.to(gl.int32, bitcast=True) & 0x7FFFFFFF, 1).to(gl.float32, bitcast=True)
    unit = gl.where(largest < SMALLEST, SMALLEST, largest) / LARGEST
    scaled = value * gl.expand_dims(1.0 / unit, 1)
    # Of 16 columns: two halves, four threads, two neighbours. A thread's four stand together.
    scaled = scaled.reshape([16, 8, 2, 4, 2]).permute((0, 1, 3, 2, 4)).reshape([16, 128])
    scaled = gl.convert_layout(scaled, block)
    high, low, less_high, less_low = gl.inline_asm_elementwise(
        DIGITS, "=r,=r,=r,=r,f,f,f,f", [scaled], dtype=(gl.int8, gl.int8, gl.int8, gl.int8),
        is_pure=True, pack=4,
    )  # fmt: skip
    digits.store(gl.join(high, low).permute((0, 2, 1)).reshape([32, 128]))
    negatives.store(gl.join(less_high, less_low).permute((0, 2, 1)).reshape([32, 128]))
    factors.store(gl.join(unit * 256.0, unit).reshape([32]))
