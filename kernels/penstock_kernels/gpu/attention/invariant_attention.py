"""Attention in which a token's result depends on nothing but its own sequence.

The keys of a sequence are cut at places that never change (`BOUNDS`). A part is summed from its
first key to its last, in tiles that begin at the same places for every token, and the parts of a
token are merged one after the other. Where a few rows decode, programs take a part each, and a
second launch merges them; a program of a prompt's piece takes all parts and merges them in its
registers. Both are one compiled kernel, and merging says how it rounds, so a token gets the same
bits in a chunk of any size, decoded in any batch, and behind a prefix that was cached or computed.

Reference: `penstock_kernels.reference.paged_attention`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.attention import kv8
from penstock_kernels.gpu.attention.decode_attention import LOG2_E, load_tile
from penstock_kernels.gpu.attention.decode_merge import padded
from penstock_kernels.gpu.attention.prefill_attention import Tile, _absorb, tile_for
from penstock_kernels.gpu.launch.card import has_tensor_cores, shared_bytes
from penstock_kernels.ops import AttentionSpec

# Where parts begin, in tokens: short at first, so that a context of 8,192 has 16 of them.
BOUNDS = (*range(0, 8192, 512), *range(8192, 24576, 2048), *range(24576, 139264, 16384))
PARTS = len(BOUNDS)
ROWS = 64  # of a program: the fewest that Hopper's tensor cores take
PROGRAMS = 512  # that a card is filled with
_NEVER = 2**31 - 1


@triton.jit
def _merge(best, total, acc, next_best, next_total, next_acc):
    """Partial softmaxes of two neighbouring parts as that of both, the first one's in place."""
    new = tl.maximum(best, next_best)
    safe = tl.where(new == float("-inf"), 0.0, new)  # a row may see nothing yet
    shrink, next_shrink = tl.exp2(best - safe), tl.exp2(next_best - safe)
    total = tl.fma(total, shrink, next_total * next_shrink)
    acc = tl.fma(
        acc,
        tl.broadcast_to(shrink[:, None], acc.shape),
        next_acc * next_shrink[:, None],
    )
    return new, total, acc


