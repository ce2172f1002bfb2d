"""Queries, keys and values in one launch: product, rotation and the write to the cache.

For decode steps of few rows, where `gpu.rope` as a launch of its own costs 2 us a layer and next to
no bytes. `hopper_qkv` does it for 2 to 64 rows on Hopper; one row, on any card, is here: a program
of `linear_one_row` has two rows of the weight, and here those are a pair that is rotated together.
Results are those of `skinny_linear` and `rope_and_write`, bit for bit.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.dependent import launch, wait
from penstock_kernels.gpu.hopper import multiprocessors
from penstock_kernels.gpu.hopper_linear import Stream, fits_hopper, stream_for
from penstock_kernels.gpu.hopper_qkv import hopper_qkv
from penstock_kernels.gpu.linear import Tile
from penstock_kernels.gpu.rope import Seats
from penstock_kernels.gpu.tiles import tile_for


def placed_queries(
    x: Tensor, weight: Tensor, cache: Tensor, seats: Seats, dependent: bool = False
) -> Tensor | None:
    """x W^T: returns the queries rotated, [rows, heads * d], and stores keys, rotated, and values.

    x: [rows, k]; weight: [(heads + 2 * kv_heads) * d, k]; cache: [2, kv_heads, blocks, page, d].
    None, and nothing done, where it takes two launches.
    """
    query = x.new_empty(len(x), len(weight) - 2 * cache.shape[1] * cache.shape[4])
    if stream := _stream(x, weight, cache.shape[4]):
        hopper_qkv(x, weight, query, cache, seats, stream, dependent)
    elif tile := _tile(x, weight):
        qkv_one_row(x, weight, query, cache, seats, tile, dependent)
    else:
        return None
    return query


def _stream(x: Tensor, weight: Tensor, d: int) -> Stream | None:
    if len(x) == 1 or d not in (64, 128) or not fits_hopper(x, weight):
        return None
    n, k = weight.shape
    stream = stream_for(len(x), n, k, False, multiprocessors(x.device))
    return stream and replace(stream, splits=1)


def _tile(x: Tensor, weight: Tensor) -> Tile | None:
    half = x.dtype in (torch.bfloat16, torch.float16)
    if len(x) > 1 or not half or not (x.is_contiguous() and weight.is_contiguous()):
        return None
    n, k = weight.shape
    tile = tile_for(1, n, k, False)
    return tile if tile is not None and tile.n == 2 else None


@triton.jit
def _one_row_kernel(
    x,  # [K]
    weight,  # [(heads + 2 * kv_heads) * D, K]
    query,  # [heads * D]
    cache,  # [2, kv_heads, blocks, PAGE, D]
    table,  # [slots, width] int32
    slots,  # [1] integer
    positions,  # [1] int64
    angles,  # [positions, 2, D / 2] float32, cosines then sines
    blocks,
    width,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    D: tl.constexpr,
    PAGE: tl.constexpr,
    K: tl.constexpr,
    BK: tl.constexpr,
    PDL: tl.constexpr,
):
    head, dim = tl.program_id(0) // (D // 2), tl.program_id(0) % (D // 2)
    column = head * D + dim + tl.arange(0, 2) * (D // 2)
    k = tl.arange(0, BK)
    weights = weight + column.to(tl.int64)[:, None] * K + k[None, :]
    first = tl.load(weights)
    wait(PDL)
    value = tl.load(x + k)[None, :].to(tl.float32)
    position = tl.load(positions)
    slot = tl.load(slots).to(tl.int64)
    acc = first.to(tl.float32) * value
    for start in tl.range(BK, K, BK):
        value = tl.load(x + start + k)[None, :].to(tl.float32)
        acc += tl.load(weights + start).to(tl.float32) * value
    page = tl.load(table + slot * width + position // PAGE).to(tl.int64)
    cos = tl.load(angles + position * D + dim)
    sin = tl.load(angles + position * D + D // 2 + dim)
    low, high = tl.split(tl.sum(acc, 1).to(query.dtype.element_ty))
    if head < heads + kv_heads:
        a, b = low.to(tl.float32), high.to(tl.float32)
        low, high = (a * cos - b * sin).to(low.dtype), (b * cos + a * sin).to(high.dtype)
    place = query + head * D + dim
    if head >= heads:
        line = (head - heads).to(tl.int64) * blocks + page
        place = cache + (line * PAGE + position % PAGE) * D + dim
    tl.store(place, low)
    tl.store(place + D // 2, high)


def qkv_one_row(
    x: Tensor,
    weight: Tensor,
    query: Tensor,
    cache: Tensor,
    seats: Seats,
    tile: Tile,
    dependent: bool = False,
) -> None:
    """`placed_queries` of one row, without tensor cores. query: [1, heads * d], written; tile: of
    two rows of the weight; k must be a multiple of tile.k."""
    count, depth = weight.shape
    _, kv_heads, blocks, page, d = cache.shape
    _one_row_kernel[(count // 2,)](
        x, weight, query, cache, seats.table, seats.slots, seats.positions, seats.angles, blocks,
        seats.table.stride(0), heads=query.shape[1] // d, kv_heads=kv_heads, D=d, PAGE=page,
        K=depth, BK=tile.k, num_warps=tile.warps, num_stages=tile.stages, **launch(dependent),
    )  # fmt: skip
