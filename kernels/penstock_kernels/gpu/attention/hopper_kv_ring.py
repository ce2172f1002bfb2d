"""The ring in shared memory through which keys and values go, for Hopper's attention kernels.

One warp copies tiles to it (TMA) and others multiply; barriers tell when a tile is there and when
its place is free again.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier


@gluon.jit
def kv_ring(
    dtype: gl.constexpr, CONSUMERS: gl.constexpr, N: gl.constexpr, D: gl.constexpr,
    STAGES: gl.constexpr,
):  # fmt: skip
    """Tiles [STAGES, N, D] of keys and of values, when each is full, and when it is empty: once
    all CONSUMERS, groups of four warps, are done with it."""
    layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([N, D], dtype)
    k_tiles = gl.allocate_shared_memory(dtype, [STAGES, N, D], layout)
    v_tiles = gl.allocate_shared_memory(dtype, [STAGES, N, D], layout)
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(k_full.index(i), count=1)
        mbarrier.init(v_full.index(i), count=1)
        mbarrier.init(k_empty.index(i), count=CONSUMERS)
        mbarrier.init(v_empty.index(i), count=CONSUMERS)
    fence_async_shared()
    return k_tiles, v_tiles, k_full, v_full, k_empty, v_empty


@gluon.jit
def clear(tile, known):
    """Zero behind the first `known` rows: anything may stand there, and 0 times NaN is NaN."""
    D: gl.constexpr = tile.shape[1]
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [256 // D, D // 8], [4, 1], [1, 0])
    if known < tile.shape[0]:
        row = gl.arange(0, tile.shape[0], gl.SliceLayout(1, layout))
        values = gl.where(gl.expand_dims(row < known, 1), tile.load(layout), 0.0)
        tile.store(values.to(tile.dtype))
        fence_async_shared()
