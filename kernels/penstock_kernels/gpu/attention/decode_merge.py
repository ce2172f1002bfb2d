"""The end of decode attention: partial results of a row become one.

What attention over some of a row's tokens gives, with the logarithm of the sum of their weights, is
enough to have that over all of them (Dao, "flash decoding", 2023).
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.launch.dependent import launch, release, wait


@triton.jit
def _merge_kernel(
    partial,  # [partials, heads, D] float32
    partial_lse,  # [partials, heads] float32
    spans,  # [rows, 3]
    out,  # [rows, heads, D]
    heads: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    PARTS: tl.constexpr,
    PDL: tl.constexpr,
):
    """The result of a row and query head from its partial ones; written already if it was alone."""
    # The weights of the product behind are on their way while attention ends: it reads nothing
    # early that attention or its merge writes.
    release(PDL)
    row, query_head = tl.program_id(0), tl.program_id(1)
    # The plan was written before the launch before this one: see `dependent`.
    first = tl.load(spans + row * 3, cache_modifier=".cg")
    parts = tl.load(spans + row * 3 + 2, cache_modifier=".cg")
    if (parts <= 1) & (row + query_head > 0):  # one program waits for all
        return
    wait(PDL)
    if parts <= 1:
        return
    dims = tl.arange(0, DP)
    some = tl.arange(0, PARTS)
    best = float("-inf")
    total = 0.0
    acc = tl.zeros([DP], tl.float32)
    for start in range(0, parts, PARTS):
        inside = start + some < parts
        index = (first + start + some) * heads + query_head
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
    place = out + (row * heads + query_head) * D + dims
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
    head_dim: int,
    dependent: bool,
) -> None:
    """Write the rows that have several partial results; the others stand there already.

    partial: [partials, heads, head_dim] float32, flat; lse: [partials, heads] float32, flat, in
    units of log2; spans: [rows, 3] int32, of a plan that was written before the launch before this
    one; out: [rows, heads * head_dim].
    """
    heads = out.shape[1] // head_dim
    # Of few rows each has many parts, 64 a row and less: all are loaded at once.
    _merge_kernel[(rows, heads)](
        partial, lse, spans, out, heads=heads, D=head_dim, DP=padded(head_dim),
        PARTS=64 if rows < 16 else 16, num_warps=4, **launch(dependent),
    )  # fmt: skip
