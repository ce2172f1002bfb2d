"""Decode attention for Hopper: programs that stay, and rows that share tokens read them together.

Means what `decode_attention` means, where `supports_hopper_decode` says so. Two programs a
multiprocessor take the items of their shares (`hopper_plan`), one after the other. One warp
copies pages of keys and values to a ring in shared memory and is ahead of the others also from item
to item, so that the memory never rests; four warps multiply. Plan and tokens of earlier steps were
written before the launch before this one: the ring is filled while that one still runs. Rows that
share tokens are the rows of a product of 64 (`hopper_decode_shared`); of a row's own tokens the
keys are (`hopper_decode_swap_ab`), and so of all where the cache is in FP8
(`hopper_decode_fp8`).
"""

from __future__ import annotations

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from penstock_kernels.fp8 import bits
from penstock_kernels.gpu.attention.hopper_decode_fp8 import MANY, attend_fp8, store_queries
from penstock_kernels.gpu.attention.hopper_decode_shared import attend_many
from penstock_kernels.gpu.attention.hopper_decode_swap_ab import (
    attend_few,
    few_queries,
    few_tiles,
    load_few,
)
from penstock_kernels.gpu.attention.hopper_kv_ring import kv_ring
from penstock_kernels.gpu.attention.hopper_merge import merge
from penstock_kernels.gpu.attention.hopper_plan import (
    HopperPlan,
    empty_plan,
    most_partials,
    plan_hopper,
)
from penstock_kernels.gpu.attention.kv8 import exponent_bits
from penstock_kernels.gpu.launch.dependent import launch
from penstock_kernels.gpu.launch.hopper import is_hopper, multiprocessors, tma_descriptor
from penstock_kernels.ops import AS_MODEL, CacheSpec, Sharing

ROWS = 64  # of a product: the fewest of a group of four warps
COPY_TOKENS = 16  # tokens a copy: what is read behind the end of a context is less than that
STAGES = 3  # of the ring: 96 KiB, twice on a multiprocessor
STAGES_OF_FP8 = {8: 5, 16: 5, 32: 4}  # by queries of few: beside tiles for 64 queries
RESIDENT = 2  # programs of a multiprocessor
LOG2_E = 1.4426950408889634


@gluon.jit
def _item(work, index):
    """First row, rows (0: there is no such item), first token, end, piece and unseen tokens."""
    items, _, last, _ = work
    entry = items + index * 7
    there = index < last
    first = gl.load(entry, mask=there, other=0, cache_modifier=".cg")
    members = gl.load(entry + 1, mask=there, other=0, cache_modifier=".cg")
    start = gl.load(entry + 2, mask=there, other=0, cache_modifier=".cg")
    stop = gl.load(entry + 3, mask=there, other=0, cache_modifier=".cg")
    piece = gl.load(entry + 4, mask=there, other=0, cache_modifier=".cg")
    skip = gl.load(entry + 6, mask=there, other=0, cache_modifier=".cg")
    return first, members, start, stop, piece, skip


