"""silu(gate) * up in one pass. Reference: `penstock_kernels.activation`."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.dependent import launch, wait

BLOCK = 1024


@triton.jit
def _silu_mul_kernel(gate_up, out, d, BLOCK: tl.constexpr, PDL: tl.constexpr):
    wait(PDL)
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < d
    gate = tl.load(gate_up + row * 2 * d + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * d + d + column, mask=inside, other=0.0)
    gate = (gate / (1 + tl.exp(-gate))).to(out.dtype.element_ty)
    tl.store(out + row * d + column, gate * up, mask=inside)


def silu_mul(gate_up: Tensor, out: Tensor | None = None, dependent: bool = False) -> Tensor:
    """gate_up: [n, 2 * d], gate first; returns [n, d] of the same dtype."""
    n, double = gate_up.shape
    out = gate_up.new_empty(n, double // 2) if out is None else out
    _silu_mul_kernel[(n, triton.cdiv(double // 2, BLOCK))](
        gate_up, out, double // 2, BLOCK=BLOCK, **launch(dependent)
    )
    return out
