"""Prefill attention for Hopper's tensor cores (FlashAttention-3, Shah et al., arXiv:2407.08608).

Means what `prefill_attention` means, where `supports_hopper_prefill` says so. A program takes
tile after tile. One warp copies pages of keys and values to a ring in shared memory, and is ahead
of the others also from tile to tile; two groups of four warps hold 64 rows each. While one group is
at its softmax the other multiplies, and in a group the product with the values of some keys runs
under the softmax of the next ones.

Of a cache in FP8 one more group of four warps takes what was copied, to a ring in float16 for those
that multiply: the tensor cores read a product's keys from shared memory, and the two groups would
widen all of them twice. They multiply in float16 then, which holds every number of FP8.
"""

from __future__ import annotations

from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from penstock_kernels.fp8 import bits
from penstock_kernels.gpu.attention.hopper_kv_ring import clear, kv_ring
from penstock_kernels.gpu.attention.hopper_prefill_fp8 import widen
from penstock_kernels.gpu.attention.hopper_prefill_turns import span, task, turns
from penstock_kernels.gpu.attention.hopper_softmax import softmax
from penstock_kernels.gpu.attention.kv8 import exponent_bits
from penstock_kernels.gpu.launch.hopper import multiprocessors, supports_half, tma_descriptor
from penstock_kernels.ops import AS_MODEL, CacheSpec

ROWS = 128  # of a tile, half of them a group's
COPY_TOKENS = 64  # tokens a copy; a page holds one or more of them
STAGES = 4  # of the ring: two are 6 % slower over a long context
HELD = 3  # of the ring in FP8 before it


