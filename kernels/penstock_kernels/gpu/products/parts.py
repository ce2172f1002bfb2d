"""The parts of a product whose k was split, added up: where no norm follows that does it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.launch.dependent import launch, wait

BLOCK = 512


@triton.jit
def _parts_kernel(
    parts,  # [SPLITS, count] float32
    out,  # [count]
    count,
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    wait(PDL)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    total = tl.load(parts + place, mask=inside, other=0.0)
    for split in tl.static_range(1, SPLITS):
        total += tl.load(parts + split * count + place, mask=inside, other=0.0)
    tl.store(out + place, total.to(out.dtype.element_ty), mask=inside)


def summed(parts: Tensor, dtype: torch.dtype, dependent: bool = False) -> Tensor:
    """parts: [splits, rows, n] float32. Returns [rows, n], rounded once."""
    splits, rows, n = parts.shape
    out = torch.empty(rows, n, dtype=dtype, device=parts.device)
    _parts_kernel[(triton.cdiv(rows * n, BLOCK),)](
        parts, out, rows * n, SPLITS=splits, BLOCK=BLOCK, num_warps=4, **launch(dependent)
    )
    return out
