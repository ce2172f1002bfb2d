"""Keys and values in FP8 on their way to Hopper's tensor cores: from shared memory to registers, in
float16, which holds every number of FP8.

Products of decode attention have keys, and numbers of a head, as their tall side, which may stand
in registers (`hopper_decode_swap_ab`). Of keys a thread reads 16 neighbours of a row: in which
order the numbers of a head are multiplied does not matter, as long as queries stand in the same
(`ordered`). Values are transposed on the way by an instruction that moves pairs of numbers; those
of a pair become rows of the product, 8 apart (`number_of`).
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier

# Four numbers, in the order in which they stand.
FOUR_E4M3 = gl.constexpr("""
{
.reg .b16 low, high;
mov.b32 {low, high}, $2;
cvt.rn.f16x2.e4m3x2 $0, low;
cvt.rn.f16x2.e4m3x2 $1, high;
}
""")
FOUR_E5M2 = gl.constexpr(FOUR_E4M3.value.replace("e4m3", "e5m2"))
# Two pairs of numbers: the first of each, then the second of each.
PAIRS_E4M3 = gl.constexpr("""
{
.reg .b32 both;
.reg .b16 first, second;
prmt.b32 both, $2, 0, 0x3120;
mov.b32 {first, second}, both;
cvt.rn.f16x2.e4m3x2 $0, first;
cvt.rn.f16x2.e4m3x2 $1, second;
}
""")
PAIRS_E5M2 = gl.constexpr(PAIRS_E4M3.value.replace("e4m3", "e5m2"))


@gluon.jit
def ordered(x):
    """Rows of queries [W, D] with their numbers in the order of `tall_keys`."""
    W: gl.constexpr = x.shape[0]
    D: gl.constexpr = x.shape[1]
    # Of each 64: 4 threads, 4 products, and the 2 x 2 numbers that a thread has in one.
    return x.reshape([W, D // 64, 4, 4, 2, 2]).permute((0, 1, 3, 4, 2, 5)).reshape([W, D])


@gluon.jit
def _numbers(x, FP8: gl.constexpr):
    """Bytes of the cache in float16."""
    ASM: gl.constexpr = FOUR_E4M3 if FP8 == 4 else FOUR_E5M2
    return gl.inline_asm_elementwise(ASM, "=r,=r,r", [x], dtype=gl.float16, is_pure=True, pack=4)


@gluon.jit
def tall_keys(tile, W: gl.constexpr, FP8: gl.constexpr):
    """A tile of keys [N, D] as the left side of a product with W columns."""
    N: gl.constexpr = tile.shape[0]
    D: gl.constexpr = tile.shape[1]
    WIDE: gl.constexpr = [[0, 64]] if D == 128 else []
    TALL: gl.constexpr = [[64, 0]] if N == 128 else []
    source: gl.constexpr = gl.DistributedLinearLayout(
        reg_bases=[[0, 1], [0, 2], [0, 4], [0, 8], [8, 0]] + WIDE + TALL,
        lane_bases=[[0, 16], [0, 32], [1, 0], [2, 0], [4, 0]],
        warp_bases=[[16, 0], [32, 0]],
        block_bases=[],
        shape=[N, D],
    )
    product: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, W, 16])
    target: gl.constexpr = gl.DotOperandLayout(0, product, 2)
    numbers = ordered(_numbers(tile.load(source), FP8))
    return gl.convert_layout(numbers, target, assert_trivial=True)


@gluon.jit
def tall_values(tile, known, W: gl.constexpr, FP8: gl.constexpr):
    """A tile of values [N, D], transposed, as the left side of a product with W columns: rows as
    `number_of` says. Zero from token `known` on: anything may stand there, and 0 times NaN is NaN.
    """
    N: gl.constexpr = tile.shape[0]
    D: gl.constexpr = tile.shape[1]
    ASM: gl.constexpr = PAIRS_E4M3 if FP8 == 4 else PAIRS_E5M2
    WIDE: gl.constexpr = [[32, 0]] if D == 128 else []
    LONG: gl.constexpr = [[0, 64]] if N == 128 else []
    source: gl.constexpr = gl.DistributedLinearLayout(
        reg_bases=[[0, 1], [0, 8], [0, 16], [0, 32]] + LONG + WIDE,
        lane_bases=[[0, 2], [0, 4], [1, 0], [2, 0], [4, 0]],
        warp_bases=[[8, 0], [16, 0]],
        block_bases=[],
        shape=[D // 2, N],
    )
    product: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, W, 16])
    target: gl.constexpr = gl.DotOperandLayout(0, product, 2)
    layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([N, D // 2], gl.int16)
    pairs = tile._reinterpret(gl.int16, [N, D // 2], layout).permute((1, 0)).load(source)
    if known < N:
        token = gl.arange(0, N, gl.SliceLayout(0, source))
        pairs = gl.where(gl.expand_dims(token < known, 0), pairs, 0)
    first, second = gl.inline_asm_elementwise(
        ASM, "=r,=r,r", [pairs], dtype=(gl.float16, gl.float16), is_pure=True, pack=2
    )
    rows = gl.join(first, second).reshape([D // 16, 8, N, 2]).permute((0, 3, 1, 2))
    return gl.convert_layout(rows.reshape([D, N]), target, assert_trivial=True)


@gluon.jit
def number_of(row):
    """Which number of a head stands in a row of `tall_values`."""
    return row // 16 * 16 + row % 8 * 2 + row // 8 % 2


@gluon.jit
def narrowed(x, by, FP8: gl.constexpr):
    """x times a scalar as bytes of the cache; the instruction stores what is too large as the
    largest number."""
    x = x.to(gl.float32) * by
    if FP8 == 4:
        return x.to(gl.float8e4nv).to(gl.uint8, bitcast=True)
    return x.to(gl.float8e5).to(gl.uint8, bitcast=True)


@gluon.jit
def words_of(tile, there, parity):
    """A tile in FP8 as it stands, four numbers a word, once it is there."""
    N: gl.constexpr = tile.shape[0]
    D: gl.constexpr = tile.shape[1]
    words: gl.constexpr = gl.NVMMASharedLayout.get_default_for([N, D // 4], gl.int32)
    layout: gl.constexpr = gl.BlockedLayout([1, 2], [256 // D, D // 8], [4, 1], [1, 0])
    mbarrier.wait(there, parity)
    return tile._reinterpret(gl.int32, [N, D // 4], words).load(layout)


@gluon.jit
def widen_to(target, found, taken, full, empty, phase, FP8: gl.constexpr):
    """The words of a tile, which may be overwritten then, to one in float16."""
    N: gl.constexpr = target.shape[0]
    D: gl.constexpr = target.shape[1]
    ASM: gl.constexpr = FOUR_E4M3 if FP8 == 4 else FOUR_E5M2
    words: gl.constexpr = gl.NVMMASharedLayout.get_default_for([N, D // 2], gl.int32)
    low, high = gl.inline_asm_elementwise(
        ASM, "=r,=r,r", [found], dtype=(gl.int32, gl.int32), is_pure=True, pack=1
    )
    mbarrier.arrive(taken)
    mbarrier.wait(empty, phase)
    pairs = gl.join(low, high).reshape([N, D // 2])
    target._reinterpret(gl.int32, [N, D // 2], words).store(pairs)
    fence_async_shared()
    mbarrier.arrive(full)
