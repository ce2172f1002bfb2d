"""Products in FP8 with weights in whole numbers of 4 bits, on any card that multiplies FP8.

y = x W^T of rows in e4m3. A number less what stands for 0 is exact in e4m3, and each group's sum is
multiplied with its scale. On Hopper `hopper_w4a8` does the same faster. Not measured.

Reference: `penstock_kernels.reference.device.linear`.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.launch.dependent import launch, release, wait
from penstock_kernels.gpu.products.int4_linear import kinds, operands
from penstock_kernels.gpu.products.operands import place_of
from penstock_kernels.int4 import ROWS
from penstock_kernels.weight import Weight

BM, WARPS, STAGES = 128, 4, 3


@triton.jit
def _numbers(data, zero, index, g: tl.constexpr, G: tl.constexpr, ZEROS: tl.constexpr):
    """Group g of tile `index`, less what stands for 0, in float32: [64, 128 / G]."""
    BYTES: tl.constexpr = 4096 // G
    byte = tl.load(data + index.to(tl.int64) * 4096 + g * BYTES + tl.arange(0, BYTES))
    both = tl.join(byte & 15, byte >> 4)
    # Vector, warp, row, thread, product, neighbour, half of columns, half of rows.
    parts = tl.reshape(both, [2 // G, 4, 8, 4, 4, 2, 2, 2])
    parts = tl.permute(parts, [1, 7, 2, 0, 4, 6, 3, 5])
    numbers = tl.reshape(parts, [64, 128 // G]).to(tl.float32) - 8
    if ZEROS:
        place = index.to(tl.int64) * (64 * G) + g * 64 + tl.arange(0, 64)
        numbers -= tl.load(zero + place).to(tl.float32)[:, None]
    return numbers


@triton.jit
def _w4a8_kernel(
    x,  # [rows, K] e4m3, columns as `int4.interleave` has them
    x_scale,  # [rows]
    data,
    scale,
    zero,
    bias,  # [N], with BIASED
    out,  # [rows, N]
    rows,
    N,
    K,
    BM: tl.constexpr,
    BIASED: tl.constexpr,
    G: tl.constexpr,
    ZEROS: tl.constexpr,
    PDL: tl.constexpr,
):
    release(PDL)
    tile, row = tl.program_id(0), tl.program_id(1) * BM + tl.arange(0, BM)
    depths, inside = tl.cdiv(K, 128), row < rows
    wait(PDL)
    acc = tl.zeros([64, BM], tl.float32)
    for depth in tl.range(0, depths):
        index = tile * depths + depth
        for g in tl.static_range(G):
            k = depth * 128 + g * (128 // G) + tl.arange(0, 128 // G)
            place = row.to(tl.int64)[None, :] * K + place_of(k, 2)[:, None]
            value = tl.load(x + place, mask=(k < K)[:, None] & inside[None, :], other=0.0)
            numbers = _numbers(data, zero, index, g, G, ZEROS).to(value.dtype)
            at = index.to(tl.int64) * (64 * G) + g * 64 + tl.arange(0, 64)
            by = tl.load(scale + at).to(tl.float32)
            acc += tl.dot(numbers, value) * by[:, None]
    acc *= tl.load(x_scale + row, mask=inside, other=0.0)[None, :]
    column = tile * 64 + tl.arange(0, 64)
    there = column < N
    if BIASED:
        acc += tl.load(bias + column, mask=there, other=0.0)[:, None].to(tl.float32)
    place = out + row[None, :].to(tl.int64) * N + column[:, None]
    tl.store(place, acc.to(out.dtype.element_ty), mask=inside[None, :] & there[:, None])


def w4a8_linear(
    x: Tensor, x_scale: Tensor, weight: Weight, out: Tensor, dependent: bool = False
) -> None:
    """out = x W^T + b.

    x: [rows, k] e4m3, dense, columns as `int4.interleave` has them; x_scale: [rows, 1] float32;
    weight: INT4 [n, k] in groups of 64 or 128; out: [rows, n].
    """
    rows, depth = x.shape
    _w4a8_kernel[(triton.cdiv(weight.n, ROWS), triton.cdiv(rows, BM))](
        x, x_scale, weight.data, *operands(weight), x if weight.bias is None else weight.bias, out,
        rows, weight.n, depth, BM=BM, BIASED=weight.bias is not None, **kinds(weight),
        num_warps=WARPS, num_stages=STAGES, **launch(dependent),
    )  # fmt: skip
