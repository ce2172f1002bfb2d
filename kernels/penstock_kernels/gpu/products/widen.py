"""A weight of 8 bits as one in half precision, in memory: for products that have no kernel for it.

Reference: `penstock_kernels.weight.Weight.dequantised`. A number costs 5 bytes of traffic instead
of 1: one read, two written here, two read by the product.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.launch.card import has_fp8
from penstock_kernels.gpu.launch.dependent import launch, wait
from penstock_kernels.gpu.products.operands import block_sizes, column, mixed
from penstock_kernels.weight import Weight

BLOCK = 1024


@triton.jit
def _widen_kernel(
    data,  # [n, K] e4m3 or int8
    scale,  # [n] float32, or of blocks
    out,  # [n, K]
    K,
    MIXED: tl.constexpr,
    ROWS: tl.constexpr,  # of a block of scales; 0: a scale a row
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    wait(PDL)
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < K
    value = tl.load(data + row * K + place, mask=inside, other=0.0).to(tl.float32)
    target = column(place, MIXED)
    if ROWS > 0:
        at = row // ROWS * tl.cdiv(K, COLUMNS) + target // COLUMNS
        value *= tl.load(scale + at, mask=inside, other=0.0).to(tl.float32)
    else:
        value *= tl.load(scale + row)
    tl.store(out + row * K + target, value.to(out.dtype.element_ty), mask=inside)


def widened(weight: Weight, dtype: torch.dtype, dependent: bool = False) -> Tensor:
    """[n, k] of dtype, rounded once."""
    is_fp8 = weight.data.dtype == torch.float8_e4m3fn
    if is_fp8 and not has_fp8(weight.device):  # where kernels cannot read e4m3
        return weight.dequantised().to(dtype)
    if weight.zero is not None or weight.order is not None:
        return weight.dequantised().to(dtype)
    assert weight.scale is not None
    out = torch.empty(weight.n, weight.k, dtype=dtype, device=weight.device)
    _widen_kernel[(weight.n, triton.cdiv(weight.k, BLOCK))](
        weight.data, weight.scale, out, weight.k, MIXED=mixed(weight), **block_sizes(weight),
        BLOCK=BLOCK, **launch(dependent),
    )  # fmt: skip
    return out
