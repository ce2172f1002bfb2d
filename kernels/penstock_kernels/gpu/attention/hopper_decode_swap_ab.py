"""Decode attention of a few queries for Hopper: keys are the tall side of its products.

A product of a group of four warps has 64 rows. The query heads of one row and KV head are 4 or 8,
and as the rows of a product they are padded to 64: 8 to 16 times the multiplications and
exponentials that count. A server of many streams is bound by power, and these were a quarter of
what decode attention took. So keys and values, transposed, are the rows here, straight from the
ring, and the queries the columns, of which 8 are enough:

    scores^T [keys, W] = k [keys, D] q^T [D, W],  sum^T [D, W] += v^T [D, keys] weights^T [keys, W]

Weights go through shared memory to their product, and the largest scores of a tile from warp to
warp: a tile takes longer to arrive than that, and so nothing runs beside anything else.
"""

from __future__ import annotations

import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
)

from penstock_kernels.gpu.attention.hopper_decode_epilogue import hide, spans_of, store
from penstock_kernels.gpu.attention.hopper_kv_ring import clear


def few_queries(group: int) -> int:
    """Columns of the products, for so many query heads a KV head: more than 32 would need the
    shared memory of the second program on a multiprocessor."""
    return int(min(32, max(8, triton.next_power_of_2(group))))


@gluon.jit
def few_tiles(dtype: gl.constexpr, W: gl.constexpr, N: gl.constexpr, D: gl.constexpr):
    """Shared memory of queries [W, D] and of weights [W, N]."""
    q_layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([W, D], dtype)
    p_layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([W, N], dtype)
    q_tile = gl.allocate_shared_memory(dtype, [W, D], q_layout)
    return q_tile, gl.allocate_shared_memory(dtype, [W, N], p_layout)


@gluon.jit
def load_few(source, head, first, members, GROUP: gl.constexpr, W: gl.constexpr, D: gl.constexpr):
    """[W, D]: the query heads of one KV head, row after row; zeros for more than W."""
    query, row_stride, _ = source
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [256 // D, D // 8], [4, 1], [1, 0])
    member = gl.arange(0, W, gl.SliceLayout(1, layout))
    dims = gl.arange(0, D, gl.SliceLayout(0, layout))
    row = (first + member // GROUP) * row_stride + (head * GROUP + member % GROUP) * D
    place = query + (gl.expand_dims(row, 1) + gl.expand_dims(dims, 0))
    valid = (member < members * GROUP) & (members * GROUP <= W)
    return gl.load(place, mask=gl.expand_dims(valid, 1), other=0.0)


@gluon.jit
def attend_few(
    ring, tiles, source, target, head, item, done,
    GROUP: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """An item of W queries at most, which stand in shared memory. done: tiles of keys before."""
    first, members, start, stop, piece, skip = item
    W: gl.constexpr = tiles[0].shape[0]
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, W, 16])
    spans = spans_of(target, first, members, GROUP, W, gl.SliceLayout(0, layout))
    acc, best, total = _attend_span(
        ring, tiles, skip, stop - start, source[2], done, layout, STAGES
    )
    store(target, spans, head, first, piece, acc, best, total, GROUP, 0, 0)


@gluon.jit
def _attend_span(
    ring, tiles, skip, length, scale, done, layout: gl.constexpr, STAGES: gl.constexpr
):
    """Sums of values [D, W], largest scores, in units of log2, and sums of weights [W]."""
    k_tiles, v_tiles, k_full, v_full, k_empty, v_empty = ring
    q_tile, p_tile = tiles
    N: gl.constexpr = k_tiles.shape[1]
    D: gl.constexpr = k_tiles.shape[2]
    W: gl.constexpr = q_tile.shape[0]
    zeros = gl.zeros([N, W], gl.float32, layout)
    totals = zeros  # of a thread's keys: summed up at the end
    acc = gl.zeros([D, W], gl.float32, layout)
    best = gl.full([W], float("-inf"), gl.float32, gl.SliceLayout(0, layout))
    queries, weights = q_tile.permute((1, 0)), p_tile.permute((1, 0))
    for j in range(done, done + gl.cdiv(length, N)):
        stage, phase = j % STAGES, j // STAGES & 1
        known = length - (j - done) * N
        mbarrier.wait(k_full.index(stage), phase)
        scores = warpgroup_mma(k_tiles.index(stage), queries, zeros, use_acc=False)
        mbarrier.arrive(k_empty.index(stage))
        scores = hide(scores, skip - (j - done) * N, known, 0)
        new = gl.maximum(best, gl.max(scores, 0) * scale)
        p = gl.exp2(scores * scale - gl.expand_dims(new, 0))
        shrink = gl.expand_dims(gl.exp2(best - new), 0)
        best, totals, acc = new, totals * shrink + p, acc * shrink
        weights.store(p.to(p_tile.dtype))
        fence_async_shared()
        mbarrier.wait(v_full.index(stage), phase)
        clear(v_tiles.index(stage), known)
        acc = warpgroup_mma(v_tiles.index(stage).permute((1, 0)), weights, acc)
        mbarrier.arrive(v_empty.index(stage))
    return acc, best, gl.sum(totals, 0)
