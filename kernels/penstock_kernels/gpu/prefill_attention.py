"""Attention of prompt chunks over a paged cache (FlashAttention-2, Dao, 2023, arXiv:2307.08691).

Reference: `penstock_kernels.paged_attention`. Keys and values of the chunk stand in the cache
already, so a cached prefix, earlier chunks and the chunk itself are read in the same way. The query
heads that share a KV head are rows of one tile: a chunk of a few tokens fills a tile too, and the
cache is read once a KV head.
"""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from penstock_kernels.gpu.decode_attention import load_tile, padded

QUERY_TILE = 128  # rows of a tile: tokens times the query heads of a KV head
KEY_TILE = 64


def query_tile(group: int) -> int:
    """Tokens of a tile, where so many query heads share a KV head."""
    return max(1, QUERY_TILE // group)


def prefill_pieces(
    queries: NDArray[np.int64], context: NDArray[np.int64], first_row: int, tile: int
) -> NDArray[np.int32]:
    """Pieces of at most `tile` rows of one chunk: [pieces, 2], first row and rows.

    queries: rows of each chunk, which follow one another from `first_row` on; context: tokens
    before each chunk.
    """
    pieces = -(-queries // tile)
    chunk = np.repeat(np.arange(len(queries)), pieces)
    piece = np.arange(len(chunk)) - (np.cumsum(pieces) - pieces)[chunk]
    first = first_row + (np.cumsum(queries) - queries)[chunk] + piece * tile
    count = np.minimum(queries[chunk] - piece * tile, tile)
    # Long contexts first, so that none of them is left over when the others are done.
    order = np.argsort(-(context[chunk] + piece * tile), kind="stable")
    return np.stack((first, count), axis=1)[order].astype(np.int32)


@triton.jit
def _prefill_kernel(
    query,  # [n, row_stride], heads * D of them used
    cache,  # [2, kv_heads, blocks, PAGE, D]
    table,  # [slots, width] int32
    slots,  # [n] int32
    positions,  # [n] int64
    tiles,  # [grid, 2] int32: first row of a tile, number of its rows (0: none), of one sequence
    out,  # [n, heads * D]
    scale,
    row_stride,
    blocks,
    width,
    window,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    PAGE: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    WINDOW: tl.constexpr,
    PRECISION: tl.constexpr,
):
    tile, head = tl.program_id(0), tl.program_id(1)
    rows = tl.load(tiles + 2 * tile + 1)
    if rows == 0:
        return
    first_row = tl.load(tiles + 2 * tile).to(tl.int64)
    group: tl.constexpr = heads // kv_heads
    member = tl.arange(0, M) // group
    query_head = head * group + tl.arange(0, M) % group
    dims = tl.arange(0, DP)
    inside = (member < rows)[:, None] & (dims < D)[None, :]
    start = tl.load(positions + first_row).to(tl.int32)
    position = start + member
    row = first_row + member
    q = tl.load(
        query + row[:, None] * row_stride + query_head[:, None] * D + dims[None, :],
        mask=inside,
        other=0.0,
    )
    keys = cache + head.to(tl.int64) * blocks * PAGE * D
    values = keys + tl.cast(kv_heads, tl.int64) * blocks * PAGE * D
    pages = table + tl.load(slots + first_row).to(tl.int64) * width
    best = tl.full([M], float("-inf"), tl.float32)
    total = tl.zeros([M], tl.float32)
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
        k = load_tile(keys, pages, token0, length, PAGE, D, DP, N)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        new = tl.maximum(best, tl.max(scores, 1))
        p = tl.exp2(scores - new[:, None])
        shrink = tl.exp2(best - new)
        total = total * shrink + tl.sum(p, 1)
        v = load_tile(values, pages, token0, length, PAGE, D, DP, N)
        acc = acc * shrink[:, None]
        acc = tl.dot(p.to(v.dtype), v, acc, input_precision=PRECISION)
        best = new
    for token0 in tl.range(open_end, length, N):
        token = token0 + tl.arange(0, N)
        k = load_tile(keys, pages, token0, length, PAGE, D, DP, N)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        visible = token[None, :] <= position[:, None]
        if WINDOW:
            visible = visible & (token[None, :] > position[:, None] - window)
        scores = tl.where(visible, scores, float("-inf"))
        new = tl.maximum(best, tl.max(scores, 1))
        safe = tl.where(new == float("-inf"), 0.0, new)
        p = tl.exp2(scores - safe[:, None])
        shrink = tl.exp2(best - safe)
        total = total * shrink + tl.sum(p, 1)
        v = load_tile(values, pages, token0, length, PAGE, D, DP, N)
        acc = acc * shrink[:, None]
        acc = tl.dot(p.to(v.dtype), v, acc, input_precision=PRECISION)
        best = new
    result = acc / total[:, None]
    place = out + row[:, None] * (heads * D) + query_head[:, None] * D + dims[None, :]
    tl.store(place, result.to(out.dtype.element_ty), mask=inside)


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
) -> None:
    """softmax(q k^T * scale) v of each row over its own sequence, up to and including itself.

    query: [n, heads, d], last two dimensions dense; cache: [2, kv_heads, blocks, page, d];
    table: [slots, width] int32; slots: [n] int32; positions: [n] int64, consecutive in a tile;
    tiles: [count, 2] int32, first row and rows (at most `query_tile`) of each piece of a sequence,
    no rows where there is none; out: [n, heads * d].
    Raises ValueError where more query heads share a KV head than a tile has rows.
    """
    _, heads, d = query.shape
    _, kv_heads, blocks, page, _ = cache.shape
    if heads // kv_heads > QUERY_TILE:
        raise ValueError(f"{heads // kv_heads} query heads a KV head are more than {QUERY_TILE}")
    wide = query.dtype == torch.float32
    _prefill_kernel[(tiles.shape[0], kv_heads)](
        query, cache, table, slots, positions, tiles, out,
        scale * 1.4426950408889634, query.stride(0), blocks, table.stride(0), window or 0,
        heads=heads, kv_heads=kv_heads, D=d, DP=padded(d), PAGE=page, M=QUERY_TILE,
        N=32 if wide else KEY_TILE, WINDOW=window is not None, PRECISION="ieee" if wide else "tf32",
        num_warps=8, num_stages=2 if wide else 3,
    )  # fmt: skip