@gluon.jit
def _load(
    plan, ring, source, window,
    N: gl.constexpr, D: gl.constexpr, PAGE: gl.constexpr, STAGES: gl.constexpr,
    BYTES: gl.constexpr, WINDOW: gl.constexpr,
):  # fmt: skip
    """The warp that fills the ring."""
    k_tiles, v_tiles, k_full, v_full, k_empty, v_empty = ring
    desc, table, slots, width, plane, values = source
    done = 0  # tiles of keys that went through the ring
    for turn in range(turns(plan)):
        head, first_row, rows, start = task(plan, turn)
        pages = table + gl.load(slots + first_row).to(gl.int64) * width
        begin, length = span(start, rows, window, N, WINDOW)
        for token in range(begin, length, N):
            stage, phase = done % STAGES, (done // STAGES + 1) & 1
            mbarrier.wait(k_empty.index(stage), phase)
            mbarrier.expect(k_full.index(stage), BYTES)
            row, full = head * plane, k_full.index(stage)
            _copy(desc, pages, row, token, length, full, k_tiles.index(stage), PAGE)
            mbarrier.wait(v_empty.index(stage), phase)
            mbarrier.expect(v_full.index(stage), BYTES)
            row, full = values + head * plane, v_full.index(stage)
            _copy(desc, pages, row, token, length, full, v_tiles.index(stage), PAGE)
            done += 1


@gluon.jit
def _copy(desc, pages, plane, token, length, full, tile, PAGE: gl.constexpr):
    """The rows of a tile from the pages that hold them; behind the context, its last page again."""
    part: gl.constexpr = desc.block_shape[0]
    for i in gl.static_range(tile.shape[0] // part):
        page = gl.load(pages + gl.minimum(token + i * part, length - 1) // PAGE)
        row = plane + page * PAGE + (token + i * part) % PAGE
        tma.async_copy_global_to_shared(desc, [row, 0], full, tile.slice(i * part, part))


@gluon.jit
def _attend(
    plan, ring, rows_of, window,
    HALF: gl.constexpr, GROUP: gl.constexpr, N: gl.constexpr, D: gl.constexpr,
    STAGES: gl.constexpr, FP8: gl.constexpr, WINDOW: gl.constexpr,
):  # fmt: skip
    """Rows 64 * HALF .. 64 * HALF + 63 of each tile, by four warps."""
    query, sinks, out, scale, value_scale, row_stride, out_stride = rows_of
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [256 // D, D // 8], [4, 1], [1, 0])
    member = HALF * 64 + gl.arange(0, 64, gl.SliceLayout(1, layout))
    dims = gl.arange(0, D, gl.SliceLayout(0, layout))
    token = member // GROUP
    column = gl.expand_dims(member % GROUP * D, 1) + gl.expand_dims(dims, 0)
    head, first_row, rows, start = task(plan, 0)
    place = gl.expand_dims(first_row + token, 1) * row_stride + head * GROUP * D + column
    q = gl.load(query + place, mask=gl.expand_dims(token < rows, 1), other=0.0)
    done = 0
    for turn in range(turns(plan)):
        # The next tile's queries travel while this one is computed.
        next_head, next_row, next_rows, next_start = task(plan, turn + 1)
        place = gl.expand_dims(next_row + token, 1) * row_stride + next_head * GROUP * D + column
        next_q = gl.load(query + place, mask=gl.expand_dims(token < next_rows, 1), other=0.0)
        if rows > 0:
            begin, length = span(start, rows, window, N, WINDOW)
            result = _attend_tile(
                ring, q, sinks, head, start, begin, length, window, scale, done,
                HALF, GROUP, N, D, STAGES, FP8, WINDOW,
            )  # fmt: skip
            place = gl.expand_dims(first_row + token, 1) * out_stride + head * GROUP * D + column
            result = (result * value_scale).to(out.dtype.element_ty)
            result = gl.convert_layout(result, layout)
            gl.store(out + place, result, mask=gl.expand_dims(token < rows, 1))
            done += gl.cdiv(length - begin, N)
        head, first_row, rows, start, q = next_head, next_row, next_rows, next_start, next_q


@gluon.jit
def _attend_tile(
    ring, q, sinks, head, start, begin, length, window, scale, done,
    HALF: gl.constexpr, GROUP: gl.constexpr, N: gl.constexpr, D: gl.constexpr,
    STAGES: gl.constexpr, FP8: gl.constexpr, WINDOW: gl.constexpr,
):  # fmt: skip
    """softmax(q k^T * scale) v of 64 rows, [64, D]; `done`: tiles of keys before this one's."""
    k_tiles, v_tiles, k_full, v_full, k_empty, v_empty = ring
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, N, 16])
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    p_layout: gl.constexpr = gl.DotOperandLayout(0, o_layout, 2)
    row_layout: gl.constexpr = gl.SliceLayout(1, s_layout)
    zeros = gl.zeros([64, N], gl.float32, s_layout)
    acc = gl.zeros([64, D], gl.float32, o_layout)
    best = gl.full([64], float("-inf"), gl.float32, row_layout)
    total = gl.zeros([64], gl.float32, row_layout)
    member = HALF * 64 + gl.arange(0, 64, row_layout)
    if sinks is not None:  # as a first token of value zero
        best = gl.load(sinks + head * GROUP + member % GROUP) * 1.4426950408889634
        total += 1.0
    position = start + member // GROUP
    first, end = done, done + gl.cdiv(length - begin, N)
    masked = done + (start + 1 - begin) // N  # before it every row sees all keys up to its own
    windowed = done + gl.cdiv(length - window - begin, N)  # from it on all of them, if WINDOW
    if FP8:
        q = q.to(gl.float16)
    q = gl.convert_layout(q, gl.DotOperandLayout(0, s_layout, 2))

    mbarrier.wait(k_full.index(first % STAGES), first // STAGES & 1)
    scores = warpgroup_mma(q, k_tiles.index(first % STAGES).permute((1, 0)), zeros, use_acc=False)
    mbarrier.arrive(k_empty.index(first % STAGES))
    scores = _hide(scores, begin, position, window, WINDOW)
    p, shrink, best, total = softmax(scores, best, total, scale, WINDOW)
    weight = gl.convert_layout(p.to(q.dtype), p_layout)
    following = (first + 1) % STAGES
    mbarrier.wait(k_full.index(following), (first + 1) // STAGES & 1, pred=first + 1 < end)
    for j in range(first + 1, end):
        stage, old, following = j % STAGES, (j - 1) % STAGES, (j + 1) % STAGES
        keys = k_tiles.index(stage).permute((1, 0))
        scores = warpgroup_mma(q, keys, zeros, use_acc=False, is_async=True)
        mbarrier.wait(v_full.index(old), (j - 1) // STAGES & 1)
        acc = warpgroup_mma(weight, v_tiles.index(old), acc, is_async=True)
        scores = warpgroup_mma_wait(1, deps=[scores])
        mbarrier.arrive(k_empty.index(stage))
        partly = j >= masked
        if WINDOW:
            partly |= j < windowed
        if partly:
            scores = _hide(scores, begin + (j - first) * N, position, window, WINDOW)
        p, shrink, best, total = softmax(scores, best, total, scale, WINDOW)
        # Stands here and not before the next product: its loop keeps the assembler from moving the
        # softmax behind the wait below, where it would no longer run under the product.
        mbarrier.wait(k_full.index(following), (j + 1) // STAGES & 1, pred=j + 1 < end)
        # The product reads the registers of `weight` until it is done: replaced after.
        acc, weight, p = warpgroup_mma_wait(0, deps=[acc, weight, p])
        mbarrier.arrive(v_empty.index(old))
        acc = acc * gl.expand_dims(gl.convert_layout(shrink, gl.SliceLayout(1, o_layout)), 1)
        weight = gl.convert_layout(p.to(q.dtype), p_layout)
    stage = (end - 1) % STAGES
    mbarrier.wait(v_full.index(stage), (end - 1) // STAGES & 1)
    clear(v_tiles.index(stage), length - begin - (end - 1 - first) * N)
    acc = warpgroup_mma(weight, v_tiles.index(stage), acc)
    mbarrier.arrive(v_empty.index(stage))
    total = gl.convert_layout(total, gl.SliceLayout(1, o_layout))
    return acc / gl.expand_dims(total, 1)


@gluon.jit
def _hide(scores, token, position, window, WINDOW: gl.constexpr):
    """-inf where the keys from `token` on stand after a row's own position or before its window."""
    key = token + gl.arange(0, scores.shape[1], gl.SliceLayout(0, scores.type.layout))
    visible = gl.expand_dims(key, 0) <= gl.expand_dims(position, 1)
    if WINDOW:
        visible = visible & (gl.expand_dims(key, 0) > gl.expand_dims(position - window, 1))
    return gl.where(visible, scores, float("-inf"))


@gluon.jit(do_not_specialize=["total", "window"])
def _kernel(
    query,  # [n, row_stride], heads * D of them used
    desc,  # of the cache as [2 * kv_heads * blocks * PAGE, D], in [COPY_TOKENS, D]; bytes of FP8
    table,  # [slots, width] int32
    slots,  # [n] integers
    positions,  # [n] int64
    tiles,  # [count, 2] int32: first row of a tile, number of its rows; all of one sequence
    sinks,  # [heads] float32; None: none
    out,  # [n, heads * D]
    scale,
    value_scale,
    row_stride,
    out_stride,
    blocks,
    width,
    total,  # count * kv_heads
    window,  # a row sees itself and the window - 1 tokens before it, with WINDOW
    kv_heads: gl.constexpr,
    GROUP: gl.constexpr,
    D: gl.constexpr,
    PAGE: gl.constexpr,
    N: gl.constexpr,
    STAGES: gl.constexpr,
    HELD: gl.constexpr,
    FP8: gl.constexpr,
    WINDOW: gl.constexpr,
):
    plan = (tiles, positions, gl.to_tensor(total), gl.to_tensor(kv_heads))
    strides = (gl.to_tensor(row_stride), gl.to_tensor(out_stride))
    rows_of = (query, sinks, out, scale, value_scale, strides[0], strides[1])
    plane = gl.to_tensor(blocks) * PAGE
    source = (desc, table, slots, gl.to_tensor(width), plane, kv_heads * plane)
    window = gl.to_tensor(window)
    LOW: gl.constexpr = gl.constexpr(0)
    HIGH: gl.constexpr = gl.constexpr(1)
    if FP8:
        held = kv_ring(desc.dtype, 1, N, D, HELD)
        ring = kv_ring(gl.float16, 2, N, D, STAGES)
        gl.warp_specialize(
            [
                (_attend, (plan, ring, rows_of, window, LOW, GROUP, N, D, STAGES, FP8, WINDOW)),
                (_attend, (plan, ring, rows_of, window, HIGH, GROUP, N, D, STAGES, FP8, WINDOW)),
                (widen, (plan, held, ring, window, N, STAGES, HELD, FP8, WINDOW)),
                (_load, (plan, held, source, window, N, D, PAGE, HELD, N * D, WINDOW)),
            ],
            [4, 4, 1],
            [208, 72, 24],
        )
    else:
        ring = kv_ring(desc.dtype, 2, N, D, STAGES)
        gl.warp_specialize(
            [
                (_attend, (plan, ring, rows_of, window, LOW, GROUP, N, D, STAGES, FP8, WINDOW)),
                (_attend, (plan, ring, rows_of, window, HIGH, GROUP, N, D, STAGES, FP8, WINDOW)),
                (_load, (plan, ring, source, window, N, D, PAGE, STAGES, 2 * N * D, WINDOW)),
            ],
            [4, 1],
            [240, 24],
        )


def key_tile(head_dim: int) -> int:
    """Keys a tile: at width 128 the registers hold the scores of 64."""
    return 64 if head_dim == 128 else 128


def supports_hopper_prefill(query: Tensor, cache: Tensor) -> bool:
    """Whether the card and the shapes are those of this kernel."""
    heads, d = query.shape[1:]
    return (
        supports_half(query)
        and d in (64, 128)
        and cache.shape[3] % COPY_TOKENS == 0
        and heads // cache.shape[1] <= ROWS
    )


def hopper_prefill(
    query: Tensor,
    cache: Tensor,
    table: Tensor,
    slots: Tensor,
    positions: Tensor,
    tiles: Tensor,
    out: Tensor,
    scale: float,
    window: int | None = None,
    stored: CacheSpec = AS_MODEL,
    sinks: Tensor | None = None,
) -> None:
    """`prefill_attention` without a soft cap; the same tensors."""
    _, heads, d = query.shape
    _, kv_heads, blocks, page, _ = cache.shape
    total, kind, keys = tiles.shape[0] * kv_heads, exponent_bits(cache), key_tile(d)
    _kernel[(min(total, multiprocessors(query.device)),)](
        query, tma_descriptor(bits(cache).view(-1, d), COPY_TOKENS, d), table, slots, positions,
        tiles, sinks, out, scale * stored.key_scale * 1.4426950408889634, stored.value_scale,
        query.stride(0), heads * d, blocks, table.stride(0), total, window or 0, kv_heads=kv_heads,
        GROUP=heads // kv_heads, D=d, PAGE=page, N=keys, STAGES=STAGES, HELD=HELD, FP8=kind,
        WINDOW=window is not None, num_warps=4, maxnreg=128 if kind else 168,
    )  # fmt: skip
