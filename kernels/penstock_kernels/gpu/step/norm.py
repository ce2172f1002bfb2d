"""Residual addition and normalisation in one pass, and rows in FP8 for a product that wants those.

Reference: `penstock_kernels.reference.norm`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.launch.dependent import launch, release, wait
from penstock_kernels.gpu.products.quantise import (
    Room,
    places,
    quantises,
    store_quantised,
    whole_row,
)
from penstock_kernels.ops import Norm, NormKind


@triton.jit(do_not_specialize=["rows"])
def _norm_kernel(
    x,
    residual,
    weight,
    bias,
    out,
    quantised,  # with QUANTISES, as well as the scale
    scale,
    rows,
    x_stride,
    d,
    eps,
    ADD: tl.constexpr,
    PARTS: tl.constexpr,
    ONE: tl.constexpr,
    LAYER: tl.constexpr,
    QUANTISES: tl.constexpr,
    ORDER: tl.constexpr,
    LARGEST: tl.constexpr,
    SMALLEST: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    release(PDL)
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < d
    gain = tl.load(weight + column, mask=inside)
    if LAYER:
        shift = tl.load(bias + column, mask=inside).to(tl.float32)
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
    if LAYER:
        wide = tl.where(inside, wide - tl.sum(wide, 0) / d, 0.0)
    scaled = wide * tl.rsqrt(tl.sum(wide * wide, 0) / d + eps)
    dtype = out.dtype.element_ty
    if LAYER:
        result = (scaled * gain.to(tl.float32) + shift).to(dtype)
    elif ONE:
        result = (scaled * (gain.to(tl.float32) + 1)).to(dtype)
    else:
        result = scaled.to(dtype) * gain  # rounded first, as the checkpoints were trained
    tl.store(out + row * d + column, result, mask=inside)
    if QUANTISES:
        wide = result.to(tl.float32)
        store_quantised(wide, quantised, scale, row, d, column, inside, LARGEST, SMALLEST, ORDER)


def normalise(
    x: Tensor,
    norm: Norm,
    dependent: bool = False,
    out: Tensor | None = None,
    room: Room | None = None,
) -> Tensor:
    """The rows of x, normalised.

    x: [n, d], rows may be strided; out: where they go; room: where they go quantised (`quantise`).
    """
    out = torch.empty_like(x, memory_format=torch.contiguous_format) if out is None else out
    return _launch(x, None, norm, out, room, dependent)


def add_norm(
    x: Tensor,
    residual: Tensor,
    norm: Norm,
    dependent: bool = False,
    out: Tensor | None = None,
    room: Room | None = None,
) -> Tensor:
    """Add x to residual in place, then normalise the sum.

    x: [n, d], or [parts, n, d] float32 partial sums, which are added up and rounded first;
    residual: [n, d]; out: where the sum goes, normalised; room: where it goes quantised, too.
    """
    out = torch.empty_like(residual) if out is None else out
    return _launch(x, residual, norm, out, room, dependent)


def _launch(
    x: Tensor,
    residual: Tensor | None,
    norm: Norm,
    out: Tensor,
    room: Room | None,
    dependent: bool,
) -> Tensor:
    n, d = out.shape
    parts = x.shape[0] if x.dim() == 3 else 1
    block, warps = whole_row(d)
    layer = norm.kind is NormKind.LAYER
    bias = norm.bias if layer and norm.bias is not None else norm.weight
    _norm_kernel[(n,)](
        x, x if residual is None else residual, norm.weight, bias, out, *places(room, out),
        n, x.stride(-2), d, norm.eps, ADD=residual is not None, PARTS=parts,
        ONE=norm.kind is NormKind.RMS_ONE, LAYER=layer, **quantises(room), BLOCK=block,
        num_warps=warps, **launch(dependent),
    )  # fmt: skip
    return out
