"""Decode attention of many queries for Hopper: they are the tall side of its products.

The products have 64 rows: the rows of a tile that share tokens x the query heads of one KV head
(Hydragen, arXiv:2402.05099).
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from penstock_kernels.gpu.attention.hopper_decode_epilogue import hide, spans_of, store
from penstock_kernels.gpu.attention.hopper_kv_ring import clear
from penstock_kernels.gpu.attention.hopper_softmax import softmax


@gluon.jit
def _queries(source, head, first, members, GROUP: gl.constexpr, N: gl.constexpr, D: gl.constexpr):
    """[64, D]: the query heads of one KV head, row after row."""
    query, row_stride, _ = source
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, N, 16])
    layout: gl.constexpr = gl.DotOperandLayout(0, s_layout, 2)
    member = gl.arange(0, 64, gl.SliceLayout(1, layout))
    dims = gl.arange(0, D, gl.SliceLayout(0, layout))
    row = (first + member // GROUP) * row_stride + (head * GROUP + member % GROUP) * D
    place = query + (gl.expand_dims(row, 1) + gl.expand_dims(dims, 0))
    return gl.load(place, mask=gl.expand_dims(member < members * GROUP, 1), other=0.0)


@gluon.jit
def attend_many(
    ring, source, target, head, item, done,
    GROUP: gl.constexpr, N: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """An item of 64 queries at most. done: tiles of keys before."""
    first, members, start, stop, piece, skip = item
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    q = _queries(source, head, first, members, GROUP, N, D)
    spans = spans_of(target, first, members, GROUP, 64, gl.SliceLayout(1, o_layout))
    tiles = gl.cdiv(stop - start, N)
    weight, acc, best, total = _attend_span(
        ring, q, skip, stop - start, tiles, source[2], done, N, D, STAGES
    )
    known = stop - start - (tiles - 1) * N
    acc = _last_values(ring, weight, acc, known, done + tiles - 1, STAGES)
    store(target, spans, head, first, piece, acc, best, total, GROUP, 1, 0)


@gluon.jit
def _attend_span(
    ring,
    q,
    skip,
    length,
    tiles,
    scale,
    done,
    N: gl.constexpr,
    D: gl.constexpr,
    STAGES: gl.constexpr,
):
    """q k^T over a span of some tiles and p v but for the last tile's values: its weights [64, N],
    sum of values [64, D], largest score and sum of weights [64].

    done: tiles of keys before this span's. Scores are in units of log2. The values of a tile are
    multiplied under the softmax of the next one.
    """
    k_tiles, v_tiles, k_full, v_full, k_empty, v_empty = ring
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, N, 16])
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    p_layout: gl.constexpr = gl.DotOperandLayout(0, o_layout, 2)
    row_layout: gl.constexpr = gl.SliceLayout(1, s_layout)
    zeros = gl.zeros([64, N], gl.float32, s_layout)
    acc = gl.zeros([64, D], gl.float32, o_layout)
    best = gl.full([64], float("-inf"), gl.float32, row_layout)
    total = gl.zeros([64], gl.float32, row_layout)
    end = done + tiles

    stage = done % STAGES
    mbarrier.wait(k_full.index(stage), done // STAGES & 1)
    scores = warpgroup_mma(q, k_tiles.index(stage).permute((1, 0)), zeros, use_acc=False)
    mbarrier.arrive(k_empty.index(stage))
    scores = hide(scores, skip, length, 1)
    p, shrink, best, total = softmax(scores, best, total, scale)
    weight = gl.convert_layout(p.to(q.dtype), p_layout)
    following = (done + 1) % STAGES
    mbarrier.wait(k_full.index(following), (done + 1) // STAGES & 1, pred=done + 1 < end)
    for j in range(done + 1, end):
        stage, old, following = j % STAGES, (j - 1) % STAGES, (j + 1) % STAGES
        keys = k_tiles.index(stage).permute((1, 0))
        scores = warpgroup_mma(q, keys, zeros, use_acc=False, is_async=True)
        mbarrier.wait(v_full.index(old), (j - 1) // STAGES & 1)
        acc = warpgroup_mma(weight, v_tiles.index(old), acc, is_async=True)
        scores = warpgroup_mma_wait(1, deps=[scores])
        mbarrier.arrive(k_empty.index(stage))
        scores = hide(scores, 0, length - (j - done) * N, 1)
        p, shrink, best, total = softmax(scores, best, total, scale)
        # Here and not before the next product: as in `hopper_prefill`.
        mbarrier.wait(k_full.index(following), (j + 1) // STAGES & 1, pred=j + 1 < end)
        # The product reads the registers of `weight` until it is done: replaced after.
        acc, weight, p = warpgroup_mma_wait(0, deps=[acc, weight, p])
        mbarrier.arrive(v_empty.index(old))
        acc = acc * gl.expand_dims(gl.convert_layout(shrink, gl.SliceLayout(1, o_layout)), 1)
        weight = gl.convert_layout(p.to(q.dtype), p_layout)
    return weight, acc, best, total


@gluon.jit
def _last_values(ring, weight, acc, known, done, STAGES: gl.constexpr):
    """p v of a span's last tile, of which `known` tokens count; done: tiles before it."""
    _, v_tiles, _, v_full, _, v_empty = ring
    stage = done % STAGES
    mbarrier.wait(v_full.index(stage), done // STAGES & 1)
    clear(v_tiles.index(stage), known)
    acc = warpgroup_mma(weight, v_tiles.index(stage), acc)
    mbarrier.arrive(v_empty.index(stage))
    return acc
