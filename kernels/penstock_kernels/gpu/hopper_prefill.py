"""Prefill attention for Hopper's tensor cores (FlashAttention-3, Shah et al., arXiv:2407.08608).

Means what `gpu.prefill_attention` means, where `on_hopper` says so. One warp copies pages of keys
and values to shared memory; two groups of four warps hold 64 rows each. While one group is at its
softmax the other multiplies, and in a group the product with the values of a tile runs under
the softmax of the next.
"""

from __future__ import annotations

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

ROWS = 128
PART = 64  # tokens a copy; a page holds one or more of them
STAGES = 4


@gluon.jit
def _load(
    ring, keys, PAGE: gl.constexpr, N: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr
):  # fmt: skip
    """The warp that fills the ring of tiles."""
    k_tiles, v_tiles, k_full, v_full, k_empty, v_empty = ring
    desc, table, key_row, value_row, length = keys
    for j in range(gl.cdiv(length, N)):
        stage, phase = j % STAGES, (j // STAGES + 1) & 1
        mbarrier.wait(k_empty.index(stage), phase)
        mbarrier.expect(k_full.index(stage), N * D * 2)
        _copy(desc, table, key_row, j * N, length, k_full.index(stage), k_tiles.index(stage), PAGE)
        mbarrier.wait(v_empty.index(stage), phase)
        mbarrier.expect(v_full.index(stage), N * D * 2)
        _copy(
            desc, table, value_row, j * N, length, v_full.index(stage), v_tiles.index(stage), PAGE
        )


@gluon.jit
def _copy(desc, table, plane, token, length, full, tile, PAGE: gl.constexpr):
    """The rows of a tile from the pages that hold them; behind the context, its last page again."""
    part: gl.constexpr = desc.block_shape[0]
    for i in gl.static_range(tile.shape[0] // part):
        page = gl.load(table + gl.minimum(token + i * part, length - 1) // PAGE)
        row = plane + page * PAGE + (token + i * part) % PAGE
        tma.async_copy_global_to_shared(desc, [row, 0], full, tile.slice(i * part, part))


@gluon.jit
def _softmax(scores, best, total, scale):
    """Exponentials of a tile's scores and by how much older ones shrink; units of log2."""
    new = gl.maximum(best, gl.max(scores, 1) * scale)
    p = gl.exp2(scores * scale - gl.expand_dims(new, 1))
    shrink = gl.exp2(best - new)
    return p, shrink, new, total * shrink + gl.sum(p, 1)


@gluon.jit
def _attend(
    ring, task,
    HALF: gl.constexpr, GROUP: gl.constexpr, N: gl.constexpr, D: gl.constexpr,
    STAGES: gl.constexpr,
):  # fmt: skip
    """Rows 64 * HALF .. 64 * HALF + 63 of the tile, by four warps."""
    k_tiles, v_tiles, k_full, v_full, k_empty, v_empty = ring
    query, out, first_row, rows, start, scale, row_stride, out_stride, head = task
    dtype: gl.constexpr = k_tiles.dtype
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, N, 16])
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    q_layout: gl.constexpr = gl.DotOperandLayout(0, s_layout, 2)
    p_layout: gl.constexpr = gl.DotOperandLayout(0, o_layout, 2)
    row_layout: gl.constexpr = gl.SliceLayout(1, s_layout)
    io_layout: gl.constexpr = gl.BlockedLayout([1, 8], [256 // D, D // 8], [4, 1], [1, 0])
    zeros = gl.zeros([64, N], gl.float32, s_layout)

    member = HALF * 64 + gl.arange(0, 64, gl.SliceLayout(1, io_layout))
    dims = gl.arange(0, D, gl.SliceLayout(0, io_layout))
    inside = gl.expand_dims(member // GROUP < rows, 1)
    head_of = head * GROUP + member % GROUP
    place = (first_row + member // GROUP) * row_stride + head_of * D
    places = gl.expand_dims(place, 1) + gl.expand_dims(dims, 0)
    q = gl.convert_layout(gl.load(query + places, mask=inside, other=0.0), q_layout)

    position = start + (HALF * 64 + gl.arange(0, 64, row_layout)) // GROUP
    column = gl.arange(0, N, gl.SliceLayout(0, s_layout))
    length = start + rows
    tiles = gl.cdiv(length, N)
    open_tiles = (start + 1) // N  # every row sees these in full
    best = gl.full([64], float("-inf"), gl.float32, row_layout)
    total = gl.zeros([64], gl.float32, row_layout)
    acc = gl.zeros([64, D], gl.float32, o_layout)

    mbarrier.wait(k_full.index(0), 0)
    scores = warpgroup_mma(q, k_tiles.index(0).permute((1, 0)), zeros, use_acc=False)
    mbarrier.arrive(k_empty.index(0))
    visible = gl.expand_dims(column, 0) <= gl.expand_dims(position, 1)
    scores = gl.where(visible, scores, float("-inf"))
    p, shrink, best, total = _softmax(scores, best, total, scale)
    weight = gl.convert_layout(p.to(dtype), p_layout)
    mbarrier.wait(k_full.index(1 % STAGES), 1 // STAGES & 1, pred=tiles > 1)
    for j in range(1, tiles):
        stage, old, following = j % STAGES, (j - 1) % STAGES, (j + 1) % STAGES
        scores = warpgroup_mma(
            q, k_tiles.index(stage).permute((1, 0)), zeros, use_acc=False, is_async=True
        )
        mbarrier.wait(v_full.index(old), (j - 1) // STAGES & 1)
        acc = warpgroup_mma(weight, v_tiles.index(old), acc, is_async=True)
        scores = warpgroup_mma_wait(1, deps=[scores])
        mbarrier.arrive(k_empty.index(stage))
        if j >= open_tiles:
            visible = gl.expand_dims(j * N + column, 0) <= gl.expand_dims(position, 1)
            scores = gl.where(visible, scores, float("-inf"))
        p, shrink, best, total = _softmax(scores, best, total, scale)
        # Stands here and not before the product: its loop keeps the assembler from moving the
        # softmax behind the wait below, where it would no longer run under the product.
        mbarrier.wait(k_full.index(following), (j + 1) // STAGES & 1, pred=j + 1 < tiles)
        # The product reads the registers of `weight` until it is done: replaced after.
        acc, weight, p = warpgroup_mma_wait(0, deps=[acc, weight, p])
        mbarrier.arrive(v_empty.index(old))
        acc = acc * gl.expand_dims(gl.convert_layout(shrink, gl.SliceLayout(1, o_layout)), 1)
        weight = gl.convert_layout(p.to(dtype), p_layout)
    last = tiles - 1
    stage, phase = last % STAGES, (last // STAGES) & 1
    mbarrier.wait(v_full.index(stage), phase)
    if length % N != 0:
        # What stands behind the context may be anything, and nothing times NaN is NaN.
        v_rows = gl.arange(0, N, gl.SliceLayout(1, io_layout))
        values = v_tiles.index(stage).load(io_layout)
        known = gl.expand_dims(last * N + v_rows < length, 1)
        v_tiles.index(stage).store(gl.where(known, values, 0.0).to(dtype))
        fence_async_shared()
    acc = warpgroup_mma(weight, v_tiles.index(stage), acc)

    result = acc / gl.expand_dims(gl.convert_layout(total, gl.SliceLayout(1, o_layout)), 1)
    result = gl.convert_layout(result.to(dtype), io_layout)
    place = (first_row + member // GROUP) * out_stride + head_of * D
    places = gl.expand_dims(place, 1) + gl.expand_dims(dims, 0)
    gl.store(out + places, result, mask=inside)


@gluon.jit
def _kernel(
    query,  # [n, row_stride], heads * D of them used
    desc,  # of the cache as [2 * kv_heads * blocks * PAGE, D], in tiles of [N, D]
    table,  # [slots, width] int32
    slots,  # [n] int32
    positions,  # [n] int64
    tiles,  # [grid, 2] int32: first row of a tile, number of its rows; all of one sequence
    out,  # [n, heads * D]
    scale,
    row_stride,
    out_stride,
    blocks,
    width,
    kv_heads: gl.constexpr,
    GROUP: gl.constexpr,
    D: gl.constexpr,
    PAGE: gl.constexpr,
    N: gl.constexpr,
    STAGES: gl.constexpr,
):
    head, tile = gl.program_id(0), gl.program_id(1)
    rows = gl.load(tiles + 2 * tile + 1)
    if rows == 0:
        return
    first_row = gl.load(tiles + 2 * tile).to(gl.int64)
    start = gl.load(positions + first_row).to(gl.int32)
    pages = table + gl.load(slots + first_row).to(gl.int64) * width
    key_row = head * blocks * PAGE
    value_row = (kv_heads + head) * blocks * PAGE

    layout: gl.constexpr = desc.layout
    k_tiles = gl.allocate_shared_memory(desc.dtype, [STAGES, N, D], layout)
    v_tiles = gl.allocate_shared_memory(desc.dtype, [STAGES, N, D], layout)
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(k_full.index(i), count=1)
        mbarrier.init(v_full.index(i), count=1)
        mbarrier.init(k_empty.index(i), count=2)
        mbarrier.init(v_empty.index(i), count=2)
    fence_async_shared()

    ring = (k_tiles, v_tiles, k_full, v_full, k_empty, v_empty)
    task = (query, out, first_row, rows, start, scale, row_stride, out_stride, head)
    keys = (desc, pages, key_row, value_row, start + rows)
    gl.warp_specialize(
        [
            (_attend, (ring, task, gl.constexpr(0), GROUP, N, D, STAGES)),
            (_attend, (ring, task, gl.constexpr(1), GROUP, N, D, STAGES)),
            (_load, (ring, keys, PAGE, N, D, STAGES)),
        ],
        [4, 1],
        [240, 24],
    )


def key_tile(head_dim: int) -> int:
    """Keys a tile: at width 128 the registers hold the scores of 64."""
    return 64 if head_dim == 128 else 128


def on_hopper(query: Tensor, cache: Tensor) -> bool:
    """Whether the card and the shapes are those of this kernel."""
    heads, d = query.shape[1:]
    return (
        query.is_cuda
        and torch.cuda.get_device_capability(query.device)[0] == 9
        and query.dtype in (torch.bfloat16, torch.float16)
        and d in (64, 128)
        and cache.shape[3] % PART == 0
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
) -> None:
    """`prefill_attention` without a window; the same tensors."""
    _, heads, d = query.shape
    _, kv_heads, blocks, page, _ = cache.shape
    dtype = gl.bfloat16 if query.dtype == torch.bfloat16 else gl.float16
    layout = gl.NVMMASharedLayout.get_default_for([PART, d], dtype)
    desc = TensorDescriptor.from_tensor(cache.view(-1, d), [PART, d], layout)
    _kernel[(kv_heads, tiles.shape[0])](
        query, desc, table, slots, positions, tiles, out, scale * 1.4426950408889634,
        query.stride(0), heads * d, blocks, table.stride(0), kv_heads=kv_heads,
        GROUP=heads // kv_heads, D=d, PAGE=page, N=key_tile(d), STAGES=STAGES,
        num_warps=4, maxnreg=168,
    )  # fmt: skip