@triton.jit(
    do_not_specialize=["programs", "window", "blocks", "width"],
    do_not_specialize_on_alignment=["tiles", "slots", "positions"],
)
def _attend_kernel(
    query,  # [n, row_stride], heads * D of them used
    cache,  # [2, kv_heads, blocks, PAGE, D], bytes with FP8
    table,  # [slots, width] int32
    slots,  # [n] integers
    positions,  # [n] int64
    tiles,  # [grid, 2] int32: first row of a piece, number of its rows; all of one sequence
    bounds,  # [PARTS + PROGRAMS] int32
    sinks,  # [heads] float32; None: none
    out,  # [n, heads * D]
    partial,  # [rows, PARTS, heads, D] float32, where there are several programs
    partial_best,  # [rows, PARTS, heads] float32
    partial_total,
    scale,
    value_scale,
    row_stride,
    blocks,
    width,
    window,
    programs,  # of a piece: the first takes its parts 0, programs, 2 * programs, …
    kv_heads: tl.constexpr,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    PAGE: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    PARTS: tl.constexpr,
    WINDOW: tl.constexpr,
    CAP: tl.constexpr,  # of scores in units of log2; 0: none
    PRECISION: tl.constexpr,
    FP8: tl.constexpr,
    CONVERTS: tl.constexpr,
):
    tile, head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    rows = tl.load(tiles + 2 * tile + 1)
    if rows <= 0:
        return
    first_row = tl.load(tiles + 2 * tile).to(tl.int64)
    member = tl.arange(0, M)
    token_of, head_of = member // GROUP, head * GROUP + member % GROUP
    dims = tl.arange(0, DP)
    real = token_of < rows
    inside = real[:, None] & (dims < D)[None, :]
    start = tl.load(positions + first_row).to(tl.int32)
    position = start + token_of
    place = (first_row + token_of) * row_stride + head_of * D
    q = tl.load(query + place[:, None] + dims[None, :], mask=inside, other=0.0)
    keys = cache + head.to(tl.int64) * blocks * PAGE * D
    values = keys + tl.cast(kv_heads, tl.int64) * blocks * PAGE * D
    pages = table + tl.load(slots + first_row).to(tl.int64) * width
    length = start + rows
    seen = 0  # no row sees a key before
    if WINDOW:
        seen = tl.maximum(0, start + 1 - window) // N * N
    whole_best = tl.full([M], float("-inf"), tl.float32)
    whole_total = tl.zeros([M], tl.float32)
    if sinks is not None:  # as a first token of value zero
        whole_best = tl.load(sinks + head_of) * 1.4426950408889634
        whole_total += 1.0
    whole = tl.zeros([M, DP], tl.float32)
    begin = tl.load(bounds + part)
    while begin < length:
        end = tl.minimum(tl.load(bounds + part + 1), length)
        best = tl.full([M], float("-inf"), tl.float32)
        total = tl.zeros([M], tl.float32)
        acc = tl.zeros([M, DP], tl.float32)
        for token0 in tl.range(tl.maximum(begin, seen), end, N):
            k = load_tile(keys, pages, token0, length, PAGE, D, DP, N, q.dtype, FP8, CONVERTS)
            v = load_tile(values, pages, token0, length, PAGE, D, DP, N, q.dtype, FP8, CONVERTS)
            token = token0 + tl.arange(0, N)
            visible = token[None, :] <= position[:, None]
            if WINDOW:
                visible = visible & (token[None, :] > position[:, None] - window)
            best, total, acc = _absorb(
                q, k, v, best, total, acc, visible, scale, True, CAP, PRECISION
            )
        if programs > 1:
            at = ((first_row + token_of) * PARTS + part) * (kv_heads * GROUP) + head_of
            tl.store(partial + at[:, None] * D + dims[None, :], acc, mask=inside)
            tl.store(partial_best + at, best, mask=real)
            tl.store(partial_total + at, total, mask=real)
        else:
            whole_best, whole_total, whole = _merge(
                whole_best, whole_total, whole, best, total, acc
            )
        part += programs
        begin = tl.load(bounds + part)
    if programs == 1:
        result = whole / whole_total[:, None]
        if FP8:
            result *= value_scale
        place = (first_row + token_of) * kv_heads * GROUP * D + head_of * D
        target = out + place[:, None] + dims[None, :]
        tl.store(target, result.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["value_scale"])
def _merge_kernel(
    positions, tiles, bounds, sinks, partial, partial_best, partial_total, out, value_scale,
    HEADS: tl.constexpr, H: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, PARTS: tl.constexpr,
    FP8: tl.constexpr,
):  # fmt: skip
    """The parts of a row, one after the other; H heads of it."""
    tile = tl.program_id(0)
    if tl.load(tiles + 2 * tile + 1) <= 0:
        return
    row = tl.load(tiles + 2 * tile).to(tl.int64)
    head = tl.program_id(1) * H + tl.arange(0, H)
    dims = tl.arange(0, DP)
    real = head < HEADS
    inside = real[:, None] & (dims < D)[None, :]
    length = tl.load(positions + row).to(tl.int32) + 1
    best = tl.full([H], float("-inf"), tl.float32)
    total = tl.zeros([H], tl.float32)
    if sinks is not None:
        best = tl.load(sinks + head, mask=real, other=0.0) * 1.4426950408889634
        total += 1.0
    acc = tl.zeros([H, DP], tl.float32)
    part = 0
    while tl.load(bounds + part) < length:
        at = (row * PARTS + part) * HEADS + head
        next_best = tl.load(partial_best + at, mask=real, other=float("-inf"))
        next_total = tl.load(partial_total + at, mask=real, other=0.0)
        next_acc = tl.load(partial + at[:, None] * D + dims[None, :], mask=inside, other=0.0)
        best, total, acc = _merge(best, total, acc, next_best, next_total, next_acc)
        part += 1
    result = acc / total[:, None]
    if FP8:
        result *= value_scale
    target = out + (row * HEADS + head)[:, None] * D + dims[None, :]
    tl.store(target, result.to(out.dtype.element_ty), mask=inside)


