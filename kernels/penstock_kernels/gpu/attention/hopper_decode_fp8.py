"""Decode attention of a cache in FP8 for Hopper: `hopper_decode_swap_ab` with numbers that are
widened on the way.

Keys, and values transposed, are the tall side of the products and come from registers
(`hopper_kv8`), for few queries as for many: 64 are the columns of the same products. A tile
arrives in half the time, so what a program does with one is in its way: values are widened under
the product of the keys, and the next keys under that of the values.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from penstock_kernels.gpu.attention.hopper_decode_epilogue import hide, spans_of, store
from penstock_kernels.gpu.attention.hopper_kv8 import ordered, tall_keys, tall_values

MANY = gl.constexpr(64)  # columns of the products of many queries


@gluon.jit
def store_queries(tile, queries):
    """Rows of queries [W, D] as the products read them."""
    tile.store(ordered(queries.to(gl.float16)))
    fence_async_shared()


@gluon.jit
def attend_fp8(
    ring, tiles, source, target, head, item, done,
    GROUP: gl.constexpr, STAGES: gl.constexpr, FP8: gl.constexpr,
):  # fmt: skip
    """An item of W queries at most, which stand in shared memory. done: tiles of keys before."""
    first, members, start, stop, piece, skip = item
    W: gl.constexpr = tiles[0].shape[0]
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, W, 16])
    if W < MANY:
        spans = spans_of(target, first, members, GROUP, W, gl.SliceLayout(0, layout))
    acc, best, total = _attend_span(
        ring, tiles, skip, stop - start, source[2], done, layout, STAGES, FP8
    )
    if W == MANY:  # before, they would take registers that the products need
        spans = spans_of(target, first, members, GROUP, W, gl.SliceLayout(0, layout))
    store(target, spans, head, first, piece, acc, best, total, GROUP, 0, FP8)


@gluon.jit
def _attend_span(
    ring, tiles, skip, length, scale, done, layout: gl.constexpr, STAGES: gl.constexpr,
    FP8: gl.constexpr,
):  # fmt: skip
    """Sums of values [D, W], rows as `hopper_kv8.number_of` says, largest scores, in units of log2,
    and sums of weights [W]."""
    k_tiles, v_tiles, k_full, v_full, k_empty, v_empty = ring
    q_tile, p_tile = tiles
    N: gl.constexpr = k_tiles.shape[1]
    D: gl.constexpr = k_tiles.shape[2]
    W: gl.constexpr = q_tile.shape[0]
    zeros = gl.zeros([N, W], gl.float32, layout)
    totals = _folded(zeros)  # of a thread's keys: summed up at the end
    acc = gl.zeros([D, W], gl.float32, layout)
    best = gl.full([W], float("-inf"), gl.float32, gl.SliceLayout(0, layout))
    queries, weights = q_tile.permute((1, 0)), p_tile.permute((1, 0))
    end = done + gl.cdiv(length, N)
    mbarrier.wait(k_full.index(done % STAGES), done // STAGES & 1)
    keys = tall_keys(k_tiles.index(done % STAGES), W, FP8)
    for j in range(done, end):
        stage, phase = j % STAGES, j // STAGES & 1
        following, known = (j + 1) % STAGES, length - (j - done) * N
        scores = warpgroup_mma(keys, queries, zeros, use_acc=False, is_async=True)
        if W < MANY:
            mbarrier.wait(v_full.index(stage), phase)
            values = tall_values(v_tiles.index(stage), known, W, FP8)
        scores, keys = warpgroup_mma_wait(0, deps=[scores, keys])
        mbarrier.arrive(k_empty.index(stage))
        scores = hide(scores, skip - (j - done) * N, known, 0)
        new = gl.maximum(best, gl.max(scores, 0) * scale)
        p = gl.exp2(scores * scale - gl.expand_dims(new, 0))
        shrink = gl.exp2(best - new)
        weights.store(p.to(gl.float16))
        fence_async_shared()
        totals = _shrunk(totals, shrink) + _folded(p)
        best, acc = new, acc * gl.expand_dims(shrink, 0)
        if W == MANY:  # before, they would take registers that the softmax needs
            mbarrier.wait(v_full.index(stage), phase)
            values = tall_values(v_tiles.index(stage), known, W, FP8)
        acc = warpgroup_mma(values, weights, acc, is_async=True)
        # Of the last tile anything is read, and nothing is done with it.
        mbarrier.wait(k_full.index(following), (j + 1) // STAGES & 1, pred=j + 1 < end)
        keys = tall_keys(k_tiles.index(following), W, FP8)
        acc, values = warpgroup_mma_wait(0, deps=[acc, values])
        mbarrier.arrive(v_empty.index(stage))
    return acc, best, gl.sum(gl.sum(totals, 0), 0)


@gluon.jit
def _folded(x):
    """[N, W] as sums of the two rows of each 16 that a thread holds: [N / 16, 8, W]."""
    N: gl.constexpr = x.shape[0]
    W: gl.constexpr = x.shape[1]
    return gl.sum(x.reshape([N // 16, 2, 8, W]), 1)


@gluon.jit
def _shrunk(totals, shrink):
    """totals [N / 16, 8, W] times a number a column."""
    inner: gl.constexpr = gl.SliceLayout(0, totals.type.layout)
    factor = gl.convert_layout(shrink, gl.SliceLayout(0, inner), assert_trivial=True)
    return totals * gl.expand_dims(gl.expand_dims(factor, 0), 0)
