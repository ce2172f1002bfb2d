"""Products of one row that has its norm before it.

A norm of one row takes as long to start as the smaller products take to read. Here every program
reads the row, from the second cache, and normalises it, while its first weights are on their way.
So there are only as many programs as run at once. Each goes from tile to tile of the weight with
the row in its registers, and reads the next tile while it multiplies one. (A program a tile, as
`linear` has, took 5 us longer for each product of Llama-3.1-8B in FP8 on an H200.)

Reference: `penstock_kernels.reference.norm`, then `Weight.dequantised`.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.launch.dependent import launch, release, wait
from penstock_kernels.gpu.launch.hopper import multiprocessors
from penstock_kernels.gpu.products.linear import of_block, silu_gated, sums
from penstock_kernels.gpu.products.operands import block_sizes, kinds, mixed, operands
from penstock_kernels.gpu.products.operands import column as column_of
from penstock_kernels.gpu.products.problem import Problem
from penstock_kernels.gpu.step.norm import gained
from penstock_kernels.ops import Norm, NormKind
from penstock_kernels.weight import Layout, Weight


@dataclass(frozen=True, slots=True)
class RawTile:
    """Shape of a launch: weight rows of a tile, warps, programs of a multiprocessor."""

    n: int
    warps: int
    residents: int


HELD = 16 << 10  # bytes of a tile, of gate and up together
MOST = 8192  # of a row


def raw_tile(p: Problem, gated: bool) -> RawTile | None:
    """For weights that stand row by row; None: not this way."""
    wide, size = (p.n // 2, 2) if gated else (p.n, 1)
    size *= p.k * (2 if p.layout is Layout.DENSE else 1)
    rows = max(1, HELD // size)
    if p.k & (p.k - 1) or not 512 <= p.k <= MOST or wide % rows:
        return None
    return RawTile(rows, 4, 2)


@triton.jit
def _tile(weight, tile, first, there, K: tl.constexpr, BN: tl.constexpr):
    """Rows of the weight; nothing where it is not there."""
    row = first + tile * BN + tl.arange(0, BN)
    place = row.to(tl.int64)[:, None] * K + tl.arange(0, K)[None, :]
    return tl.load(weight + place, mask=there, other=0.0)


@triton.jit
def _times(
    numbers, value, column, scale, K: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    acc = numbers.to(tl.float32) * value
    if ROWS > 0:  # a block is whole groups of columns that are reordered among themselves
        acc *= of_block(scale, column[:, None], tl.arange(0, K)[None, :], K, ROWS, COLUMNS)
    return acc


@triton.jit
def _kernel(
    x,  # [K]
    weight,  # [N, K]
    scale,
    bias,
    gain,  # [K]
    eps,
    out,  # [N] (N / 2 when GATED)
    N: tl.constexpr,
    K: tl.constexpr,  # a power of two
    BN: tl.constexpr,
    GATED: tl.constexpr,
    BIASED: tl.constexpr,
    WIDENED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    MIXED: tl.constexpr,
    ONE: tl.constexpr,
    PDL: tl.constexpr,
):
    release(PDL)
    first, step = tl.program_id(0), tl.num_programs(0)
    tiles: tl.constexpr = (N // 2 if GATED else N) // BN
    numbers = _tile(weight, first, 0, True, K, BN)
    if GATED:
        up_numbers = _tile(weight, first, N // 2, True, K, BN)
    inputs = x + column_of(tl.arange(0, K), MIXED)
    weights = gain + column_of(tl.arange(0, K), MIXED)
    if MIXED:
        inputs = tl.max_contiguous(tl.multiple_of(inputs, 4), 2)
        weights = tl.max_contiguous(tl.multiple_of(weights, 4), 2)
    gains = tl.load(weights)
    wait(PDL)
    value = tl.load(inputs).to(tl.float32)
    by = tl.rsqrt(tl.sum(value * value, 0) / K + eps)
    value = gained(value * by, gains, ONE).to(tl.float32)[None, :]
    for tile in range(first, tiles, step):
        column, there = tile * BN + tl.arange(0, BN), tile + step < tiles
        following = _tile(weight, tile + step, 0, there, K, BN)
        if GATED:
            up_following = _tile(weight, tile + step, N // 2, there, K, BN)
        acc = _times(numbers, value, column, scale, K, ROWS, COLUMNS)
        result = sums(acc, 1.0, column, scale, bias, BIASED, WIDENED)
        if GATED:
            acc = _times(up_numbers, value, N // 2 + column, scale, K, ROWS, COLUMNS)
            up = sums(acc, 1.0, N // 2 + column, scale, bias, BIASED, WIDENED)
            result = silu_gated(result, up, out.dtype.element_ty)
            up_numbers = up_following
        tl.store(out + column, result.to(out.dtype.element_ty))
        numbers = following


def raw_row_linear(
    x: Tensor, norm: Norm, weight: Weight, out: Tensor, tile: RawTile, gated: bool = False,
    dependent: bool = False,
) -> None:  # fmt: skip
    """out = y W^T + b of y, x normalised by root mean squares, or silu(gate) * up of it when gated.

    x: [1, k], k a power of two; weight: [n, k], dense or of 8 bits, gate rows before up rows when
    gated; out: [1, n] ([1, n / 2] when gated). n (n / 2) is a multiple of tile.n.
    """
    n, k = weight.n, weight.k
    tiles = (n // 2 if gated else n) // tile.n
    programs = min(tiles, tile.residents * multiprocessors(x.device))
    _kernel[(programs,)](
        x, weight.data, *operands(weight, x), norm.weight, norm.eps, out, N=n, K=k, BN=tile.n,
        GATED=gated, **kinds(weight), **block_sizes(weight), MIXED=mixed(weight),
        ONE=norm.kind is NormKind.RMS_ONE, num_warps=tile.warps, num_stages=1,
        **launch(dependent),
    )  # fmt: skip