class InvariantAttention:
    """Attention of one rank, with the memory that its layers share.

    rows: sequences that decode at once, at most; dtype: of queries; bounds: where parts begin.
    """

    def __init__(
        self,
        rows: int,
        shape: tuple[int, int, int],
        device: torch.device,
        dtype: torch.dtype,
        bounds: Sequence[int] = BOUNDS,
    ) -> None:
        self._heads, self._kv_heads, self._width = shape
        self._group = self._heads // self._kv_heads
        by_tensor_cores = dtype != torch.float32 and has_tensor_cores(device)
        tile = tile_for(padded(self._width) * dtype.itemsize, by_tensor_cores, shared_bytes(device))
        rows_of_tile = min(tile.rows, ROWS) if by_tensor_cores else tile.rows
        self._tile = Tile(
            max(rows_of_tile, int(triton.next_power_of_2(self._group))), tile.keys, tile.stages
        )
        self._parts = len(bounds)
        ends = [*bounds, *[_NEVER] * (PROGRAMS + 1)]
        self._bounds = torch.tensor(ends, dtype=torch.int32, device=device)
        self._singles = torch.ones(rows, 2, dtype=torch.int32, device=device)
        self._singles[:, 0] = torch.arange(rows)
        several = max((n for n in range(1, rows + 1) if self.programs(n) > 1), default=0)
        cells = several * self._parts * self._heads
        self._partial = torch.empty(cells * self._width, dtype=torch.float32, device=device)
        self._best = torch.empty(cells, dtype=torch.float32, device=device)
        self._total = torch.empty(cells, dtype=torch.float32, device=device)

    @property
    def piece_rows(self) -> int:
        """Tokens of a piece, at most."""
        return self._tile.rows // self._group

    def programs(self, rows: int) -> int:
        """That share the parts of each of so many rows. It changes no bit."""
        return max(1, min(self._parts, PROGRAMS // (rows * self._kv_heads)))

    def singles(self, rows: int, live: Tensor | None) -> Tensor:
        """Pieces of one row each: [rows, 2] int32. live: [1] int32, how many count; None: all."""
        pieces = self._singles[:rows]
        if live is None:
            return pieces
        return torch.stack((pieces[:, 0], (pieces[:, 0] < live).int()), dim=1)

    def __call__(
        self,
        query: Tensor,
        cache: Tensor,
        table: Tensor,
        slots: Tensor,
        positions: Tensor,
        pieces: Tensor,
        out: Tensor,
        spec: AttentionSpec,
        programs: int = 1,
        sinks: Tensor | None = None,
    ) -> None:
        """softmax(q k^T * scale) v of each row over its own sequence, up to and including itself.

        Arguments as of `prefill_attention`, with pieces of at most `piece_rows` rows; programs: of
        each piece, as `programs` says where all of them are single rows among the first ones;
        sinks: [heads] float32, of `ops.Step.attend`.
        """
        _, kv_heads, blocks, page, d = cache.shape
        cache, kinds = kv8.operands(cache)
        stored, tile, dp = spec.cache, self._tile, padded(d)
        cap = (spec.soft_cap or 0.0) * LOG2_E
        fixed: dict[str, Any] = {"D": d, "DP": dp, "PARTS": self._parts}
        partial = (self._partial, self._best, self._total)
        _attend_kernel[(len(pieces), kv_heads, programs)](
            query, cache, table, slots, positions, pieces, self._bounds, sinks, out, *partial,
            spec.scale * stored.key_scale * LOG2_E, stored.value_scale,
            query.stride(0), blocks, table.stride(0), spec.window or 0, programs,
            kv_heads=kv_heads, GROUP=self._group, PAGE=page, M=tile.rows, N=tile.keys, **fixed,
            WINDOW=spec.window is not None, CAP=cap,
            PRECISION="ieee" if query.dtype == torch.float32 else "tf32", **kinds,
            num_warps=4 if dp <= 128 else 8, num_stages=tile.stages,
        )  # fmt: skip
        if programs == 1:
            return
        heads = min(16, int(triton.next_power_of_2(self._heads)))
        _merge_kernel[(len(pieces), triton.cdiv(self._heads, heads))](
            positions, pieces, self._bounds, sinks, *partial, out, stored.value_scale,
            HEADS=self._heads, H=heads, **fixed, FP8=kinds["FP8"], num_warps=4,
        )  # fmt: skip
