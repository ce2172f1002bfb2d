"""The end of decode attention: partial results of a row become one.

What attention over some of a row's tokens gives, with the logarithm of the sum of their weights, is
enough to have that over all of them (Dao, "flash decoding", 2023).
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.dependent import launch, wait

PARTS = 16  # partial results that a merge loads at once


@triton.jit
def _merge_kernel(
    partial,
    partial_lse,
    spans,
    out,
    kv_heads: tl.constexpr,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    PARTS: tl.constexpr,
    PDL: tl.constexpr,
):
    """The result of a row and query head from its partial ones; written already if it was alone."""
    wait(PDL)
    row, query_head = tl.program_id(0), tl.program_id(1)
    first = tl.load(spans + row * 3)
    parts = tl.load(spans + row * 3 + 2)
    if parts <= 1:
        return
    dims = tl.arange(0, DP)
    some = tl.arange(0, PARTS)
    best = float("-inf")
    total = 0.0
    acc = tl.zeros([DP], tl.float32)
    for start in range(0, parts, PARTS):
        inside = start + some < parts
        index = (first + start + some) * kv_heads * GROUP + query_head
        lse = tl.load(partial_lse + index, mask=inside, other=float("-inf"))
        part = tl.load(
            partial + index[:, None] * D + dims[None, :],
            mask=inside[:, None] & (dims < D)[None, :],
            other=0.0,
        )
        new = tl.maximum(best, tl.max(lse, 0))
        weight = tl.exp2(lse - new)
        shrink = tl.exp2(best - new)
        total = total * shrink + tl.sum(weight, 0)
        acc = acc * shrink + tl.sum(part * weight[:, None], 0)
        best = new
    place = out + (row * kv_heads * GROUP + query_head) * D + dims
    tl.store(place, (acc / total).to(out.dtype.element_ty), mask=dims < D)


def padded(head_dim: int) -> int:
    """Columns of a tile: a power of two, and no fewer than a tensor core takes."""
    return max(16, int(triton.next_power_of_2(head_dim)))


def merge(
    partial: Tensor,
    lse: Tensor,
    spans: Tensor,
    out: Tensor,
    rows: int,
    kv_heads: int,
    head_dim: int,
    dependent: bool,
) -> None:
    """Write the rows that have several partial results; the others stand there already.

    partial: [partials, heads, head_dim] float32, flat; lse: [partials, heads] float32, flat, in
    units of log2; spans: [rows, 3] int32, of the plan; out: [rows, heads * head_dim].
    """
    heads = out.shape[1] // head_dim
    _merge_kernel[(rows, heads)](
        partial, lse, spans, out, kv_heads=kv_heads, GROUP=heads // kv_heads, D=head_dim,
        DP=padded(head_dim), PARTS=PARTS, num_warps=4, **launch(dependent),
    )  # fmt: skip
