"""A product in which every output is summed by one program, from the first column to the last.

No split of k, and blocks of k one after the other into the same sum. So the order is that of the
tensor cores' instructions alone, whatever the number of rows. Weights of 8 bits are widened in
registers; where blocks of them have scales, the order follows from the tile's depth too.

Reference: `penstock_kernels.reference.device.linear`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.launch.dependent import launch, release, wait
from penstock_kernels.gpu.products.operands import block_sizes, kinds, mixed, operands
from penstock_kernels.gpu.products.operands import column as column_of
from penstock_kernels.gpu.products.settled import settled
from penstock_kernels.weight import Weight

TOGETHER = 8  # tiles of rows that read the same tiles of the weight while these are in the cache


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows of the weight, rows of activations, depth, warps and pipeline stages of a program."""

    n: int
    rows: int
    k: int
    warps: int
    stages: int


@triton.jit
def _of_blocks(scale, row, column, inside, K, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The scale of the block that a column and each row are in."""
    return tl.load(
        scale + row // ROWS * tl.cdiv(K, COLUMNS) + column // COLUMNS, mask=inside, other=0.0
    ).to(tl.float32)


@triton.jit
def _place(BN: tl.constexpr, BM: tl.constexpr, N: tl.constexpr, rows, TOGETHER: tl.constexpr):
    """Which tiles of the weight and of the rows a program multiplies."""
    across: tl.constexpr = (N + BN - 1) // BN
    down = tl.cdiv(rows, BM)
    program = tl.program_id(0)
    first = program // (TOGETHER * across) * TOGETHER
    some = tl.minimum(down - first, TOGETHER)
    within = program % (TOGETHER * across)
    return within // some, first + within % some


@triton.jit(do_not_specialize=["rows"])
def _kernel(
    x,  # [rows, x_stride]
    weight,  # [N, K]
    scale,  # [N] float32, with WIDENED; with ROWS > 0 [cdiv(N, ROWS), cdiv(K, COLUMNS)]
    bias,  # [N], with BIASED
    out,  # [rows, N]
    rows,
    x_stride,
    N: tl.constexpr,
    K: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    BIASED: tl.constexpr,
    WIDENED: tl.constexpr,
    ROWS: tl.constexpr,  # of a block of scales; 0: there are none
    COLUMNS: tl.constexpr,  # a multiple of BK
    MIXED: tl.constexpr,
    PRECISION: tl.constexpr,
    TOGETHER: tl.constexpr,
    PDL: tl.constexpr,
):
    release(PDL)
    tile, row_tile = _place(BN, BM, N, rows, TOGETHER)
    column = tile * BN + tl.arange(0, BN)
    row = row_tile * BM + tl.arange(0, BM)
    real, there = column < N, row < rows
    k = tl.arange(0, BK)
    weights = weight + column.to(tl.int64)[:, None] * K + k[None, :]
    inputs = x + row.to(tl.int64)[None, :] * x_stride + column_of(k, MIXED)[:, None]
    wait(PDL)
    acc = tl.zeros([BN, BM], tl.float32)
    for start in tl.range(0, K, BK):
        if K % BK == 0 and N % BN == 0:
            part = tl.load(weights + start)
        else:
            known = real[:, None] & (start + k < K)[None, :]
            part = tl.load(weights + start, mask=known, other=0.0)
        if K % BK == 0:
            value = tl.load(inputs + start, mask=there[None, :], other=0.0)
        else:
            value = tl.load(
                inputs + start, mask=there[None, :] & (start + k < K)[:, None], other=0.0
            )
        if ROWS > 0:
            by = _of_blocks(scale, column, start, real, K, ROWS, COLUMNS)
            product = tl.dot(part.to(value.dtype), value, input_precision=PRECISION)
            acc = tl.fma(product, tl.broadcast_to(by[:, None], [BN, BM]), acc)
        else:
            acc = tl.dot(part.to(value.dtype), value, acc, input_precision=PRECISION)
            if WIDENED:
                acc = settled(acc)
    if WIDENED:
        acc *= tl.load(scale + column, mask=real, other=0.0)[:, None]
    result = acc
    if BIASED:
        result += tl.load(bias + column, mask=real, other=0.0)[:, None].to(tl.float32)
    place = out + row.to(tl.int64)[None, :] * N + column[:, None]
    tl.store(place, result.to(out.dtype.element_ty), mask=there[None, :] & real[:, None])


def invariant_linear(x: Tensor, weight: Weight, tile: Tile, dependent: bool = False) -> Tensor:
    """x W^T + b. x: [rows, k], rows may be strided; weight: [n, k], dense or of 8 bits. Returns
    [rows, n]."""
    rows, n = len(x), weight.n
    out = x.new_empty(rows, n)
    grid = triton.cdiv(n, tile.n) * triton.cdiv(rows, tile.rows)
    if not grid:
        return out
    _kernel[(grid,)](
        x, weight.data, *operands(weight, x), out, rows, x.stride(0), N=n, K=weight.k,
        BM=tile.rows, BN=tile.n, BK=tile.k, **kinds(weight), **block_sizes(weight),
        MIXED=mixed(weight), PRECISION="ieee" if x.dtype == torch.float32 else "tf32",
        TOGETHER=TOGETHER, num_warps=tile.warps, num_stages=tile.stages, **launch(dependent),
    )  # fmt: skip
    return out
