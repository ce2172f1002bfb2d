"""Decode attention for Hopper: programs that stay, and rows that share tokens read them together.

Means what `gpu.decode_attention` means, where `on_hopper` says so. Two programs a multiprocessor
take the items of their shares (`gpu.hopper_plan`), one after the other. One warp copies pages of
keys and values to a ring in shared memory and is ahead of the others also from item to item, so
that the memory never rests; four warps multiply. Plan and tokens of earlier steps were written
before the launch before this one: the ring is filled while that one still runs. The products have
64 rows: the rows of a tile that share tokens x the query heads of one KV head (Hydragen,
arXiv:2402.05099), or, of a row's own tokens, those heads and nothing: a tile of keys takes longer
to arrive than such a product.
"""

from __future__ import annotations

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from penstock_kernels.backend import Sharing
from penstock_kernels.gpu.dependent import launch
from penstock_kernels.gpu.hopper import described, is_hopper, multiprocessors
from penstock_kernels.gpu.hopper_merge import merge
from penstock_kernels.gpu.hopper_plan import HopperPlan, empty_plan, most_partials, plan_hopper
from penstock_kernels.gpu.hopper_ring import clear, kv_ring

ROWS = 64  # of a product: the fewest of a group of four warps
PART = 16  # tokens a copy: what is read behind the end of a context is less than that
STAGES = 3  # of the ring: 96 KiB, twice on a multiprocessor
RESIDENT = 2  # programs of a multiprocessor
LOG2_E = 1.4426950408889634


@gluon.jit
def _item(work, index):
    """First row, rows (0: there is no such item), first token, end and piece of an item."""
    items, _, last, _ = work
    entry = items + index * 6
    there = index < last
    first = gl.load(entry, mask=there, other=0, cache_modifier=".cg")
    members = gl.load(entry + 1, mask=there, other=0, cache_modifier=".cg")
    start = gl.load(entry + 2, mask=there, other=0, cache_modifier=".cg")
    stop = gl.load(entry + 3, mask=there, other=0, cache_modifier=".cg")
    piece = gl.load(entry + 4, mask=there, other=0, cache_modifier=".cg")
    return first, members, start, stop, piece


