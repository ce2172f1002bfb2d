"""Copies of KV blocks within the cache, all layers at once.

Reference: `penstock_kernels.reference.device.TorchDevice.copy_blocks`. A block of 64 tokens of
Llama-3.1-8B is 8.4 MB in 512 pieces, one of each layer, of keys and of values, and KV head.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.fp8 import bits

PIECE = 4096  # numbers that a program holds at once


# Compiled once, at warmup: by then neither the cache's size is known, nor how many are copied, by
# which the second of two rows is aligned or not.
@triton.jit(do_not_specialize=["blocks"], do_not_specialize_on_alignment=["source", "target"])
def _copy_kernel(
    cache,  # [planes, blocks, SIZE]
    source,
    target,
    blocks,
    SIZE: tl.constexpr,
    PIECE: tl.constexpr,
):
    copy, plane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    first = cache + plane * blocks * SIZE
    read = first + tl.load(source + copy) * SIZE
    write = first + tl.load(target + copy) * SIZE
    for start in range(0, SIZE, PIECE):
        at = start + tl.arange(0, PIECE)
        tl.store(write + at, tl.load(read + at, mask=at < SIZE), mask=at < SIZE)


def copy_blocks(cache: Tensor, source: Tensor, target: Tensor) -> None:
    """Copy whole blocks; no target is a source.

    cache: [layers, 2, kv_heads, blocks, block_size, width], dense; source, target: [n] int64.
    """
    blocks, size = cache.shape[3], cache.shape[4] * cache.shape[5]
    planes = cache.numel() // (blocks * size)
    _copy_kernel[(len(source), planes)](
        bits(cache), source, target, blocks, SIZE=size,
        PIECE=min(PIECE, triton.next_power_of_2(size)), num_warps=4,
    )  # fmt: skip
