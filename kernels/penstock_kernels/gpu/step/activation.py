"""Activation functions in one pass, gated or not, and rows in FP8 for a product that wants those.

Reference: `penstock_kernels.reference.activation`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.launch.dependent import launch, wait
from penstock_kernels.gpu.products.quantise import (
    Room,
    places,
    quantises,
    store_quantised,
    whole_row,
)
from penstock_kernels.ops import Act

BLOCK = 1024


@triton.jit
def activated(x, ACT: tl.constexpr):
    """x: float32."""
    if ACT == "silu":
        return x / (1 + tl.exp(-x))
    if ACT == "gelu":
        return 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))
    if ACT == "relu":
        return tl.where(x < 0, 0.0, x)  # NaN stays
    if ACT == "relu2":
        return tl.where(x < 0, 0.0, x * x)
    if ACT == "clamped_swiglu":
        x = tl.minimum(x, 7.0)
        return x / (1 + tl.exp(-1.702 * x))
    inner = 0.7978845608028654 * (x + 0.044715 * x * x * x)
    return x / (1 + tl.exp(-2 * inner))  # (1 + tanh(y)) / 2 = 1 / (1 + exp(-2 y))


@triton.jit
def gated(gate, up, ACT: tl.constexpr):
    """act(gate) * up, of the type of both, in which act(gate) is rounded."""
    if ACT == "clamped_swiglu":
        up = (tl.minimum(tl.maximum(up.to(tl.float32), -7.0), 7.0) + 1).to(up.dtype)
    return activated(gate.to(tl.float32), ACT).to(up.dtype) * up


@triton.jit
def _kernel(
    x, out, quantised, scale, d,
    ACT: tl.constexpr, GATED: tl.constexpr, QUANTISES: tl.constexpr, ORDER: tl.constexpr,
    LARGEST: tl.constexpr, SMALLEST: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    wait(PDL)
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < d
    wide: tl.constexpr = 2 if GATED else 1
    value = tl.load(x + row * wide * d + column, mask=inside, other=0.0)
    if GATED:
        up = tl.load(x + row * 2 * d + d + column, mask=inside, other=0.0)
        value = gated(value, up, ACT)
    else:
        value = activated(value.to(tl.float32), ACT)
    value = value.to(out.dtype.element_ty)
    tl.store(out + row * d + column, value, mask=inside)
    if QUANTISES:
        wide = value.to(tl.float32)
        store_quantised(wide, quantised, scale, row, d, column, inside, LARGEST, SMALLEST, ORDER)


def gate(
    gate_up: Tensor,
    act: Act,
    dependent: bool = False,
    out: Tensor | None = None,
    room: Room | None = None,
) -> Tensor:
    """act(gate) * up.

    gate_up: [n, 2 * d], gate first; returns [n, d] of the same dtype; room: where it goes quantised
    (`quantise`), too.
    """
    n, double = gate_up.shape
    out = gate_up.new_empty(n, double // 2) if out is None else out
    return _launch(gate_up, out, act, True, room, dependent)


def activate(
    x: Tensor,
    act: Act,
    dependent: bool = False,
    out: Tensor | None = None,
    room: Room | None = None,
) -> Tensor:
    """act(x). x: [n, d] dense; room: where it goes quantised, too."""
    out = torch.empty_like(x) if out is None else out
    return _launch(x, out, act, False, room, dependent)


def _launch(
    x: Tensor,
    out: Tensor,
    act: Act,
    gated: bool,
    room: Room | None,
    dependent: bool,
) -> Tensor:
    n, d = out.shape
    # A program that quantises sees a whole row.
    block, warps = (BLOCK, 4) if room is None else whole_row(d)
    _kernel[(n, triton.cdiv(d, block))](
        x, out, *places(room, out), d, ACT=act.value, GATED=gated, **quantises(room),
        BLOCK=block, num_warps=warps, **launch(dependent),
    )  # fmt: skip
    return out