@gluon.jit
def _load(
    work, ring, source,
    N: gl.constexpr, D: gl.constexpr, PAGE: gl.constexpr, STAGES: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """The warp that fills the ring.

    Only the last tile of a row's own span may hold what the launch before this one wrote.
    """
    items, item, last, head = work
    k_tiles, v_tiles, k_full, v_full, k_empty, v_empty = ring
    desc, table, width, plane, values = source
    done = 0  # tiles of keys that went through the ring
    for index in range(item, last):
        entry = items + index * 6
        start = gl.load(entry + 2, cache_modifier=".cg")
        stop = gl.load(entry + 3, cache_modifier=".cg")
        shared = gl.load(entry + 4, cache_modifier=".cg") % 2
        pages = table + gl.load(entry + 5, cache_modifier=".cg").to(gl.int64) * width
        for token in range(start, stop, N):
            stage, phase = done % STAGES, (done // STAGES + 1) & 1
            if PDL and (shared == 0) & (token + N >= stop):
                gdc_wait()
            mbarrier.wait(k_empty.index(stage), phase)
            mbarrier.expect(k_full.index(stage), N * D * 2)
            row, full = head * plane, k_full.index(stage)
            _copy(desc, pages, row, token, stop, full, k_tiles.index(stage), PAGE)
            mbarrier.wait(v_empty.index(stage), phase)
            mbarrier.expect(v_full.index(stage), N * D * 2)
            row, full = values + head * plane, v_full.index(stage)
            _copy(desc, pages, row, token, stop, full, v_tiles.index(stage), PAGE)
            done += 1


@gluon.jit
def _copy(desc, pages, plane, token, stop, full, tile, PAGE: gl.constexpr):
    """The rows of a tile from the pages that hold them; behind the end, the last part again.

    That part comes from L2 then, and a tile always has the same number of bytes.
    """
    PART: gl.constexpr = desc.block_shape[0]
    end = (stop - 1) // PART * PART
    page = gl.load(pages + token // PAGE)
    for i in gl.static_range(tile.shape[0] // PART):
        at = gl.minimum(token + i * PART, end)
        if i > 0 and i * PART % PAGE == 0:
            page = gl.load(pages + at // PAGE)
        row = plane + page * PAGE + at % PAGE
        tma.async_copy_global_to_shared(desc, [row, 0], full, tile.slice(i * PART, PART))


@gluon.jit
def _attend(
    work, ring, source, target,
    GROUP: gl.constexpr, N: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr,
    PDL: gl.constexpr,
):  # fmt: skip
    """The four warps that multiply."""
    _, item, last, head = work
    first, members, start, stop, piece = _item(work, item)
    if PDL:
        gdc_wait()  # for the queries
        gdc_launch_dependents()
    q = _queries(source, head, first, members, GROUP, N, D)
    done = 0
    for index in range(item, last):
        next_first, next_members, next_start, next_stop, next_piece = _item(work, index + 1)
        spans = _spans(target, first, members, GROUP, D)
        scale = source[2]
        tiles = gl.cdiv(stop - start, N)
        weight, acc, best, total = _attend_span(
            ring, q, stop - start, tiles, scale, done, N, D, STAGES
        )
        # The next item's queries travel while this one ends, in the same registers.
        q = _queries(source, head, next_first, next_members, GROUP, N, D)
        done += tiles
        acc = _last_values(ring, weight, acc, stop - start - (tiles - 1) * N, done - 1, STAGES)
        _store(target, spans, head, first, piece, acc, best, total, GROUP, D)
        first, members, start, stop, piece = (
            next_first, next_members, next_start, next_stop, next_piece,
        )  # fmt: skip


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
def _spans(target, first, members, GROUP: gl.constexpr, D: gl.constexpr):
    """Of the 64 rows: the first partial result, those of its own span, all (0: no such row).

    Loaded before they are needed, and not touched until then: they come while keys are multiplied.
    """
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    member = gl.arange(0, 64, gl.SliceLayout(1, o_layout))
    valid = member < members * GROUP
    span = target[3] + (first + member // GROUP) * 3
    return (
        gl.load(span, mask=valid, other=0, cache_modifier=".cg"),
        gl.load(span + 1, mask=valid, other=0, cache_modifier=".cg"),
        gl.load(span + 2, mask=valid, other=0, cache_modifier=".cg"),
    )


@gluon.jit
def _attend_span(
    ring, q, length, tiles, scale, done, N: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr
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
    scores = _hide(scores, length)
    p, shrink, best, total = _softmax(scores, best, total, scale)
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
        scores = _hide(scores, length - (j - done) * N)
        p, shrink, best, total = _softmax(scores, best, total, scale)
        # Here and not before the next product: as in `gpu.hopper_prefill`.
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


@gluon.jit
def _hide(scores, known):
    """-inf where fewer keys are known than the tile has."""
    if known < scores.shape[1]:
        key = gl.arange(0, scores.shape[1], gl.SliceLayout(0, scores.type.layout))
        scores = gl.where(gl.expand_dims(key < known, 0), scores, float("-inf"))
    return scores


@gluon.jit
def _softmax(scores, best, total, scale):
    """Exponentials of some keys' scores and by how much older ones shrink; units of log2."""
    new = gl.maximum(best, gl.max(scores, 1) * scale)
    p = gl.exp2(scores * scale - gl.expand_dims(new, 1))
    shrink = gl.exp2(best - new)
    return p, shrink, new, total * shrink + gl.sum(p, 1)


@gluon.jit
def _store(
    target, spans, head, first, piece, acc, best, total, GROUP: gl.constexpr, D: gl.constexpr
):
    """The result where it is the only one of its row, else a partial one."""
    out, partial, partial_lse, _, kv_heads = target
    at, own, parts = spans
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    row_layout: gl.constexpr = gl.SliceLayout(1, o_layout)
    total = gl.convert_layout(total, row_layout)
    lse = gl.convert_layout(best, row_layout) + gl.log2(total)
    result = acc * gl.expand_dims(1 / total, 1)
    member = gl.arange(0, 64, row_layout)
    dims = gl.expand_dims(gl.arange(0, D, gl.SliceLayout(0, o_layout)), 0)
    heads = kv_heads * GROUP
    row = ((first + member // GROUP) * heads + head * GROUP + member % GROUP) * D
    place = out + (gl.expand_dims(row, 1) + dims)
    gl.store(place, result.to(out.dtype.element_ty), mask=gl.expand_dims(parts == 1, 1))
    # Shared tokens come before the row's own, as they stand in the sequence.
    at += piece // 2 + gl.where(piece % 2 == 0, parts - own, 0)
    cell = at * heads + head * GROUP + member % GROUP
    gl.store(partial_lse + cell, lse, mask=parts > 1)
    place = partial + (gl.expand_dims(cell * D, 1) + dims)
    gl.store(place, result, mask=gl.expand_dims(parts > 1, 1))


@gluon.jit(do_not_specialize=["blocks", "width"])
def _kernel(
    query,  # [rows, row_stride], heads * D of them used
    desc,  # of the cache as [2 * kv_heads * blocks * PAGE, D], in parts of [PART, D]
    table,  # [slots, width] int32
    items,  # of the plan
    bounds,
    spans,
    out,  # [rows, heads * D]
    partial,  # [partials, kv_heads, GROUP, D] float32
    partial_lse,  # [partials, kv_heads, GROUP] float32
    scale,
    row_stride,
    blocks,
    width,
    kv_heads: gl.constexpr,
    GROUP: gl.constexpr,
    D: gl.constexpr,
    PAGE: gl.constexpr,
    N: gl.constexpr,
    STAGES: gl.constexpr,
    PDL: gl.constexpr,
):
    ring = kv_ring(desc, 1, N, D, STAGES)
    program, head = gl.program_id(0) // kv_heads, gl.program_id(0) % kv_heads
    item = gl.load(bounds + program, cache_modifier=".cg")
    work = (items, item, gl.load(bounds + program + 1, cache_modifier=".cg"), head)
    plane = gl.to_tensor(blocks) * PAGE
    pages = (desc, table, gl.to_tensor(width), plane, kv_heads * plane)
    source = (query, gl.to_tensor(row_stride), scale)
    target = (out, partial, partial_lse, spans, gl.to_tensor(kv_heads))
    gl.warp_specialize(
        [
            (_attend, (work, ring, source, target, GROUP, N, D, STAGES, PDL)),
            (_load, (work, ring, pages, N, D, PAGE, STAGES, PDL)),
        ],
        [1],
        [40],
    )


def key_tile(head_dim: int) -> int:
    """Tokens a tile: 16 KiB of keys."""
    return 8192 // head_dim


def on_hopper(device: torch.device, cache: Tensor, heads: int) -> bool:
    """Whether card, dtype and shapes are those of this kernel. cache: [..., kv_heads, blocks, page,
    head_dim]."""
    kv_heads, _, page, head_dim = cache.shape[-4:]
    return (
        is_hopper(device)
        and cache.dtype in (torch.bfloat16, torch.float16)
        and head_dim in (64, 128)
        and page % PART == 0
        and (page % key_tile(head_dim) == 0 or key_tile(head_dim) % page == 0)
        and heads // kv_heads <= ROWS
    )


class HopperDecode:
    """`gpu.decode_attention.DecodeAttention` without a window, where `on_hopper`; the same
    parameters."""

    def __init__(
        self,
        rows: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        device: torch.device,
        dependent: bool = False,
    ) -> None:
        self._rows, self._heads, self._kv_heads, self._width = rows, heads, kv_heads, head_dim
        self._device, self._dependent = device, dependent
        self.tile_rows = ROWS // (heads // kv_heads)
        # At most as many as run at once: a program must not wait for another to end.
        self._programs = max(1, RESIDENT * multiprocessors(device) // kv_heads)
        cells = most_partials(rows, self._programs, self.tile_rows) * heads
        self.partial = torch.empty(cells * head_dim, dtype=torch.float32, device=device)
        self.lse = torch.empty(cells, dtype=torch.float32, device=device)
        # Tiles have two rows at least, and their number is a power of two.
        self._plan = empty_plan(rows, max(1, rows), self._programs, device)

    def plan(
        self, positions: Tensor, slots: Tensor, live: Tensor | None, sharing: Sharing | None
    ) -> HopperPlan:
        """What the layers do in a step; see `plan_hopper`. Valid until the next call.

        Raises ValueError for more rows than the memory was made for.
        """
        if len(positions) > self._rows:
            raise ValueError(f"{len(positions)} rows are more than the {self._rows} made room for")
        keys = key_tile(self._width)
        plan_hopper(self._plan, positions, slots, keys, live, sharing, self._dependent)
        return self._plan

    def __call__(
        self,
        query: Tensor,
        cache: Tensor,
        table: Tensor,
        out: Tensor,
        plan: HopperPlan,
        scale: float,
    ) -> None:
        """softmax(q k^T * scale) v of one new token a row over its own sequence, itself included.

        query: [rows, heads, d], last two dimensions dense; cache: [2, kv_heads, blocks, page, d];
        table: [slots, width] int32; out: [rows, heads * d]; plan: of this step, it and all tokens
        but each row's last written before the launch before this one. Nothing is read back by the
        host.
        """
        rows, heads, d = query.shape
        _, kv_heads, blocks, page, _ = cache.shape
        _kernel[(self._programs * kv_heads,)](
            query, described(cache.view(-1, d), PART, d), table, plan.items, plan.bounds,
            plan.spans, out, self.partial, self.lse, scale * LOG2_E, query.stride(0), blocks,
            table.stride(0), kv_heads=kv_heads, GROUP=heads // kv_heads, D=d, PAGE=page,
            N=key_tile(d), STAGES=STAGES, num_warps=4, maxnreg=128,
            **launch(self._dependent),
        )  # fmt: skip
        merge(self.partial, self.lse, plan.spans, out, rows, d, self._dependent)
