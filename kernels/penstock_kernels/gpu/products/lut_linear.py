"""Products with weights of 4-bit codes, on any card, and such weights in half precision in memory.

y = x W^T as in `linear`: one pass over the weight. A byte holds the codes of two neighbouring
columns, so a tile of bytes is two tiles of numbers, each multiplied with its own columns of x. The
table is looked up in memory: 64 bytes, which stay in the first cache.

Reference: `penstock_kernels.weight.Weight.dequantised`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.fp8 import GROUP
from penstock_kernels.gpu.launch.card import has_fp8
from penstock_kernels.gpu.launch.dependent import launch, release, wait
from penstock_kernels.gpu.products.linear import Tile, row_tile
from penstock_kernels.gpu.products.operands import column as column_of
from penstock_kernels.gpu.products.settled import settled
from penstock_kernels.weight import Weight

BLOCK = 512  # bytes


@triton.jit
def _numbers(
    codes, table, scale, row, column, inside, N,
    TABLES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """What codes stand for, in float32. COLUMNS: of a block of scales; 0: there are none."""
    place = codes.to(tl.int32)
    if TABLES:
        place += row * 16
    value = tl.load(table + place)
    if COLUMNS > 0:
        at = scale + (column // COLUMNS * N + row)
        value *= tl.load(at, mask=inside, other=0.0).to(tl.float32)
    return value


@triton.jit
def _widen_kernel(
    data,  # [N, K / 2] bytes
    table,  # [16] float32; [N, 16] with TABLES
    scale,  # [K / COLUMNS, N]
    outer,  # [N] float32, with OUTER
    out,  # [N, K]
    N,
    K,
    TABLES: tl.constexpr,
    COLUMNS: tl.constexpr,
    OUTER: tl.constexpr,
    MIXED: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    wait(PDL)
    row = tl.program_id(0)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < K // 2
    byte = tl.load(data + row.to(tl.int64) * (K // 2) + place, mask=inside, other=0)
    low = column_of(2 * place, MIXED)  # the columns of a byte's codes are neighbours
    first = _numbers(byte & 15, table, scale, row, low, inside, N, TABLES, COLUMNS)
    second = _numbers(byte >> 4, table, scale, row, low + 1, inside, N, TABLES, COLUMNS)
    if OUTER:
        by = tl.load(outer + row)
        first *= by
        second *= by
    target = out + row.to(tl.int64) * K + low
    tl.store(target, first.to(out.dtype.element_ty), mask=inside)
    tl.store(target + 1, second.to(out.dtype.element_ty), mask=inside)


def widened(weight: Weight, dtype: torch.dtype, dependent: bool = False) -> Tensor:
    """[n, k] of dtype, rounded once."""
    if not readable(weight):
        return weight.dequantised().to(dtype)
    out = torch.empty(weight.n, weight.k, dtype=dtype, device=weight.device)
    _widen_kernel[(weight.n, triton.cdiv(weight.k // 2, BLOCK))](
        weight.data, *operands(weight), out, weight.n, weight.k, **kinds(weight), BLOCK=BLOCK,
        **launch(dependent),
    )  # fmt: skip
    return out


def readable(weight: Weight) -> bool:
    """Whether kernels can read the scales there."""
    is_fp8 = weight.scale is not None and weight.scale.dtype == torch.float8_e4m3fn
    return not is_fp8 or has_fp8(weight.device)


def operands(weight: Weight) -> tuple[Tensor, Tensor, Tensor]:
    """Table, scale and outer scale. What there is none of is not read: any tensor stands for it."""
    table, scale, outer = weight.table, weight.scale, weight.outer
    assert table is not None
    return table, table if scale is None else scale, table if outer is None else outer


def kinds(weight: Weight) -> dict[str, int]:
    """What a kernel must know of a weight when it is compiled."""
    assert weight.table is not None
    return {
        "TABLES": len(weight.table) > 1,
        "COLUMNS": 0 if weight.scale is None else weight.scale_columns,
        "OUTER": weight.outer is not None,
        "MIXED": weight.k % GROUP == 0,
    }


@triton.jit
def _tile_numbers(
    data, table, scale, x, row, start, N, K,
    TABLES: tl.constexpr, COLUMNS: tl.constexpr, MIXED: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """A tile of the even and one of the odd columns from `start` on, of the type of x."""
    place = start // 2 + tl.arange(0, BK // 2)
    low = column_of(2 * place, MIXED)[None, :]
    line = row[:, None]
    byte = tl.load(data + row.to(tl.int64)[:, None] * (K // 2) + place[None, :])
    first = _numbers(byte & 15, table, scale, line, low, line < N, N, TABLES, COLUMNS)
    second = _numbers(byte >> 4, table, scale, line, low + 1, line < N, N, TABLES, COLUMNS)
    return first.to(x.dtype.element_ty), second.to(x.dtype.element_ty)


@triton.jit
def _lut_kernel(
    x,  # [rows, x_stride]
    data,  # [N, K / 2] bytes
    table,
    scale,
    outer,
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
    TABLES: tl.constexpr,
    COLUMNS: tl.constexpr,
    OUTER: tl.constexpr,
    MIXED: tl.constexpr,
    PDL: tl.constexpr,
):
    release(PDL)
    column = tl.program_id(0) * BN + tl.arange(0, BN)
    row = tl.program_id(1) * BM + tl.arange(0, BM)
    inside = row < rows
    wait(PDL)
    acc = tl.zeros([BN, BM], tl.float32)
    acc_up = tl.zeros([BN, BM], tl.float32)
    for start in tl.range(0, K, BK):
        low = column_of(start + 2 * tl.arange(0, BK // 2), MIXED)
        inputs = x + row[None, :] * x_stride + low[:, None]
        even = tl.load(inputs, mask=inside[None, :], other=0.0)
        odd = tl.load(inputs + 1, mask=inside[None, :], other=0.0)
        first, second = _tile_numbers(
            data, table, scale, x, column, start, N, K, TABLES, COLUMNS, MIXED, BK
        )
        acc = settled(tl.dot(second, odd, tl.dot(first, even, acc)))
        if GATED:
            first, second = _tile_numbers(
                data, table, scale, x, N // 2 + column, start, N, K, TABLES, COLUMNS, MIXED, BK
            )
            acc_up = settled(tl.dot(second, odd, tl.dot(first, even, acc_up)))
    if OUTER:
        acc *= tl.load(outer + column)[:, None]
    if BIASED:
        acc += tl.load(bias + column)[:, None].to(tl.float32)
    if GATED:
        if OUTER:
            acc_up *= tl.load(outer + N // 2 + column)[:, None]
        if BIASED:
            acc_up += tl.load(bias + N // 2 + column)[:, None].to(tl.float32)
        dtype = out.dtype.element_ty
        gate = acc.to(dtype).to(tl.float32)
        gate = (gate / (1 + tl.exp(-gate))).to(dtype)
        acc = (gate * acc_up.to(dtype)).to(tl.float32)
    width: tl.constexpr = N // 2 if GATED else N
    place = out + row[None, :].to(tl.int64) * width + column[:, None]
    tl.store(place, acc.to(out.dtype.element_ty), mask=inside[None, :])


def lut_linear(
    x: Tensor, weight: Weight, out: Tensor, tile: Tile, gated: bool = False, dependent: bool = False
) -> None:
    """out = x W^T + b, or silu(gate) * up of it when gated, for a few rows.

    x: [rows, k], rows may be strided; weight: [n, k] of layout LUT, gate rows before up rows when
    gated; out: [rows, n] ([rows, n / 2] when gated). n (n / 2) must be a multiple of tile.n, k of
    tile.k, which is a multiple of 64.
    """
    rows, bm = len(x), row_tile(len(x))
    wide = weight.n // 2 if gated else weight.n
    _lut_kernel[(wide // tile.n, triton.cdiv(rows, bm))](
        x, weight.data, *operands(weight), x if weight.bias is None else weight.bias, out, rows,
        x.stride(0), N=weight.n, K=weight.k, BM=bm, BN=tile.n, BK=tile.k, GATED=gated,
        BIASED=weight.bias is not None, **kinds(weight), num_warps=tile.warps,
        num_stages=tile.stages, **launch(dependent),
    )  # fmt: skip
