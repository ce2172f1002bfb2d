"""Means of the squares of all queries and of all keys of a row, for norms of all heads together.

They are a launch of their own because ranks add them up before anything is normalised by them.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.launch.dependent import launch, wait
from penstock_kernels.ops import AttentionSpec


@triton.jit
def _mean_squares_kernel(
    qkv,  # [n, row]
    means,  # [n, 2] float32
    row,
    queries,  # elements
    keys,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    n, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    start = tl.where(part == 0, 0, queries)
    count = tl.where(part == 0, queries, keys)
    column = tl.arange(0, BLOCK)
    wait(PDL)
    value = tl.load(qkv + n * row + start + column, mask=column < count, other=0.0).to(tl.float32)
    tl.store(means + n * 2 + part, tl.sum(value * value, 0) / count)


def mean_squares(qkv: Tensor, spec: AttentionSpec, dependent: bool = False) -> Tensor:
    """Of queries and keys, [n, 2] float32. qkv: [n, (heads + 2 * kv_heads) * width] dense."""
    n, row = qkv.shape
    means = torch.empty(n, 2, dtype=torch.float32, device=qkv.device)
    queries, keys = spec.heads * spec.width, spec.kv_heads * spec.width
    _mean_squares_kernel[(n, 2)](
        qkv, means, row, queries, keys, BLOCK=triton.next_power_of_2(queries), num_warps=8,
        **launch(dependent),
    )  # fmt: skip
    return means
