"""Attention of prompt chunks over a paged cache (FlashAttention-2, Dao, 2023, arXiv:2307.08691).

Reference: `penstock_kernels.reference.paged_attention`. Keys and values of the chunk stand in the
cache already, so a cached prefix, earlier chunks and the chunk itself are read in the same way. The
rows of a tile are tokens x the query heads of one KV head: the cache is read once a KV head, and a
chunk of 24 tokens fills three quarters of a tile of 32 tokens x 4 heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from penstock_kernels.gpu.attention import kv8
from penstock_kernels.gpu.attention.decode_attention import LOG2_E, load_tile, soft_capped
from penstock_kernels.gpu.attention.decode_merge import padded
from penstock_kernels.gpu.attention.hopper_prefill import hopper_prefill, supports_hopper_prefill
from penstock_kernels.gpu.launch.card import has_tensor_cores, shared_bytes
from penstock_kernels.ops import AS_MODEL, CacheSpec

ROWS = 128  # of a piece, and of a program where its memory holds them
WIDE_MEMORY = 144 << 10  # bytes that this takes where a head has 512


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows and keys that a program multiplies at once, and pipeline stages."""

    rows: int
    keys: int
    stages: int


def tile_for(row_bytes: int, by_tensor_cores: bool, memory: int) -> Tile:
    """row_bytes: of a head, padded; memory: shared, that one program may have.

    Without tensor cores every product of two numbers is an instruction to compile: a program of 128
    rows of 256 numbers took 17 s.
    """
    if not by_tensor_cores:
        return Tile(32, 32, 1) if row_bytes <= 512 else Tile(16, 16, 1)
    if row_bytes <= 256:
        return Tile(ROWS, 64, 3)
    return Tile(ROWS, 64, 2) if memory >= WIDE_MEMORY else Tile(64, 32, 2)


