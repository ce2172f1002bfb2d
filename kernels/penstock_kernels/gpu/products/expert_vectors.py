"""Products of few rows with the experts that they take, without tensor cores.

Nothing is sorted: a program adds up some rows of one pair's matrix, and those of all pairs run
beside one another, so that a matrix that two rows take comes from memory once.

Reference: `penstock_kernels.reference.experts`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels import int4
from penstock_kernels.fp8 import GROUP
from penstock_kernels.gpu.launch.dependent import launch, wait
from penstock_kernels.gpu.products.expert_kinds import Kind, operands
from penstock_kernels.gpu.products.expert_numbers import ended, meant, scales_of
from penstock_kernels.gpu.step.activation import gated as gated_of
from penstock_kernels.ops import Act
from penstock_kernels.stacked import Stacked
from penstock_kernels.weight import Layout

MOST_ROWS = 1  # more are faster in tiles


@dataclass(frozen=True, slots=True)
class VectorTile:
    """Rows and columns, how many are under way at once, and warps."""

    n: int
    k: int
    unrolled: int = 1
    warps: int = 4


VECTORS = dict.fromkeys(Layout, VectorTile(4, 512, 2)) | {
    Layout.DENSE: VectorTile(8, 512),
    Layout.LUT: VectorTile(8, 512, 2),
    Layout.INT4: VectorTile(16, int4.COLUMNS, 2),  # of the tiles that they are stored in
}


@triton.jit
def _read(
    data, scale, zero, table, first, start, dtype: tl.constexpr, BN: tl.constexpr,
    KIND: tl.constexpr,
):  # fmt: skip
    """`meant` of what is stored."""
    by, less = scales_of(scale, zero, first, start, BN, KIND)
    return meant(data, by, less, table, first, start, dtype, BN, KIND)


@triton.jit
def _single_kernel(
    x,  # [pairs / TOP, k]
    data, data_step, scale, scale_step, zero, zero_step, table, table_step, outer, outer_step,
    order, order_step, bias, bias_step,  # of `operands`
    chosen,  # [pairs]
    out,  # [pairs, n] (or n / 2 when GATED)
    KIND: tl.constexpr,
    ACT: tl.constexpr,
    BN: tl.constexpr,
    TOP: tl.constexpr,
    GATED: tl.constexpr,
    UNROLLED: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    wait(PDL)
    pair = tl.program_id(0)
    owner = tl.load(chosen + pair).to(tl.int64)
    width: tl.constexpr = KIND.n // 2 if GATED else KIND.n
    first = tl.program_id(1) * BN
    data += owner * data_step
    scale += owner * scale_step
    zero += owner * zero_step
    table += owner * table_step
    x += pair // TOP * KIND.k
    dtype: tl.constexpr = x.dtype.element_ty
    DEPTH: tl.constexpr = KIND.depth
    acc = tl.zeros([BN, DEPTH], tl.float32)
    acc_up = tl.zeros([BN, DEPTH], tl.float32)
    for start in tl.range(0, KIND.columns, KIND.depth, loop_unroll_factor=UNROLLED):
        at = start + tl.arange(0, KIND.depth)
        if KIND.columns % KIND.depth == 0:
            value = tl.load(x + at)[None, :].to(tl.float32)
        else:
            value = tl.load(x + at, mask=at < KIND.columns, other=0.0)[None, :].to(tl.float32)
        tile, by = _read(data, scale, zero, table, first, start, dtype, BN, KIND)
        acc += tile.to(tl.float32) * value * by
        if GATED:
            tile, by = _read(data, scale, zero, table, first + width, start, dtype, BN, KIND)
            acc_up += tile.to(tl.float32) * value * by
    column = first + tl.arange(0, BN)
    total = tl.reshape(tl.sum(acc, 1), [BN, 1])
    total = ended(total, scale, outer + owner * outer_step, bias + owner * bias_step, column, KIND)
    result = total.to(dtype)
    if GATED:
        up = tl.reshape(tl.sum(acc_up, 1), [BN, 1])
        up = ended(
            up, scale, outer + owner * outer_step, bias + owner * bias_step, column + width, KIND
        )
        result = gated_of(result, up.to(dtype), ACT)
    tl.store(out + pair.to(tl.int64) * width + column[:, None], result)


def vector_tile(weight: Stacked, gated: bool) -> VectorTile | None:
    """None: such matrices are for tensor cores."""
    width = weight.n // 2 if gated else weight.n
    tile, ordered = VECTORS[weight.layout], weight.parts.order is not None
    if ordered or weight.columns % GROUP:
        return None
    if weight.layout is Layout.INT4:
        return tile if width % int4.ROWS == 0 else None
    n = tile.n
    while width % n:
        n //= 2
    return replace(tile, n=n, k=min(tile.k, triton.next_power_of_2(weight.columns)))


def single(
    x: Tensor,
    weight: Stacked,
    chosen: Tensor,
    tile: VectorTile,
    top: int = 1,
    gate: Act | None = None,
    dependent: bool = False,
) -> Tensor:
    """Of each pair the product of its row and its expert: [pairs, n]; with a gate, act(gate) * up
    of it: [pairs, n / 2].

    x: [pairs / top, k], of pair p row p // top; chosen: [pairs] int32, of any shape.
    """
    pairs, width = chosen.numel(), weight.n // 2 if gate is not None else weight.n
    out = x.new_empty(pairs, width)
    kind = Kind.of(weight, x.dtype, tile.n * (1 + (gate is not None)), tile.k)
    _single_kernel[(pairs, width // tile.n)](
        x, *operands(weight, kind), chosen, out, KIND=kind, ACT="" if gate is None else gate.value,
        BN=tile.n, TOP=top, GATED=gate is not None, UNROLLED=tile.unrolled, num_warps=tile.warps,
        **launch(dependent),
    )  # fmt: skip
    return out
