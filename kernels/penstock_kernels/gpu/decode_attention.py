"""Decode attention over a paged cache, split along the context ("flash decoding", Dao, 2023).

Reference: `penstock_kernels.paged_attention`. One launch serves every length: the grid is fixed by
the batch, each split finds its part of its own row's context, and those beyond it return at once.
So a captured CUDA graph is valid for all lengths. The query heads that share a KV head are the
rows of one matrix product, so the cache is read once a KV head.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 64  # tokens an iteration: 16 KiB of keys at head_dim 128 in bfloat16
MAX_SPLITS = 64
# Measured on an H100 at 576 tokens: 32 rows x 8 KV heads take 30 us as they are, 38 us in two
# splits; 8 rows 18 us as they are, 14 us in eight. So rows are split while fewer than this run.
TARGET_PROGRAMS = 500


def splits_for(rows: int, kv_heads: int) -> int:
    """Splits that fill the card: many for few rows, one when rows alone fill it."""
    return max(1, min(MAX_SPLITS, TARGET_PROGRAMS // (rows * kv_heads)))


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
):
    """Rows start .. start + N of a sequence, [N, DP]; zero from `end` on and beyond column D."""
    token = start + tl.arange(0, N)
    dims = tl.arange(0, DP)
    if PAGE % N == 0:
        block = tl.load(table + start // PAGE).to(tl.int64)
    else:
        block = tl.load(table + token // PAGE, mask=token < end, other=0).to(tl.int64)
    row = block * PAGE + token % PAGE
    inside = (token < end)[:, None] & (dims < D)[None, :]
    return tl.load(base + row[:, None] * D + dims[None, :], mask=inside, other=0.0)


@triton.jit
def _split_kernel(
    query,  # [rows, row_stride], heads * D of them used
    cache,  # [2, kv_heads, blocks, PAGE, D]
    table,  # [slots, width] int32
    slots,  # [rows] int32
    positions,  # [rows] int64: of the token that the row computes
    out,  # [rows, heads * D]
    partial,  # [rows, kv_heads, splits, ROWS_PAD, D] float32
    partial_lse,  # [rows, kv_heads, splits, ROWS_PAD] float32
    scale,
    row_stride,
    blocks,
    width,
    window,
    splits,
    kv_heads: tl.constexpr,
    GROUP: tl.constexpr,
    GROUP_PAD: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    PAGE: tl.constexpr,
    N: tl.constexpr,
    SINGLE: tl.constexpr,
    WINDOW: tl.constexpr,
    PRECISION: tl.constexpr,
):
    row, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(positions + row).to(tl.int32) + 1
    first = 0
    if WINDOW:
        first = tl.maximum(0, length - window) // N * N
    chunk = tl.cdiv(tl.cdiv(length - first, splits), N) * N
    start = first + split * chunk
    end = tl.minimum(start + chunk, length)
    if start >= length:
        return
    group = tl.arange(0, GROUP_PAD)
    dims = tl.arange(0, DP)
    mask_q = (group[:, None] < GROUP) & (dims[None, :] < D)
    q = tl.load(
        query + row * row_stride + (head * GROUP + group[:, None]) * D + dims[None, :],
        mask=mask_q,
        other=0.0,
    )
    keys = cache + head.to(tl.int64) * blocks * PAGE * D
    values = keys + tl.cast(kv_heads, tl.int64) * blocks * PAGE * D
    pages = table + tl.load(slots + row).to(tl.int64) * width
    best = tl.full([GROUP_PAD], float("-inf"), tl.float32)
    total = tl.zeros([GROUP_PAD], tl.float32)
    acc = tl.zeros([GROUP_PAD, DP], tl.float32)
    for begin in tl.range(start, end, N):
        token = begin + tl.arange(0, N)
        inside = token < length
        k = load_tile(keys, pages, begin, length, PAGE, D, DP, N)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        visible = inside
        if WINDOW:
            visible = inside & (token >= length - window)
        scores = tl.where(visible[None, :], scores, float("-inf"))
        new = tl.maximum(best, tl.max(scores, 1))
        # A tile may be hidden as a whole by the window: exp2(-inf - -inf) would be NaN.
        safe = tl.where(new == float("-inf"), 0.0, new)
        p = tl.exp2(scores - safe[:, None])
        shrink = tl.exp2(best - safe)
        total = total * shrink + tl.sum(p, 1)
        v = load_tile(values, pages, begin, length, PAGE, D, DP, N)
        acc = acc * shrink[:, None] + tl.dot(p.to(v.dtype), v, input_precision=PRECISION)
        best = new
    result = acc / total[:, None]
    if SINGLE:
        place = out + (row * kv_heads + head) * GROUP * D + group[:, None] * D + dims[None, :]
        tl.store(place, result.to(out.dtype.element_ty), mask=mask_q)
    else:
        index = ((row * kv_heads + head) * splits + split) * GROUP_PAD + group
        tl.store(partial + index[:, None] * D + dims[None, :], result, mask=mask_q)
        tl.store(partial_lse + index, best + tl.log2(total), mask=group < GROUP)


@triton.jit
def _merge_kernel(
    partial,
    partial_lse,
    positions,
    out,
    window,
    splits,
    kv_heads: tl.constexpr,
    GROUP: tl.constexpr,
    GROUP_PAD: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    N: tl.constexpr,
    SPLITS_PAD: tl.constexpr,
    WINDOW: tl.constexpr,
):
    row, query_head = tl.program_id(0), tl.program_id(1)
    head, member = query_head // GROUP, query_head % GROUP
    length = tl.load(positions + row).to(tl.int32) + 1
    first = 0
    if WINDOW:
        first = tl.maximum(0, length - window) // N * N
    chunk = tl.cdiv(tl.cdiv(length - first, splits), N) * N
    used = tl.cdiv(length - first, chunk)
    split = tl.arange(0, SPLITS_PAD)
    index = ((row * kv_heads + head) * splits + split) * GROUP_PAD + member
    lse = tl.load(partial_lse + index, mask=split < used, other=float("-inf"))
    weight = tl.exp2(lse - tl.max(lse, 0))
    weight = weight / tl.sum(weight, 0)
    dims = tl.arange(0, DP)
    inside = (split < used)[:, None] & (dims < D)[None, :]
    parts = tl.load(partial + index[:, None] * D + dims[None, :], mask=inside, other=0.0)
    merged = tl.sum(parts * weight[:, None], 0).to(out.dtype.element_ty)
    tl.store(out + (row * kv_heads * GROUP + query_head) * D + dims, merged, mask=dims < D)


def padded(head_dim: int) -> int:
    """Columns of a tile: a power of two, and no fewer than a tensor core takes."""
    return max(16, int(triton.next_power_of_2(head_dim)))


class DecodeWorkspace:
    """Partial results of the splits; made once for the largest batch, shared by all layers."""

    def __init__(
        self, rows: int, heads: int, kv_heads: int, head_dim: int, device: torch.device
    ) -> None:
        pad = max(16, triton.next_power_of_2(heads // kv_heads))
        cells = max(r * splits_for(r, kv_heads) for r in range(1, rows + 1)) * kv_heads * pad
        self.partial = torch.empty(cells * head_dim, dtype=torch.float32, device=device)
        self.lse = torch.empty(cells, dtype=torch.float32, device=device)


def decode_attention(
    query: Tensor,
    cache: Tensor,
    table: Tensor,
    slots: Tensor,
    positions: Tensor,
    out: Tensor,
    workspace: DecodeWorkspace,
    scale: float,
    window: int | None = None,
    splits: int | None = None,
) -> None:
    """softmax(q k^T * scale) v of one new token a row over its own sequence, itself included.

    query: [rows, heads, d], last two dimensions dense; cache: [2, kv_heads, blocks, page, d];
    table: [slots, width] int32; slots: [rows] int32; positions: [rows] int64, of the row's token;
    out: [rows, heads * d]. Nothing is read back by the host.
    Raises ValueError for more rows or splits than the workspace was made for.
    """
    rows, heads, d = query.shape
    _, kv_heads, blocks, page, _ = cache.shape
    group = heads // kv_heads
    pad = max(16, triton.next_power_of_2(group))
    splits = splits or splits_for(rows, kv_heads)
    if splits > MAX_SPLITS or rows * kv_heads * splits * pad > workspace.lse.numel():
        raise ValueError(f"{rows} rows in {splits} splits are more than the workspace holds")
    precision = "ieee" if query.dtype == torch.float32 else "tf32"
    sizes = {"kv_heads": kv_heads, "GROUP": group, "GROUP_PAD": pad, "N": TILE}
    sizes |= {"D": d, "DP": padded(d)}
    windowed = {"WINDOW": window is not None}
    _split_kernel[(rows, kv_heads, splits)](
        query, cache, table, slots, positions, out, workspace.partial, workspace.lse,
        scale * 1.4426950408889634, query.stride(0), blocks, table.stride(0), window or 0, splits,
        **sizes, **windowed, PAGE=page, SINGLE=splits == 1, PRECISION=precision,
        num_warps=4, num_stages=3,
    )  # fmt: skip
    if splits > 1:
        _merge_kernel[(rows, heads)](
            workspace.partial, workspace.lse, positions, out, window or 0, splits,
            **sizes, **windowed, SPLITS_PAD=MAX_SPLITS, num_warps=4,
        )  # fmt: skip
