"""Products of one row with weights in whole numbers of 4 bits, for Hopper.

What `hopper_int4` does for several rows, without a ring: a program has 16 rows of the weight, and
what it reads ahead stands in its registers, for the smaller products all of it. So with dependent
launch a product has been read before the kernel before it ends. No k is split among programs, so
the sums are whole and can be added to the residual.

A norm by root mean squares before the product is part of it: each program normalises the row, which
comes from the second cache, while its numbers are on their way. A launch for that takes as long to
start as such a product takes to read.

Each of the four warps multiplies a tile of its own of 128 columns. To the tensor cores the four are
one matrix of 64 rows, and the columns of the other side are not rows of x but pieces of its one
row: eight of 128 numbers, those of two steps. Of the product's numbers one in eight is wanted, that
of a warp's tile with its own piece.
"""

from __future__ import annotations

from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import mma_v2
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from penstock_kernels.gpu.launch.hopper import tile_layout
from penstock_kernels.gpu.products.hopper_int4_ring import DEPTH, ROWS
from penstock_kernels.gpu.products.hopper_int4_tile import (
    HALF_LINES,
    MIDDLE_BF16,
    MIDDLE_FP16,
    TILE_LINES,
    centred,
    widened4,
)
from penstock_kernels.ops import Norm, NormKind
from penstock_kernels.weight import Weight

GRANULE = 16  # rows of the weight of a program
PIECE = 8 * DEPTH  # of x, of one product of the tensor cores
MOST = 18432  # of a row, which stands in shared memory
ALL, SOME, FEW = 8, 6, 4  # steps whose numbers are under way


