"""Residual addition and root mean square normalisation in one pass.

Reference: `penstock_kernels.norm`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.dependent import launch, release, wait


@triton.jit(do_not_specialize=["rows"])
def _norm_kernel(
    x,
    residual,
    weight,
    out,
    rows,
    x_stride,
    d,
    eps,
    ADD: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    release(PDL)
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < d
    gain = tl.load(weight + column, mask=inside)
    wait(PDL)
    value = tl.load(x + row * x_stride + column, mask=inside, other=0.0)
    if PARTS > 1:
        for part in tl.static_range(1, PARTS):
            value += tl.load(x + (part * rows + row) * x_stride + column, mask=inside, other=0.0)
        value = value.to(out.dtype.element_ty)
    if ADD:
        value += tl.load(residual + row * d + column, mask=inside, other=0.0)
        tl.store(residual + row * d + column, value, mask=inside)
    wide = value.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, 0) / d + eps)
    scaled = (wide * scale).to(
        out.dtype.element_ty
    )  # rounded first, as the checkpoints were trained
    tl.store(out + row * d + column, scaled * gain, mask=inside)


def rms_norm(
    x: Tensor, weight: Tensor, eps: float, out: Tensor | None = None, dependent: bool = False
) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight. x: [n, d], rows may be strided; weight: [d]."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format) if out is None else out
    n, d = x.shape
    block = triton.next_power_of_2(d)
    _norm_kernel[(n,)](
        x, x, weight, out, n, x.stride(0), d, eps, ADD=False, PARTS=1, BLOCK=block,
        num_warps=_warps(block), **launch(dependent),
    )  # fmt: skip
    return out


def add_rms_norm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    eps: float,
    out: Tensor | None = None,
    dependent: bool = False,
) -> Tensor:
    """Add x to residual in place, then normalise the sum.

    x: [n, d], or [parts, n, d] float32 partial sums, which are added up and rounded first;
    residual: [n, d]; weight: [d].
    """
    out = torch.empty_like(residual) if out is None else out
    n, d = residual.shape
    parts = x.shape[0] if x.dim() == 3 else 1
    block = triton.next_power_of_2(d)
    _norm_kernel[(n,)](
        x, residual, weight, out, n, x.stride(-2), d, eps, ADD=True, PARTS=parts, BLOCK=block,
        num_warps=_warps(block), **launch(dependent),
    )  # fmt: skip
    return out


def _warps(block: int) -> int:
    return max(1, min(16, block // 512))
