"""Skinny matrix products: few rows of activations against a large weight, at the speed of memory.

y = x W^T with W [n, k] as checkpoints store it. For up to about 64 rows a product is one pass over
the weight, and what counts is that loads are always under way. The weight's tile is the tall side
of the tensor-core product (n tiles x few columns of activations). On Hopper `hopper_linear` does
the same faster for more than one row.

With programmatic dependent launch a kernel starts while the one before it ends: it loads its first
weight tile, which depends on nothing, before it waits for its activations.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.launch.dependent import launch, release, wait
from penstock_kernels.gpu.products.operands import block_sizes, kinds, mixed, operands
from penstock_kernels.gpu.products.operands import column as column_of
from penstock_kernels.gpu.products.settled import settled
from penstock_kernels.weight import Weight


@dataclass(frozen=True, slots=True)
class Tile:
    """Shape of a launch: weight rows and depth of a tile, warps, pipeline stages."""

    n: int
    k: int
    warps: int
    stages: int


@triton.jit
def _of_block(scale, row, column, K, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The scale of the block that a row and a column are in."""
    return tl.load(scale + row // ROWS * tl.cdiv(K, COLUMNS) + column // COLUMNS)


@triton.jit
def _linear_kernel(
    x,  # [rows, x_stride]
    weight,  # [N, K], with WIDENED in FP8
    scale,  # [N] float32, with WIDENED; with ROWS > 0 [cdiv(N, ROWS), cdiv(K, COLUMNS)]
    bias,  # [N], with BIASED
    out,  # [rows, N] (or N / 2 when GATED)
    rows,
    x_stride,
    N: tl.constexpr,
    K: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    GATED: tl.constexpr,
    BIASED: tl.constexpr,
    WIDENED: tl.constexpr,
    ROWS: tl.constexpr,  # of a block of scales; 0: there are none
    COLUMNS: tl.constexpr,  # a multiple of BK
    MIXED: tl.constexpr,
    PDL: tl.constexpr,
):
    release(PDL)
    tile, row_tile = tl.program_id(0), tl.program_id(1)
    column = tile * BN + tl.arange(0, BN)
    k = tl.arange(0, BK)
    weights = weight + column.to(tl.int64)[:, None] * K + k[None, :]
    first = tl.load(weights)
    if GATED:
        first_up = tl.load(weights + N // 2 * K)
    wait(PDL)
    row = row_tile * BM + tl.arange(0, BM)
    inside = row < rows
    inputs = x + row[None, :] * x_stride + column_of(k, MIXED)[:, None]
    value = tl.load(inputs, mask=inside[None, :], other=0.0)
    acc = tl.dot(first.to(value.dtype), value)
    if ROWS > 0:
        acc *= _of_block(scale, column, 0, K, ROWS, COLUMNS)[:, None]
    if GATED:
        acc_up = tl.dot(first_up.to(value.dtype), value)
        if ROWS > 0:
            acc_up *= _of_block(scale, N // 2 + column, 0, K, ROWS, COLUMNS)[:, None]
    for start in tl.range(BK, K, BK):
        value = tl.load(inputs + start, mask=inside[None, :], other=0.0)
        part = tl.load(weights + start).to(value.dtype)
        if ROWS > 0:
            by = _of_block(scale, column, start, K, ROWS, COLUMNS)[:, None]
            acc += tl.dot(part, value) * by
        else:
            acc = tl.dot(part, value, acc)
            if WIDENED:
                acc = settled(acc)
        if GATED:
            up = tl.load(weights + start + N // 2 * K).to(value.dtype)
            if ROWS > 0:
                by = _of_block(scale, N // 2 + column, start, K, ROWS, COLUMNS)[:, None]
                acc_up += tl.dot(up, value) * by
            else:
                acc_up = tl.dot(up, value, acc_up)
                if WIDENED:
                    acc_up = settled(acc_up)
    if WIDENED:
        acc *= tl.load(scale + column)[:, None]
    if BIASED:
        acc += tl.load(bias + column)[:, None].to(tl.float32)
    if GATED:
        if WIDENED:
            acc_up *= tl.load(scale + N // 2 + column)[:, None]
        if BIASED:
            acc_up += tl.load(bias + N // 2 + column)[:, None].to(tl.float32)
        dtype = out.dtype.element_ty
        gate = acc.to(dtype).to(tl.float32)
        gate = (gate / (1 + tl.exp(-gate))).to(dtype)
        acc = (gate * acc_up.to(dtype)).to(tl.float32)
    width: tl.constexpr = N // 2 if GATED else N
    place = out + row[None, :].to(tl.int64) * width + column[:, None]
    tl.store(place, acc.to(out.dtype.element_ty), mask=inside[None, :])


def row_tile(rows: int) -> int:
    """Columns of activations in a tile."""
    return max(16, min(64, int(triton.next_power_of_2(rows))))


def linear(
    x: Tensor, weight: Weight, out: Tensor, tile: Tile, gated: bool = False, dependent: bool = False
) -> None:
    """out = x W^T + b, or silu(gate) * up of it when gated.

    x: [rows, k], rows may be strided; weight: [n, k], gate rows before up rows when gated, of any
    layout (in blocks: of a multiple of tile.k columns, or of 64 for one row); out: [rows, n]
    ([rows, n / 2] when gated). n (n / 2) must be a multiple of tile.n, k of tile.k.
    """
    rows, depth = x.shape
    count = weight.n
    wide = count // 2 if gated else count
    bm = row_tile(rows)
    _linear_kernel[(wide // tile.n, triton.cdiv(rows, bm))](
        x, weight.data, *operands(weight, x), out, rows, x.stride(0), N=count, K=depth, BM=bm,
        BN=tile.n, BK=tile.k, GATED=gated, **kinds(weight), **block_sizes(weight),
        MIXED=mixed(weight), num_warps=tile.warps, num_stages=tile.stages, **launch(dependent),
    )  # fmt: skip


@triton.jit
def _vector_kernel(
    x, weight, scale, bias, out,
    K: tl.constexpr, N: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GATED: tl.constexpr,
    BIASED: tl.constexpr, WIDENED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    MIXED: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    release(PDL)
    column = tl.program_id(0) * BN + tl.arange(0, BN)
    k = tl.arange(0, BK)
    weights = weight + column.to(tl.int64)[:, None] * K + k[None, :]
    first = tl.load(weights)
    if GATED:
        first_up = tl.load(weights + N // 2 * K)
    wait(PDL)
    inputs = x + column_of(k, MIXED)
    if MIXED:  # two neighbours stay so, which the compiler cannot see: it loads both at once
        inputs = tl.max_contiguous(tl.multiple_of(inputs, 4), 2)
    value = tl.load(inputs)[None, :].to(tl.float32)
    acc = first.to(tl.float32) * value
    if ROWS > 0:  # a block is whole groups of columns that are reordered among themselves
        acc *= _of_block(scale, column[:, None], k[None, :], K, ROWS, COLUMNS)
    if GATED:
        acc_up = first_up.to(tl.float32) * value
        if ROWS > 0:
            acc_up *= _of_block(scale, N // 2 + column[:, None], k[None, :], K, ROWS, COLUMNS)
    for start in tl.range(BK, K, BK):
        value = tl.load(inputs + start)[None, :].to(tl.float32)
        part = tl.load(weights + start).to(tl.float32) * value
        if ROWS > 0:
            part *= _of_block(scale, column[:, None], start + k[None, :], K, ROWS, COLUMNS)
        acc += part
        if GATED:
            up_part = tl.load(weights + start + N // 2 * K).to(tl.float32) * value
            if ROWS > 0:
                place = start + k[None, :]
                up_part *= _of_block(scale, N // 2 + column[:, None], place, K, ROWS, COLUMNS)
            acc_up += up_part
    result = tl.sum(acc, 1)
    if WIDENED:
        result *= tl.load(scale + column)
    if BIASED:
        result += tl.load(bias + column).to(tl.float32)
    if GATED:
        up = tl.sum(acc_up, 1)
        if WIDENED:
            up *= tl.load(scale + N // 2 + column)
        if BIASED:
            up += tl.load(bias + N // 2 + column).to(tl.float32)
        dtype = out.dtype.element_ty
        gate = result.to(dtype).to(tl.float32)
        gate = (gate / (1 + tl.exp(-gate))).to(dtype)
        result = (gate * up.to(dtype)).to(tl.float32)
    tl.store(out + column, result.to(out.dtype.element_ty))


def linear_one_row(
    x: Tensor, weight: Weight, out: Tensor, tile: Tile, gated: bool = False, dependent: bool = False
) -> None:
    """`linear` for one row, without tensor cores: x [1, k], out [1, n] ([1, n / 2] when gated)."""
    count, depth = weight.n, weight.k
    wide = count // 2 if gated else count
    _vector_kernel[(wide // tile.n,)](
        x, weight.data, *operands(weight, x), out, K=depth, N=count, BN=tile.n, BK=tile.k,
        GATED=gated, **kinds(weight), **block_sizes(weight), MIXED=mixed(weight),
        num_warps=tile.warps, num_stages=tile.stages, **launch(dependent),
    )  # fmt: skip
