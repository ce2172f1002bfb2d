"""Products with weights in whole numbers of 4 bits on any card, and such weights widened in memory.

y = x W^T as in `linear`: one pass over the weight. A tile of 64 rows and 128 columns is 4096
bytes that stand together (`penstock_kernels.int4`); its numbers are put in order in registers.

Reference: `penstock_kernels.weight.Weight.dequantised`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.launch.dependent import launch, release, wait
from penstock_kernels.gpu.products.linear import row_tile
from penstock_kernels.gpu.products.settled import settled
from penstock_kernels.int4 import BYTES, COLUMNS, ROWS
from penstock_kernels.weight import Weight

WARPS, STAGES = 4, 3  # not measured


@triton.jit
def _tile(data, scale, zero, index, G: tl.constexpr, ZEROS: tl.constexpr):
    """Numbers [64, 128] of tile `index`, in float32."""
    byte = tl.load(data + index.to(tl.int64) * 4096 + tl.arange(0, 4096))
    both = tl.join(byte & 15, byte >> 4)
    # Vector, warp, row, thread, product, neighbour, half of columns, half of rows.
    parts = tl.reshape(both, [2, 4, 8, 4, 4, 2, 2, 2])
    parts = tl.permute(parts, [1, 7, 2, 0, 4, 6, 3, 5])
    numbers = tl.reshape(parts, [64, G, 128 // G]).to(tl.float32) - 8
    place = index.to(tl.int64) * (64 * G) + tl.arange(0, G)[None, :] * 64
    place += tl.arange(0, 64)[:, None]
    if ZEROS:
        numbers -= tl.load(zero + place).to(tl.float32)[:, :, None]
    numbers *= tl.load(scale + place).to(tl.float32)[:, :, None]
    return tl.reshape(numbers, [64, 128])


@triton.jit
def _widen_kernel(
    data,  # [cdiv(N, 64), cdiv(K, 128), 4096] bytes
    scale,  # [cdiv(N, 64), cdiv(K, 128) * G, 64]
    zero,  # the same, with ZEROS
    out,  # [N, K]
    N,
    K,
    G: tl.constexpr,
    ZEROS: tl.constexpr,
    PDL: tl.constexpr,
):
    wait(PDL)
    tall, wide = tl.program_id(0), tl.program_id(1)
    numbers = _tile(data, scale, zero, tall * tl.cdiv(K, 128) + wide, G, ZEROS)
    row, column = tall * 64 + tl.arange(0, 64), wide * 128 + tl.arange(0, 128)
    target = out + row.to(tl.int64)[:, None] * K + column[None, :]
    inside = (row < N)[:, None] & (column < K)[None, :]
    tl.store(target, numbers.to(out.dtype.element_ty), mask=inside)


def widened(weight: Weight, dtype: torch.dtype, dependent: bool = False) -> Tensor:
    """[n, columns] of dtype, rounded once, its columns in the weight's order."""
    columns = weight.k if weight.order is None else len(weight.order)
    out = torch.empty(weight.n, columns, dtype=dtype, device=weight.device)
    grid = (triton.cdiv(weight.n, ROWS), triton.cdiv(columns, COLUMNS))
    _widen_kernel[grid](
        weight.data, *operands(weight), out, weight.n, columns, **kinds(weight), num_warps=WARPS,
        **launch(dependent),
    )  # fmt: skip
    return out


def operands(weight: Weight) -> tuple[Tensor, Tensor]:
    """Scale and zeros. Where there are none they are not read."""
    assert weight.scale is not None
    return weight.scale, weight.scale if weight.zero is None else weight.zero


def kinds(weight: Weight) -> dict[str, int]:
    """What a kernel must know of a weight when it is compiled."""
    return {"G": COLUMNS // weight.scale_columns, "ZEROS": weight.zero is not None}


@triton.jit
def _int4_kernel(
    x,  # [rows, x_stride]
    data,
    scale,
    zero,
    bias,  # [N], with BIASED
    out,  # [rows, N] (or N / 2 when GATED)
    rows,
    x_stride,
    N: tl.constexpr,
    K: tl.constexpr,
    BM: tl.constexpr,
    GATED: tl.constexpr,
    BIASED: tl.constexpr,
    G: tl.constexpr,
    ZEROS: tl.constexpr,
    PDL: tl.constexpr,
):
    release(PDL)
    tile, row = tl.program_id(0), tl.program_id(1) * BM + tl.arange(0, BM)
    DEPTHS: tl.constexpr = (K + 127) // 128
    inside = row < rows
    wait(PDL)
    acc = tl.zeros([64, BM], tl.float32)
    acc_up = tl.zeros([64, BM], tl.float32)
    for depth in tl.range(0, DEPTHS):
        k = depth * 128 + tl.arange(0, 128)
        there = (k < K)[:, None] & inside[None, :]
        value = tl.load(x + row[None, :] * x_stride + k[:, None], mask=there, other=0.0)
        part = _tile(data, scale, zero, tile * DEPTHS + depth, G, ZEROS)
        acc = settled(tl.dot(part.to(value.dtype), value, acc))
        if GATED:
            second = (N // 128 + tile) * DEPTHS + depth
            up = _tile(data, scale, zero, second, G, ZEROS)
            acc_up = settled(tl.dot(up.to(value.dtype), value, acc_up))
    column = tile * 64 + tl.arange(0, 64)
    width: tl.constexpr = N // 2 if GATED else N
    there = column < width
    if BIASED:
        acc += tl.load(bias + column, mask=there, other=0.0)[:, None].to(tl.float32)
    if GATED:
        if BIASED:
            acc_up += tl.load(bias + N // 2 + column)[:, None].to(tl.float32)
        dtype = out.dtype.element_ty
        gate = acc.to(dtype).to(tl.float32)
        gate = (gate / (1 + tl.exp(-gate))).to(dtype)
        acc = (gate * acc_up.to(dtype)).to(tl.float32)
    place = out + row[None, :].to(tl.int64) * width + column[:, None]
    tl.store(place, acc.to(out.dtype.element_ty), mask=inside[None, :] & there[:, None])


def int4_linear(
    x: Tensor, weight: Weight, out: Tensor, gated: bool = False, dependent: bool = False
) -> None:
    """out = x W^T + b, or silu(gate) * up of it when gated, for a few rows.

    x: [rows, k], rows may be strided; weight: [n, k] of layout INT4 with its inputs in order, gate
    rows before up rows when gated (then n is a multiple of 128); out: [rows, n] ([rows, n / 2] when
    gated).
    """
    rows, bm = len(x), row_tile(len(x))
    wide = weight.n // 2 if gated else weight.n
    _int4_kernel[(triton.cdiv(wide, ROWS), triton.cdiv(rows, bm))](
        x, weight.data, *operands(weight), x if weight.bias is None else weight.bias, out, rows,
        x.stride(0), N=weight.n, K=weight.k, BM=bm, GATED=gated, BIASED=weight.bias is not None,
        **kinds(weight), num_warps=WARPS, num_stages=STAGES, **launch(dependent),
    )  # fmt: skip


assert BYTES == 4096  # what the kernels above have for it
