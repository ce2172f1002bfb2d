"""Products of one row with weights of 8 bits, for Hopper.

As in `hopper_int4_row` a program has a unit of the weight (`hopper_row_parts`), and what it reads
ahead stands in its registers. So with dependent launch much of a product has been read before the
kernel before it ends.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from penstock_kernels.gpu.products.hopper_digits import (
    pieces,
    place_row,
    row_layout,
    row_pieces,
    row_room,
)
from penstock_kernels.gpu.products.hopper_row_parts import (
    add_step,
    byte_layout,
    rows_of,
    store_row,
)
from penstock_kernels.ops import Norm, NormKind
from penstock_kernels.weight import Weight

GRANULE = 16  # rows of the weight of a program, or of each half


@dataclass(frozen=True, slots=True)
class RowConfig:
    """Shape of a launch: warps, steps of 512 columns whose numbers are under way, and registers of
    a thread at most, which decide how many programs a multiprocessor has."""

    warps: int
    ahead: int
    registers: int


@gluon.jit
def _none():
    """What tuples begin as."""
    return ()


@gluon.jit
def _step(weight, j, N: gl.constexpr, K: gl.constexpr, GATED: gl.constexpr, BYTES: gl.constexpr):
    """What a step reads: two blocks of 64 columns, without scales."""
    MEMBERS: gl.constexpr = BYTES.shape[0]
    WIDTH: gl.constexpr = BYTES.shape[1]  # of a block
    member = gl.arange(0, MEMBERS, gl.SliceLayout(1, BYTES))
    byte = gl.arange(0, WIDTH, gl.SliceLayout(0, BYTES))
    first = rows_of(gl.program_id(0), member, MEMBERS, N, GATED).to(gl.int64) * (K // 64 * WIDTH)
    place = gl.expand_dims((4 * j + member // 16 % 4) * (2 * WIDTH), 1) + gl.expand_dims(byte, 0)
    held = _none()
    for b in gl.static_range(2):
        data = gl.load(weight + (gl.expand_dims(first, 1) + (place + b * WIDTH)))
        held = held + ((data, 0.0),)
    return held


@gluon.jit
def _kernel(
    x,  # [K]
    weight,  # [N, K] int8 or FP8
    scale,  # [N] float32
    bias,  # [N], with BIASED
    gain,  # [K], with NORMED
    eps,
    out,  # [N], [N / 2] when GATED; with ADDS it is added to
    N: gl.constexpr,
    K: gl.constexpr,
    GATED: gl.constexpr,
    BIASED: gl.constexpr,
    NORMED: gl.constexpr,
    ONE: gl.constexpr,
    ADDS: gl.constexpr,
    AHEAD: gl.constexpr,
    BYTES: gl.constexpr,
    PIECES: gl.constexpr,  # of the row
    X_LAYOUT: gl.constexpr,
    PDL: gl.constexpr,
):
    if PDL:
        gdc_launch_dependents()
    MEMBERS: gl.constexpr = BYTES.shape[0]
    WARPS: gl.constexpr = MEMBERS // 16
    layout: gl.constexpr = gl.NVMMADistributedLayout([2, 0], [WARPS, 1], [16, 8])
    block: gl.constexpr = gl.BlockedLayout([1, 16], [4, 8], [WARPS, 1], [1, 0])
    STEPS: gl.constexpr = K // 512
    held = _none()
    for j in gl.static_range(AHEAD):
        held = held + (_step(weight, j, N, K, GATED, BYTES),)
    if NORMED:
        gain = row_pieces(gain, K, PIECES, block)
    HALVES: gl.constexpr = weight.dtype.element_ty == gl.float8e4nv
    row = row_room(PIECES, False, HALVES, X_LAYOUT)
    if PDL:
        gdc_wait()
    place_row(x, gain, eps, row, K, NORMED, ONE, False, 1.0, block)
    acc = gl.zeros([MEMBERS, 8], gl.float32, layout)
    for j in gl.static_range(STEPS):
        if j + AHEAD < STEPS:
            held = held + (_step(weight, j + AHEAD, N, K, GATED, BYTES),)
        acc = add_step(acc, held[j], row, _none(), j, "")
    store_row(acc, gl.program_id(0), out, scale, bias, N, GATED, BIASED, ADDS, False, 1.0)


def hopper_row(
    x: Tensor, weight: Weight, out: Tensor, config: RowConfig, dependent: bool,
    norm: Norm | None = None, gated: bool = False, adds: bool = False,
) -> None:  # fmt: skip
    """out = x W^T + b for one row, or silu(gate) * up of it when gated.

    x: [1, k], with `norm`, by root mean squares, before it; weight: [n, k] INT8 or FP8 with a scale
    a row, gate rows before up rows when gated; out: [1, n] ([1, n / 2] when gated), to which the
    result, rounded, is added where it `adds`.
    """
    bias, warps = weight.bias, config.warps
    assert weight.scale is not None
    gain, eps = (x, 0.0) if norm is None else (norm.weight, norm.eps)
    _kernel[(weight.n // (GRANULE * warps // 4),)](
        x, weight.data, weight.scale, x if bias is None else bias, gain, eps, out, N=weight.n,
        K=weight.k, GATED=gated, BIASED=bias is not None, NORMED=norm is not None,
        ONE=norm is not None and norm.kind is NormKind.RMS_ONE, ADDS=adds,
        AHEAD=config.ahead,
        BYTES=byte_layout(64, warps),
        PIECES=pieces(weight.k), X_LAYOUT=row_layout(weight),
        PDL=dependent, num_warps=warps,
        maxnreg=config.registers, launch_pdl=dependent,
    )  # fmt: skip
