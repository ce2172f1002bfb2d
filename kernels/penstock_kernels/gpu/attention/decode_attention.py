"""Decode attention over a paged cache, split along the context ("flash decoding", Dao, 2023).

Reference: `penstock_kernels.reference.paged_attention`. The items of `decode_plan` say which tokens
a program reads, and for which rows: one row, or a few that share them. The query heads that share a
KV head are rows of one matrix product, so the cache is read once a KV head. Rows of several items
are merged by a second launch, in the order of the tokens. (Merged by the program that comes last,
behind an atomic counter, one row of 8B took 15 us a layer instead of 7.)
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.attention import kv8
from penstock_kernels.gpu.attention.decode_merge import merge, padded
from penstock_kernels.gpu.attention.decode_plan import (
    TILE,
    DecodePlan,
    empty_plan,
    most_items,
    most_partials,
    plan_decode,
)
from penstock_kernels.gpu.attention.kv8 import widened
from penstock_kernels.gpu.launch.card import shared_bytes
from penstock_kernels.gpu.launch.dependent import launch, wait
from penstock_kernels.ops import AS_MODEL, CacheSpec, Sharing

LOG2_E = 1.4426950408889634
QUERY_ROWS = 16  # of a tile: the fewest that a tensor core takes
WARPS, STAGES = 4, 3
WIDEST = 512  # bytes of a head: of wider ones a multiprocessor holds no three tiles of keys
NARROW = 96 << 10  # bytes of shared memory: with less, tiles of such heads are half as long


@triton.jit
def soft_capped(scores, CAP: tl.constexpr):
    """CAP * tanh(scores / CAP), of float32."""
    return CAP - 2 * CAP / (1 + tl.exp2(scores * (2 * 1.4426950408889634 / CAP)))


@triton.jit
def load_tile(
    base,
    table,
    start,
    end,
    PAGE: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    N: tl.constexpr,
    dtype: tl.constexpr,
    FP8: tl.constexpr,
    CONVERTS: tl.constexpr,
):
    """Rows start .. start + N of a sequence, [N, DP] of dtype; zero from `end` on and beyond column
    D."""
    token = start + tl.arange(0, N)
    dims = tl.arange(0, DP)
    if PAGE % N == 0:
        block = tl.load(table + start // PAGE).to(tl.int64)
    else:
        block = tl.load(table + token // PAGE, mask=token < end, other=0).to(tl.int64)
    row = block * PAGE + token % PAGE
    inside = (token < end)[:, None] & (dims < D)[None, :]
    x = tl.load(base + row[:, None] * D + dims[None, :], mask=inside, other=0)
    return widened(x, dtype, FP8, CONVERTS)


@triton.jit
def _decode_kernel(
    query,  # [rows, row_stride], heads * D of them used
    cache,  # [2, kv_heads, blocks, PAGE, D], bytes with FP8
    table,  # [slots, width] int32
    slots,  # [rows] int64
    positions,  # [rows] int64: of the token that the row computes
    items,  # of the plan
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
    window,
    kv_heads: tl.constexpr,
    GROUP: tl.constexpr,
    M: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    PAGE: tl.constexpr,
    N: tl.constexpr,
    WINDOW: tl.constexpr,
    CAP: tl.constexpr,  # of scores in units of log2; 0: none
    PRECISION: tl.constexpr,
    FP8: tl.constexpr,
    CONVERTS: tl.constexpr,
    PDL: tl.constexpr,
):
    item, head = tl.program_id(0), tl.program_id(1)
    first = tl.load(items + item * 5, cache_modifier=".cg")
    members = tl.load(items + item * 5 + 1, cache_modifier=".cg")
    start = tl.load(items + item * 5 + 2, cache_modifier=".cg")
    end = tl.load(items + item * 5 + 3, cache_modifier=".cg")
    piece = tl.load(items + item * 5 + 4, cache_modifier=".cg")
    if (members == 0) & (item + head > 0):  # one program waits for all
        return
    slot = tl.load(slots + first, mask=members > 0, other=0)
    hidden = 0
    if WINDOW:
        last = tl.load(positions + first, mask=members > 0, other=0)
        hidden = last.to(tl.int32) + 1 - window
    index = tl.arange(0, M)
    dims = tl.arange(0, DP)
    valid = index < members * GROUP
    row = first + index // GROUP
    query_head = head * GROUP + index % GROUP
    inside_q = valid[:, None] & (dims < D)[None, :]
    wait(PDL)  # what is read above was written before the launch before this one
    if members == 0:
        return
    q = tl.load(
        query + row[:, None] * row_stride + query_head[:, None] * D + dims[None, :],
        mask=inside_q,
        other=0.0,
    )
    keys = cache + head.to(tl.int64) * blocks * PAGE * D
    values = keys + tl.cast(kv_heads, tl.int64) * blocks * PAGE * D
    pages = table + slot.to(tl.int64) * width
    best = tl.full([M], float("-inf"), tl.float32)
    total = tl.zeros([M], tl.float32)
    acc = tl.zeros([M, DP], tl.float32)
    for begin in tl.range(start, end, N):
        token = begin + tl.arange(0, N)
        k = load_tile(keys, pages, begin, end, PAGE, D, DP, N, q.dtype, FP8, CONVERTS)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        if CAP > 0.0:
            scores = soft_capped(scores, CAP)
        visible = token < end
        if WINDOW:
            visible = visible & (token >= hidden)
        scores = tl.where(visible[None, :], scores, float("-inf"))
        new = tl.maximum(best, tl.max(scores, 1))
        # A tile may be hidden as a whole by the window: exp2(-inf - -inf) would be NaN.
        safe = tl.where(new == float("-inf"), 0.0, new)
        p = tl.exp2(scores - safe[:, None])
        shrink = tl.exp2(best - safe)
        total = total * shrink + tl.sum(p, 1)
        v = load_tile(values, pages, begin, end, PAGE, D, DP, N, q.dtype, FP8, CONVERTS)
        acc = acc * shrink[:, None] + tl.dot(p.to(v.dtype), v, input_precision=PRECISION)
        best = new
    result = acc / total[:, None]
    if FP8:
        result *= value_scale
    lse = best + tl.log2(total)
    if sinks is not None:  # in the first piece of a row's own tokens, of which each row has one
        there = valid & (piece == 0)
        sink = tl.load(sinks + query_head, mask=there, other=float("-inf")) * 1.4426950408889634
        most = tl.maximum(lse, sink)
        whole = most + tl.log2(tl.exp2(lse - most) + tl.exp2(sink - most))
        result *= tl.exp2(lse - whole)[:, None]
        lse = whole
    parts = tl.load(spans + row * 3 + 2, mask=valid, other=0)
    alone = parts == 1
    place = out + row[:, None] * (kv_heads * GROUP * D) + query_head[:, None] * D + dims[None, :]
    tl.store(place, result.to(out.dtype.element_ty), mask=inside_q & alone[:, None])
    several = valid & (parts > 1)
    # Shared tokens come before the row's own, as they stand in the sequence.
    at = tl.load(spans + row * 3, mask=several, other=0) + piece // 2
    if piece % 2 == 0:
        at += parts - tl.load(spans + row * 3 + 1, mask=several, other=0)
    at = (at * kv_heads + head) * GROUP + index % GROUP
    tl.store(partial + at[:, None] * D + dims[None, :], result, mask=inside_q & several[:, None])
    tl.store(partial_lse + at, lse, mask=several)


class DecodeAttention:
    """Decode attention of one rank, with the memory that its layers share.

    rows: sequences at once, at most; dependent: launch as `dependent` says.
    """

    def __init__(
        self,
        rows: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        device: torch.device,
        dependent: bool = False,
    ) -> None:
        self._dependent = dependent
        self._rows, self._heads, self._kv_heads, self._width = rows, heads, kv_heads, head_dim
        self._group = heads // kv_heads
        self._query_rows = max(QUERY_ROWS, int(triton.next_power_of_2(self._group)))
        self._device = device
        cells = most_partials(rows, self.tiles_for(rows), kv_heads, self.tile_rows) * heads
        self.partial = torch.empty(cells * head_dim, dtype=torch.float32, device=device)
        self.lse = torch.empty(cells, dtype=torch.float32, device=device)
        self._plans: dict[int | None, DecodePlan] = {}  # by window

    @property
    def tile_rows(self) -> int:
        """The most rows that read shared tokens together."""
        return self._query_rows // self._group

    @staticmethod
    def tiles_for(rows: int) -> int:
        """The most tiles of a batch, a power of two."""
        return max(1, int(triton.next_power_of_2(rows)) // 2)

    def plan(
        self,
        positions: Tensor,
        live: Tensor | None = None,
        sharing: Sharing | None = None,
        window: int | None = None,
    ) -> DecodePlan:
        """What the layers with this window do in a step; see `plan_decode`.

        Valid until the next call with the same window. Raises ValueError for more rows than the
        memory was made for.
        """
        if len(positions) > self._rows:
            raise ValueError(f"{len(positions)} rows are more than the {self._rows} made room for")
        if window not in self._plans:
            tiles = self.tiles_for(self._rows)
            self._plans[window] = empty_plan(self._rows, tiles, self._kv_heads, self._device)
        tiles = 0 if sharing is None or window is not None else len(sharing.tiles)
        most = most_items(len(positions), tiles, self._kv_heads)
        plan = DecodePlan(self._plans[window].items[:most], self._plans[window].spans)
        plan_decode(plan, positions, self._kv_heads, live, sharing, window, self._dependent)
        return plan

    def __call__(
        self,
        query: Tensor,
        cache: Tensor,
        table: Tensor,
        slots: Tensor,
        positions: Tensor,
        out: Tensor,
        plan: DecodePlan,
        scale: float,
        window: int | None = None,
        soft_cap: float | None = None,
        stored: CacheSpec = AS_MODEL,
        sinks: Tensor | None = None,
    ) -> None:
        """softmax(q k^T * scale) v of one new token a row over its own sequence, itself included.

        query: [rows, heads, d], last two dimensions dense; cache: [2, kv_heads, blocks, page, d];
        table: [slots, width] int32; slots: [rows] integers; positions: [rows] int64, of the row's
        token; out: [rows, heads * d]; plan: of these positions. It, slots and positions were
        written before the launch before this one; soft_cap: scores become cap * tanh(score / cap);
        stored: the scales of a cache in FP8; sinks: [heads] float32, of `ops.Step.attend`. Nothing
        is read back by the host.
        """
        d = query.shape[2]
        _, kv_heads, blocks, page, _ = cache.shape
        cache, kinds = kv8.operands(cache)
        wide, row_bytes = query.dtype == torch.float32, query.element_size() * padded(d)
        narrow = shared_bytes(query.device) < NARROW and row_bytes >= WIDEST
        keys = TILE // 2 if narrow else TILE
        sizes = {"kv_heads": kv_heads, "GROUP": self._group, "D": d, "DP": padded(d)}
        _decode_kernel[(len(plan.items), kv_heads)](
            query, cache, table, slots, positions, plan.items, plan.spans, sinks, out,
            self.partial, self.lse, scale * stored.key_scale * LOG2_E, stored.value_scale,
            query.stride(0), blocks, table.stride(0), window or 0, **sizes, M=self._query_rows,
            PAGE=page, N=keys, WINDOW=window is not None, CAP=(soft_cap or 0.0) * LOG2_E,
            PRECISION="ieee" if wide else "tf32", **kinds, num_warps=WARPS,
            num_stages=STAGES if query.element_size() * d <= WIDEST else 1,
            **launch(self._dependent),
        )  # fmt: skip
        merge(self.partial, self.lse, plan.spans, out, len(positions), d, self._dependent)
