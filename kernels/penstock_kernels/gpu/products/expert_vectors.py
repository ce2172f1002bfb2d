"""Products of few rows with the experts that they take, without tensor cores.

Nothing is sorted: a program adds up some rows of one pair's matrix, and those of all pairs run
beside one another, so that a matrix that two rows take comes from memory once.

Reference: `penstock_kernels.reference.experts`.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels import int4
from penstock_kernels.experts import Experts
from penstock_kernels.gpu.launch.dependent import launch, wait
from penstock_kernels.gpu.products.expert_kinds import Kind, operands
from penstock_kernels.gpu.products.expert_numbers import ended, meant
from penstock_kernels.gpu.step.activation import gated as gated_of
from penstock_kernels.ops import Act
from penstock_kernels.stacked import Stacked
from penstock_kernels.weight import Layout

NUMBERS = 4096  # of a tile: 32 a thread
DEPTHS = (512, 256, 128, 64)
WARPS = 4
MOST_ROWS: dict[Layout, int] = {}
UNROLLED = 4  # tiles of a matrix in 4 bits that are under way


@dataclass(frozen=True, slots=True)
class VectorTile:
    """Rows and columns, and how many are read at once."""

    n: int
    k: int
    unrolled: int = 1


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
        value = tl.load(x + start + tl.arange(0, KIND.depth)).to(tl.float32)[None, :]
        tile, by = meant(data, scale, zero, table, first, start, dtype, BN, KIND)
        acc += tile.to(tl.float32) * value * by
        if GATED:
            tile, by = meant(data, scale, zero, table, first + width, start, dtype, BN, KIND)
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


def most_vectors(experts: Experts) -> int:
    """Rows that are multiplied without tensor cores."""
    return MOST_ROWS.get(experts.up.layout, 1)


def vector_tile(weight: Stacked, gated: bool) -> VectorTile | None:
    """None: such matrices are for tensor cores."""
    width = weight.n // 2 if gated else weight.n
    if weight.parts.order is not None:
        return None
    if weight.layout is Layout.INT4:
        fits = weight.columns % int4.COLUMNS == 0 and width % int4.ROWS == 0
        return VectorTile(16, int4.COLUMNS, UNROLLED) if fits else None
    for depth in DEPTHS:
        if weight.columns % depth == 0 and width % (NUMBERS // depth) == 0:
            return VectorTile(NUMBERS // depth, depth)
    return None


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
        x, *operands(weight), chosen, out, KIND=kind, ACT="" if gate is None else gate.value,
        BN=tile.n, TOP=top, GATED=gate is not None, UNROLLED=tile.unrolled, num_warps=WARPS,
        **launch(dependent),
    )  # fmt: skip
    return out