def query_tile(heads: int, kv_heads: int) -> int:
    """Tokens of a piece: at least one, of `heads / kv_heads` query heads."""
    group = heads // kv_heads
    return max(ROWS // group, 1)


def prefill_tiles(
    queries: NDArray[np.int64], context: NDArray[np.int64], first_row: int, tile: int
) -> NDArray[np.int32]:
    """Pieces of at most `tile` tokens of each chunk: [pieces, 2], first row and rows.

    queries, context: [chunks], a chunk's rows and the tokens before them; the chunks' rows follow
    each other from first_row on. Long contexts come first, so that none is left over when the
    others are done.
    """
    pieces = -(-queries // tile)
    chunk = np.repeat(np.arange(len(queries)), pieces)
    offset = (np.arange(len(chunk)) - (np.cumsum(pieces) - pieces)[chunk]) * tile
    first = first_row + (np.cumsum(queries) - queries)[chunk] + offset
    count = np.minimum(queries[chunk] - offset, tile)
    order = np.argsort(-(context[chunk] + offset + count), kind="stable")
    return np.stack((first, count), axis=1)[order].astype(np.int32)


@triton.jit
def _absorb(
    q,
    k,
    v,
    best,
    total,
    acc,
    visible,
    scale,
    MASKED: tl.constexpr,
    CAP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One more tile of keys and values in the running softmax; scores are in units of log2."""
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)
    if CAP > 0.0:
        scores = soft_capped(scores * scale, CAP)
        scale = 1.0
    if MASKED:
        scores = tl.where(visible, scores, float("-inf"))
    new = tl.maximum(best, tl.max(scores, 1) * scale)
    safe = new
    if MASKED:  # a row may see nothing yet: exp2(-inf - -inf) would be NaN
        safe = tl.where(new == float("-inf"), 0.0, new)
    p = tl.exp2(scores * scale - safe[:, None])
    shrink = tl.exp2(best - safe)
    total = total * shrink + tl.sum(p, 1)
    acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION)
    return new, total, acc


@triton.jit
def _prefill_kernel(
    query,  # [n, row_stride], heads * D of them used
    cache,  # [2, kv_heads, blocks, PAGE, D], bytes with FP8
    table,  # [slots, width] int32
    slots,  # [n] integers
    positions,  # [n] int64
    tiles,  # [grid, 2] int32: first row of a piece, number of its rows; all of one sequence
    sinks,  # [heads] float32; None: none
    out,  # [n, heads * D]
    scale,
    value_scale,
    row_stride,
    blocks,
    width,
    window,
    kv_heads: tl.constexpr,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    PAGE: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    WINDOW: tl.constexpr,
    CAP: tl.constexpr,  # of scores in units of log2; 0: none
    PRECISION: tl.constexpr,
    FP8: tl.constexpr,
    CONVERTS: tl.constexpr,
):
    tile, head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    most: tl.constexpr = M // GROUP
    rows = tl.minimum(tl.load(tiles + 2 * tile + 1) - part * most, most)
    if rows <= 0:
        return
    first_row = tl.load(tiles + 2 * tile).to(tl.int64) + part * most
    member = tl.arange(0, M)
    token_of, head_of = member // GROUP, head * GROUP + member % GROUP
    dims = tl.arange(0, DP)
    inside = (token_of < rows)[:, None] & (dims < D)[None, :]
    start = tl.load(positions + first_row).to(tl.int32)
    position = start + token_of
    place = (first_row + token_of) * row_stride + head_of * D
    q = tl.load(query + place[:, None] + dims[None, :], mask=inside, other=0.0)
    keys = cache + head.to(tl.int64) * blocks * PAGE * D
    values = keys + tl.cast(kv_heads, tl.int64) * blocks * PAGE * D
    pages = table + tl.load(slots + first_row).to(tl.int64) * width
    best = tl.full([M], float("-inf"), tl.float32)
    total = tl.zeros([M], tl.float32)
    if sinks is not None:  # as a first token of value zero
        best = tl.load(sinks + head_of) * 1.4426950408889634
        total += 1.0
    acc = tl.zeros([M, DP], tl.float32)
    length = start + rows
    begin = 0
    if WINDOW:
        begin = tl.maximum(0, start + 1 - window) // N * N
    # Tiles that every row sees in full need no mask.
    open_end = begin
    if not WINDOW:
        open_end = (start + 1) // N * N
    for token0 in tl.range(begin, open_end, N):
        k = load_tile(keys, pages, token0, length, PAGE, D, DP, N, q.dtype, FP8, CONVERTS)
        v = load_tile(values, pages, token0, length, PAGE, D, DP, N, q.dtype, FP8, CONVERTS)
        best, total, acc = _absorb(q, k, v, best, total, acc, None, scale, False, CAP, PRECISION)
    for token0 in tl.range(open_end, length, N):
        k = load_tile(keys, pages, token0, length, PAGE, D, DP, N, q.dtype, FP8, CONVERTS)
        v = load_tile(values, pages, token0, length, PAGE, D, DP, N, q.dtype, FP8, CONVERTS)
        token = token0 + tl.arange(0, N)
        visible = token[None, :] <= position[:, None]
        if WINDOW:
            visible = visible & (token[None, :] > position[:, None] - window)
        best, total, acc = _absorb(q, k, v, best, total, acc, visible, scale, True, CAP, PRECISION)
    place = (first_row + token_of) * kv_heads * GROUP * D + head_of * D
    result = acc / total[:, None]
    if FP8:
        result *= value_scale
    result = result.to(out.dtype.element_ty)
    tl.store(out + place[:, None] + dims[None, :], result, mask=inside)


def prefill_attention(
    query: Tensor,
    cache: Tensor,
    table: Tensor,
    slots: Tensor,
    positions: Tensor,
    tiles: Tensor,
    out: Tensor,
    scale: float,
    window: int | None = None,
    soft_cap: float | None = None,
    stored: CacheSpec = AS_MODEL,
    sinks: Tensor | None = None,
) -> None:
    """softmax(q k^T * scale) v of each row over its own sequence, up to and including itself.

    query: [n, heads, d], last two dimensions dense; cache: [2, kv_heads, blocks, page, d];
    table: [slots, width] int32; slots: [n] integers; positions: [n] int64, consecutive in a tile;
    tiles: [count, 2] int32, first row and rows (at most `query_tile`) of each piece of a sequence:
    see `prefill_tiles`. Pieces of no rows are skipped, so that a captured launch serves any step
    of fewer pieces; out: [n, heads * d]; soft_cap: scores become cap * tanh(score / cap);
    stored: the scales of a cache in FP8; sinks: [heads] float32, of `ops.Step.attend`.
    """
    if soft_cap is None and supports_hopper_prefill(query, cache):
        hopper_prefill(
            query, cache, table, slots, positions, tiles, out, scale, window, stored, sinks
        )
    else:
        triton_prefill(
            query, cache, table, slots, positions, tiles, out, scale, window, soft_cap, stored,
            sinks,
        )  # fmt: skip


def triton_prefill(
    query: Tensor,
    cache: Tensor,
    table: Tensor,
    slots: Tensor,
    positions: Tensor,
    tiles: Tensor,
    out: Tensor,
    scale: float,
    window: int | None = None,
    soft_cap: float | None = None,
    stored: CacheSpec = AS_MODEL,
    sinks: Tensor | None = None,
) -> None:
    """`prefill_attention` of every dtype, width and page, on every card."""
    _, heads, d = query.shape
    _, kv_heads, blocks, page, _ = cache.shape
    wide = query.dtype == torch.float32
    device, group = query.device, heads // kv_heads
    by_tensor_cores = not wide and has_tensor_cores(device)
    tile = tile_for(padded(d) * query.element_size(), by_tensor_cores, shared_bytes(device))
    rows = max(tile.rows, int(triton.next_power_of_2(group)))
    programs = triton.cdiv(query_tile(heads, kv_heads), rows // group)  # of a piece
    cache, kinds = kv8.operands(cache)
    _prefill_kernel[(tiles.shape[0], kv_heads, programs)](
        query, cache, table, slots, positions, tiles, sinks, out,
        scale * stored.key_scale * LOG2_E, stored.value_scale, query.stride(0), blocks,
        table.stride(0), window or 0,
        kv_heads=kv_heads, GROUP=group, D=d, DP=padded(d), PAGE=page, M=rows,
        N=tile.keys, WINDOW=window is not None, CAP=(soft_cap or 0.0) * LOG2_E,
        PRECISION="ieee" if wide else "tf32", **kinds, num_warps=8, num_stages=tile.stages,
    )  # fmt: skip