@gluon.jit
def _load(
    work, ring, source,
    N: gl.constexpr, D: gl.constexpr, PAGE: gl.constexpr, STAGES: gl.constexpr,
    BYTES: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """The warp that fills the ring.

    Only the last tile of a row's own span may hold what the launch before this one wrote.
    """
    items, item, last, head = work
    k_tiles, v_tiles, k_full, v_full, k_empty, v_empty = ring
    desc, table, width, plane, values = source
    done = 0  # tiles of keys that went through the ring
    for index in range(item, last):
        entry = items + index * 7
        start = gl.load(entry + 2, cache_modifier=".cg")
        stop = gl.load(entry + 3, cache_modifier=".cg")
        shared = gl.load(entry + 4, cache_modifier=".cg") % 2
        pages = table + gl.load(entry + 5, cache_modifier=".cg").to(gl.int64) * width
        for token in range(start, stop, N):
            stage, phase = done % STAGES, (done // STAGES + 1) & 1
            if PDL and (shared == 0) & (token + N >= stop):
                gdc_wait()
            mbarrier.wait(k_empty.index(stage), phase)
            mbarrier.expect(k_full.index(stage), BYTES)
            row, full = head * plane, k_full.index(stage)
            _copy(desc, pages, row, token, stop, full, k_tiles.index(stage), PAGE)
            mbarrier.wait(v_empty.index(stage), phase)
            mbarrier.expect(v_full.index(stage), BYTES)
            row, full = values + head * plane, v_full.index(stage)
            _copy(desc, pages, row, token, stop, full, v_tiles.index(stage), PAGE)
            done += 1


@gluon.jit
def _copy(desc, pages, plane, token, stop, full, tile, PAGE: gl.constexpr):
    """The rows of a tile from the pages that hold them; behind the end, the last part again.

    That part comes from L2 then, and a tile always has the same number of bytes.
    """
    COPY_TOKENS: gl.constexpr = desc.block_shape[0]
    end = (stop - 1) // COPY_TOKENS * COPY_TOKENS
    page = gl.load(pages + token // PAGE)
    for i in gl.static_range(tile.shape[0] // COPY_TOKENS):
        at = gl.minimum(token + i * COPY_TOKENS, end)
        if i > 0 and i * COPY_TOKENS % PAGE == 0:
            page = gl.load(pages + at // PAGE)
        row = plane + page * PAGE + at % PAGE
        tma.async_copy_global_to_shared(
            desc, [row, 0], full, tile.slice(i * COPY_TOKENS, COPY_TOKENS)
        )


@gluon.jit
def _attend(
    work, ring, tiles, wide, source, target,
    GROUP: gl.constexpr, N: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr,
    FP8: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """The four warps that multiply. tiles: for few queries; wide: for many, with FP8."""
    _, index, last, head = work
    W: gl.constexpr = tiles[0].shape[0]
    first, members, start, stop, piece, skip = _item(work, index)
    if PDL:
        gdc_wait()  # for the queries
        gdc_launch_dependents()
    few = load_few(source, head, first, members, GROUP, W, D)
    done = 0
    for following in range(index + 1, last + 1):
        item = (first, members, start, stop, piece, skip)
        following_item = _item(work, following)
        if FP8:
            store_queries(tiles[0], few)
        else:
            tiles[0].store(few)
            fence_async_shared()
        # The next item's queries travel while this one is computed.
        few = load_few(source, head, following_item[0], following_item[1], GROUP, W, D)
        if members * GROUP <= W:
            if FP8:
                attend_fp8(ring, tiles, source, target, head, item, done, GROUP, STAGES, FP8)
            else:
                attend_few(ring, tiles, source, target, head, item, done, GROUP, STAGES)
        elif FP8:
            store_queries(wide[0], load_few(source, head, first, members, GROUP, MANY, D))
            attend_fp8(ring, wide, source, target, head, item, done, GROUP, STAGES, FP8)
        else:
            attend_many(ring, source, target, head, item, done, GROUP, N, D, STAGES)
        done += gl.cdiv(stop - start, N)
        first, members, start, stop, piece, skip = following_item


@gluon.jit(do_not_specialize=["blocks", "width"])
def _kernel(
    query,  # [rows, row_stride], heads * D of them used
    desc,  # of the cache as [2 * kv_heads * blocks * PAGE, D], in [COPY_TOKENS, D]; bytes of FP8
    table,  # [slots, width] int32
    items,  # of the plan
    bounds,
    spans,
    sinks,  # [heads] float32; None: none
    out,  # [rows, heads * D]
    partial,  # [partials, kv_heads, GROUP, D] float32
    partial_lse,  # [partials, kv_heads, GROUP] float32
    scale,
    value_scale,
    row_stride,
    blocks,
    width,
    kv_heads: gl.constexpr,
    GROUP: gl.constexpr,
    W: gl.constexpr,
    D: gl.constexpr,
    PAGE: gl.constexpr,
    N: gl.constexpr,
    STAGES: gl.constexpr,
    FP8: gl.constexpr,
    PDL: gl.constexpr,
):
    BYTES: gl.constexpr = N * D * (1 if FP8 else 2)
    ring = kv_ring(desc.dtype, 1, N, D, STAGES)
    if FP8:
        tiles = few_tiles(gl.float16, W, N, D)
        wide = few_tiles(gl.float16, MANY, N, D)
    else:
        tiles = few_tiles(desc.dtype, W, N, D)
        wide = tiles
    program, head = gl.program_id(0) // kv_heads, gl.program_id(0) % kv_heads
    item = gl.load(bounds + program, cache_modifier=".cg")
    work = (items, item, gl.load(bounds + program + 1, cache_modifier=".cg"), head)
    plane = gl.to_tensor(blocks) * PAGE
    pages = (desc, table, gl.to_tensor(width), plane, kv_heads * plane)
    source = (query, gl.to_tensor(row_stride), scale)
    target = (out, partial, partial_lse, spans, gl.to_tensor(kv_heads), value_scale, sinks)
    gl.warp_specialize(
        [
            (_attend, (work, ring, tiles, wide, source, target, GROUP, N, D, STAGES, FP8, PDL)),
            (_load, (work, ring, pages, N, D, PAGE, STAGES, BYTES, PDL)),
        ],
        [1],
        [40],
    )


def key_tile(head_dim: int) -> int:
    """Tokens a tile: 16 KiB of keys in half precision."""
    return 8192 // head_dim


def supports_hopper_decode(device: torch.device, cache: Tensor, heads: int) -> bool:
    """Whether card, dtype and shapes are those of this kernel, for queries in half precision.

    cache: [..., kv_heads, blocks, page, head_dim], in half precision or FP8.
    """
    kv_heads, _, page, head_dim = cache.shape[-4:]
    return (
        is_hopper(device)
        and (cache.dtype in (torch.bfloat16, torch.float16) or exponent_bits(cache) > 0)
        and head_dim in (64, 128)
        and page % COPY_TOKENS == 0
        and (page % key_tile(head_dim) == 0 or key_tile(head_dim) % page == 0)
        and heads // kv_heads <= ROWS
    )


class HopperDecode:
    """`decode_attention.DecodeAttention` without a soft cap, where
    `supports_hopper_decode`; the same parameters."""

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
        self._plans: dict[int | None, HopperPlan] = {}

    def plan(
        self,
        positions: Tensor,
        slots: Tensor,
        live: Tensor | None,
        sharing: Sharing | None,
        window: int | None = None,
    ) -> HopperPlan:
        """What the layers with this window do in a step; see `plan_hopper`.

        Valid until the next call with the same window.

        Raises ValueError for more rows than the memory was made for.
        """
        if len(positions) > self._rows:
            raise ValueError(f"{len(positions)} rows are more than the {self._rows} made room for")
        if window not in self._plans:
            # Tiles have two rows at least, and their number is a power of two.
            most_tiles = max(1, self._rows)
            self._plans[window] = empty_plan(self._rows, most_tiles, self._programs, self._device)
        plan, keys = self._plans[window], key_tile(self._width)
        plan_hopper(plan, positions, slots, keys, live, sharing, window, self._dependent)
        return plan

    def __call__(
        self,
        query: Tensor,
        cache: Tensor,
        table: Tensor,
        out: Tensor,
        plan: HopperPlan,
        scale: float,
        stored: CacheSpec = AS_MODEL,
        sinks: Tensor | None = None,
    ) -> None:
        """softmax(q k^T * scale) v of one new token a row over its own sequence, itself included.

        query: [rows, heads, d], last two dimensions dense; cache: [2, kv_heads, blocks, page, d];
        table: [slots, width] int32; out: [rows, heads * d]; plan: of this step, it and all tokens
        but each row's last written before the launch before this one; stored: the scales of a cache
        in FP8; sinks: [heads] float32, of `ops.Step.attend`. Nothing is read back by the host.
        """
        rows, heads, d = query.shape
        _, kv_heads, blocks, page, _ = cache.shape
        kind, few = exponent_bits(cache), few_queries(heads // kv_heads)
        _kernel[(self._programs * kv_heads,)](
            query, tma_descriptor(bits(cache).view(-1, d), COPY_TOKENS, d), table, plan.items,
            plan.bounds, plan.spans, sinks, out, self.partial, self.lse,
            scale * stored.key_scale * LOG2_E, stored.value_scale, query.stride(0), blocks,
            table.stride(0), kv_heads=kv_heads, GROUP=heads // kv_heads, W=few, D=d, PAGE=page,
            N=key_tile(d), STAGES=STAGES_OF_FP8[few] if kind else STAGES, FP8=kind, num_warps=4,
            maxnreg=128, **launch(self._dependent),
        )  # fmt: skip
        merge(self.partial, self.lse, plan.spans, out, rows, d, self._dependent)
