"""Products of rows with the matrices of the experts that they take, each matrix read once.

A tile of pairs (`expert_groups`) multiplies by one expert, whose numbers are widened in registers.
The matrix's rows are those of tensor cores, and pairs their columns: with few pairs an expert
little of a product is padding. Only experts that some row takes are read.

Reference: `penstock_kernels.reference.experts`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.launch.dependent import launch, wait
from penstock_kernels.gpu.products.expert_groups import Grouping
from penstock_kernels.gpu.products.expert_kinds import Kind, operands
from penstock_kernels.gpu.products.expert_numbers import ended, meant, scales_of
from penstock_kernels.gpu.products.settled import settled
from penstock_kernels.gpu.step.activation import gated as gated_of
from penstock_kernels.ops import Act
from penstock_kernels.stacked import Stacked
from penstock_kernels.weight import Layout


@dataclass(frozen=True, slots=True)
class GroupedTile:
    """Rows and columns of a tile of the matrix, and how a program runs."""

    n: int
    k: int
    warps: int
    stages: int


@triton.jit
def _added(acc, weight, value, by, PRECISION: tl.constexpr, KIND: tl.constexpr):
    """acc and the products of a tile."""
    if KIND.scales == "depth":
        return acc + tl.dot(weight.to(value.dtype), value, input_precision=PRECISION) * by
    acc = tl.dot(weight.to(value.dtype), value, acc, input_precision=PRECISION)
    return acc if KIND.layout == "dense" else settled(acc)


@triton.jit(do_not_specialize=["count"])
def _grouped_kernel(
    x,  # [rows, k]: one for each TOP pairs
    data, data_step, scale, scale_step, zero, zero_step, table, table_step, outer, outer_step,
    order, order_step, bias, bias_step,  # of `operands`
    pairs,  # [tiles * BM]
    owners,  # [tiles]
    out,  # [count, n] (or n / 2 when GATED), one row a pair
    count,
    KIND: tl.constexpr,
    TOP: tl.constexpr,
    ACT: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    GATED: tl.constexpr,
    PRECISION: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    wait(PDL)
    tile = tl.program_id(1)
    owner = tl.load(owners + tile).to(tl.int64)
    if owner < 0:
        return
    pair = tl.load(pairs + tile * BM + tl.arange(0, BM))
    real = pair < count
    pair = tl.where(real, pair, 0)  # what comes of others is not kept
    width: tl.constexpr = KIND.n // 2 if GATED else KIND.n
    first = tl.program_id(0) * BN
    data += owner * data_step
    scale += owner * scale_step
    zero += owner * zero_step
    table += owner * table_step
    order += owner * order_step
    inputs = x + (pair // TOP).to(tl.int64)[None, :] * KIND.k
    acc = tl.zeros([BN, BM], tl.float32)
    acc_up = tl.zeros([BN, BM], tl.float32)
    # Scales that multiply sums come a tile ahead; those of numbers where Triton puts them.
    AHEAD: tl.constexpr = KIND.scales == "depth" and not KIND.zeros
    by, less = scales_of(scale, zero, first, 0, BN, KIND)
    by_up, less_up = scales_of(scale, zero, first + width * GATED, 0, BN, KIND)
    for start in tl.range(0, KIND.columns, KIND.depth):
        if not AHEAD:
            by, less = scales_of(scale, zero, first, start, BN, KIND)
        at = start + tl.arange(0, KIND.depth)
        known = at < KIND.columns
        if KIND.ordered:
            at = tl.load(order + at, mask=known, other=0)
        if KIND.whole:
            value = tl.load(inputs + at[:, None])
        else:
            value = tl.load(inputs + at[:, None], mask=known[:, None], other=0.0)
        weight, share = meant(data, by, less, table, first, start, value.dtype, BN, KIND)
        if AHEAD:
            by, less = scales_of(scale, zero, first, start + KIND.depth, BN, KIND)
        acc = _added(acc, weight, value, share, PRECISION, KIND)
        if GATED:
            up = first + width
            if not AHEAD:
                by_up, less_up = scales_of(scale, zero, up, start, BN, KIND)
            weight, share = meant(data, by_up, less_up, table, up, start, value.dtype, BN, KIND)
            if AHEAD:
                by_up, less_up = scales_of(scale, zero, up, start + KIND.depth, BN, KIND)
            acc_up = _added(acc_up, weight, value, share, PRECISION, KIND)
    column = first + tl.arange(0, BN)
    inside = column < width
    acc = ended(acc, scale, outer + owner * outer_step, bias + owner * bias_step, column, KIND)
    dtype: tl.constexpr = out.dtype.element_ty
    result = acc.to(dtype)
    if GATED:
        acc_up = ended(
            acc_up, scale, outer + owner * outer_step, bias + owner * bias_step, column + width,
            KIND,
        )  # fmt: skip
        result = gated_of(result, acc_up.to(dtype), ACT)
    to = out + pair.to(tl.int64)[None, :] * width + column[:, None]
    tl.store(to, result, mask=inside[:, None] & real[None, :])


def grouped(
    x: Tensor,
    weight: Stacked,
    groups: Grouping,
    tile: GroupedTile,
    top: int = 1,
    gate: Act | None = None,
    dependent: bool = False,
) -> Tensor:
    """Of each pair the product of its row and its expert: [pairs, n]; with a gate, act(gate) * up
    of it: [pairs, n / 2].

    x: [pairs / top, k], of pair p row p // top.
    """
    width = weight.n // 2 if gate is not None else weight.n
    out = x.new_empty(groups.count, width)
    bm = groups.tile_rows
    kind = Kind.of(weight, x.dtype, tile.n * (1 + (gate is not None)), tile.k)
    _grouped_kernel[(triton.cdiv(width, tile.n), len(groups.expert))](
        x, *operands(weight, kind), groups.pair, groups.expert, out, groups.count, KIND=kind,
        TOP=top, ACT="" if gate is None else gate.value, BM=bm, BN=tile.n, GATED=gate is not None,
        PRECISION="ieee" if x.dtype == torch.float32 else "tf32",
        num_warps=tile.warps, num_stages=tile.stages, **launch(dependent),
    )  # fmt: skip
    return out


def takes_gate(weight: Stacked) -> bool:
    """Whether a product can be gated at once: tiles of 4-bit numbers hold rows of one half."""
    return weight.layout is not Layout.INT4 or weight.n % 128 == 0