def steps_ahead(n: int, k: int, group: int, multiprocessors: int) -> int | None:
    """Steps of 512 columns to be read ahead when one row of k is multiplied by a weight [n, k] in
    groups of so many columns; None: not this way.

    By what was fastest for Llama-3.1-8B on an H200: all of a row, of a longer one some. Where there
    are more than two programs a multiprocessor few, since those take less room (queries, keys and
    values 6.1 us, 6.8 with all).
    """
    if n % ROWS or k % PIECE or k > MOST or group not in (DEPTH, DEPTH // 2):
        return None
    steps = k // (4 * DEPTH)
    if n // GRANULE > 2 * multiprocessors:
        return min(steps, FEW)
    return steps if steps <= ALL else SOME


@gluon.jit
def _none():
    """What tuples begin as."""
    return ()


@gluon.jit
def _numbers(weight, tile, sub, j, g: gl.constexpr, G: gl.constexpr, DEPTHS: gl.constexpr):
    """Bytes of step j and group g: each warp has 16 rows of its own tile along k."""
    source: gl.constexpr = TILE_LINES if G == 1 else HALF_LINES
    line = gl.arange(0, 32 // G, gl.SliceLayout(1, source))
    byte = gl.arange(0, 128, gl.SliceLayout(0, source))
    place = (4 * j + line // 4 % 4) * 4096 + (line // 16 + g) * 2048 + sub * 512 + line % 4 * 128
    first = weight + (tile * DEPTHS).to(gl.int64) * 4096
    return gl.load(first + (gl.expand_dims(place, 1) + gl.expand_dims(byte, 0)))


@gluon.jit
def _of_rows(
    values, tile, sub, j, g: gl.constexpr, G: gl.constexpr, DEPTHS: gl.constexpr,
    layout: gl.constexpr,
):  # fmt: skip
    """Scales or zeros of the same."""
    row = gl.arange(0, 64, layout)
    place = ((4 * j + row // 16) * G + g) * 64 + sub * 16 + row % 16
    return gl.load(values + (tile * DEPTHS).to(gl.int64) * (G * 64) + place)


@gluon.jit
def _step(
    source, tile, sub, j, G: gl.constexpr, ZEROS: gl.constexpr, DEPTHS: gl.constexpr,
    layout: gl.constexpr,
):  # fmt: skip
    """What a step reads: for each group numbers, scales and zeros."""
    weight, scale, zero = source
    along: gl.constexpr = gl.SliceLayout(1, layout)
    held = _none()
    for g in gl.static_range(G):
        numbers = _numbers(weight, tile, sub, j, g, G, DEPTHS)
        scales = _of_rows(scale, tile, sub, j, g, G, DEPTHS, along)
        zeros = scales
        if ZEROS:
            zeros = _of_rows(zero, tile, sub, j, g, G, DEPTHS, along)
        held = held + ((numbers, scales, zeros),)
    return held


@gluon.jit
def _product(acc, held, x, ZEROS: gl.constexpr):
    """acc plus the products of one group of a step. x: [its columns, 8]."""
    words, scales, zeros = held
    layout: gl.constexpr = acc.type.layout
    operand: gl.constexpr = gl.DotOperandLayout(0, layout, 2)
    dtype: gl.constexpr = x.dtype
    numbers = widened4(words, operand, dtype)
    along: gl.constexpr = gl.SliceLayout(1, operand)
    middle: gl.constexpr = MIDDLE_BF16 if dtype == gl.bfloat16 else MIDDLE_FP16
    less = gl.full([64], middle, dtype, along)
    if ZEROS:
        less = less + gl.convert_layout(zeros, along, assert_trivial=True).to(dtype)
    numbers = centred(numbers, gl.expand_dims(less, 1))
    part = mma_v2(numbers, x, gl.zeros(acc.shape, gl.float32, layout))
    return acc + part * gl.expand_dims(scales.to(gl.float32), 1)


@gluon.jit
def _whole(even, odd, flat: gl.constexpr):
    """The 16 sums of products of the pieces that belong to the tiles of each warp."""
    layout: gl.constexpr = even.type.layout
    warp = gl.expand_dims(gl.arange(0, 64, gl.SliceLayout(1, layout)) // 16, 1)
    piece = gl.expand_dims(gl.arange(0, 8, gl.SliceLayout(0, layout)), 0)
    wanted = gl.where(piece == warp, even, 0.0) + gl.where(piece == warp + 4, odd, 0.0)
    return gl.convert_layout(gl.sum(gl.sum(wanted, 1).reshape([4, 16]), 0), flat)


@gluon.jit
def row_gains(gain, K: gl.constexpr, block: gl.constexpr):
    """A norm's weights, as the row is held."""
    line = gl.expand_dims(gl.arange(0, 8, gl.SliceLayout(1, block)), 1)
    column = gl.expand_dims(gl.arange(0, 128, gl.SliceLayout(0, block)), 0)
    gains = _none()
    for p in gl.static_range(K // 1024):
        gains = gains + (gl.load(gain + (p * 1024 + line * 128 + column)),)
    return gains


@gluon.jit
def place_row(
    x, gains, eps, row, K: gl.constexpr, NORMED: gl.constexpr, ONE: gl.constexpr,
    block: gl.constexpr,
):  # fmt: skip
    """The row in shared memory, normalised as `step.norm` does."""
    line = gl.expand_dims(gl.arange(0, 8, gl.SliceLayout(1, block)), 1)
    column = gl.expand_dims(gl.arange(0, 128, gl.SliceLayout(0, block)), 0)
    values = _none()
    for p in gl.static_range(K // 1024):
        values = values + (gl.load(x + (p * 1024 + line * 128 + column)),)
    if NORMED:
        squares = gl.zeros([8, 128], gl.float32, block)
        for p in gl.static_range(K // 1024):
            wide = values[p].to(gl.float32)
            squares = squares + wide * wide
        by = gl.rsqrt(gl.sum(gl.sum(squares, 1), 0) / K + eps)
        for p in gl.static_range(K // 1024):
            scaled, gain = values[p].to(gl.float32) * by, gains[p].to(gl.float32)
            result = scaled * (gain + 1) if ONE else scaled.to(row.dtype).to(gl.float32) * gain
            row.index(p).store(result.to(row.dtype))
    else:
        for p in gl.static_range(K // 1024):
            row.index(p).store(values[p])


@gluon.jit
def _kernel(
    x,  # [K]
    weight,  # tiles of `int4`, [N / 64, K / 128, 4096]
    scale,  # [N / 64, K / 128 * G, 64]
    zero,  # the same, with ZEROS
    bias,  # [N], with BIASED
    gain,  # [K], with NORMED
    eps,
    out,  # [N]; with ADDS it is added to
    K: gl.constexpr,
    G: gl.constexpr,  # groups of a tile
    ZEROS: gl.constexpr,
    BIASED: gl.constexpr,
    NORMED: gl.constexpr,
    ONE: gl.constexpr,
    ADDS: gl.constexpr,
    AHEAD: gl.constexpr,
    X_LAYOUT: gl.constexpr,
    PDL: gl.constexpr,
):
    if PDL:
        gdc_launch_dependents()
    layout: gl.constexpr = gl.NVMMADistributedLayout([2, 0], [4, 1], [16, 8])
    block: gl.constexpr = gl.BlockedLayout([1, 8], [2, 16], [4, 1], [1, 0])
    flat: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    inputs: gl.constexpr = gl.DotOperandLayout(1, layout, 2)
    STEPS: gl.constexpr = K // 512
    dtype: gl.constexpr = x.dtype.element_ty
    tile, sub = gl.program_id(0) // 4, gl.program_id(0) % 4
    source = (weight, scale, zero)
    held = _none()
    for j in gl.static_range(AHEAD):
        held = held + (_step(source, tile, sub, j, G, ZEROS, K // 128, layout),)
    gains = _none()
    if NORMED:
        gains = row_gains(gain, K, block)
    row = gl.allocate_shared_memory(dtype, [K // 1024, 8, 128], X_LAYOUT)
    if PDL:
        gdc_wait()
    place_row(x, gains, eps, row, K, NORMED, ONE, block)
    even = gl.zeros([64, 8], gl.float32, layout)
    odd = even
    for j in gl.static_range(STEPS):
        if j + AHEAD < STEPS:
            held = held + (_step(source, tile, sub, j + AHEAD, G, ZEROS, K // 128, layout),)
        for g in gl.static_range(G):
            pieces = row.index(j // 2).slice(128 // G * g, 128 // G, 1).permute((1, 0))
            value = pieces.load(inputs)
            if j % 2 == 0:
                even = _product(even, held[j][g], value, ZEROS)
            else:
                odd = _product(odd, held[j][g], value, ZEROS)
    place = gl.program_id(0) * 16 + gl.arange(0, 16, flat)
    result = _whole(even, odd, flat)
    if BIASED:
        result = result + gl.load(bias + place).to(gl.float32)
    if ADDS:
        result = result.to(dtype).to(gl.float32) + gl.load(out + place).to(gl.float32)
    gl.store(out + place, result.to(dtype))


def hopper_int4_row(
    x: Tensor, weight: Weight, out: Tensor, ahead: int, dependent: bool, norm: Norm | None = None,
    adds: bool = False,
) -> None:  # fmt: skip
    """out = x W^T + b for one row.

    x: [1, k], with `norm`, by root mean squares, before it; weight: INT4 [n, k]; out: [1, n], to
    which the result, rounded, is added where it `adds`; ahead: steps of 512 columns that are read
    ahead.
    """
    scale, zero, bias = weight.scale, weight.zero, weight.bias
    assert scale is not None
    gain, eps = (x, 0.0) if norm is None else (norm.weight, norm.eps)
    _kernel[(weight.n // GRANULE,)](
        x, weight.data, scale, scale if zero is None else zero, x if bias is None else bias, gain,
        eps, out, K=weight.k, G=DEPTH // weight.scale_columns,
        ZEROS=zero is not None, BIASED=bias is not None, NORMED=norm is not None,
        ONE=norm is not None and norm.kind is NormKind.RMS_ONE, ADDS=adds,
        AHEAD=ahead,
        X_LAYOUT=tile_layout(8, DEPTH, x.dtype), PDL=dependent, num_warps=4, launch_pdl=dependent,
    )  # fmt: skip
