"""Which kernel computes a matrix product: ours where it was measured to be faster, else cuBLAS.

In float32 cuBLAS always runs: there the results must not depend on the number of rows.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from penstock_kernels.gpu.activation import silu_mul
from penstock_kernels.gpu.hopper import multiprocessors
from penstock_kernels.gpu.hopper_gated import fills_hopper, hopper_gated_linear
from penstock_kernels.gpu.hopper_linear import Stream, fits_hopper, hopper_linear, stream_for
from penstock_kernels.gpu.hopper_qkv import hopper_qkv
from penstock_kernels.gpu.linear import Tile, linear, linear_one_row, row_tile
from penstock_kernels.gpu.rope import Seats
from penstock_kernels.gpu.tiles import tile_for


def skinny_linear(
    x: Tensor, weight: Tensor, dependent: bool = False, split: bool = False
) -> Tensor:
    """x W^T. x: [rows, k]; weight: [n, k].

    Returns [rows, n], or where it may be split [parts, rows, n] float32 to be added up.
    """
    n, rows = len(weight), len(x)
    if stream := _stream(x, weight, split=split):
        if stream.splits == 1:
            out = x.new_empty(rows, n)
        else:
            out = x.new_empty(stream.splits, rows, n, dtype=torch.float32)
        hopper_linear(x, weight, out, stream, False, dependent)
    elif tile := _tile(x, weight, gated=False):
        out = x.new_empty(rows, n)
        (linear_one_row if rows == 1 else linear)(x, weight, out, tile, False, dependent)
    else:
        out = F.linear(x, weight)
    return out


def skinny_gated_linear(x: Tensor, weight: Tensor, dependent: bool = False) -> Tensor:
    """silu(gate) * up of x W^T. x: [rows, k]; weight: [2 n, k], gate first. Returns [rows, n]."""
    out = x.new_empty(len(x), len(weight) // 2)
    if stream := _stream(x, weight, gated=True):
        hopper_linear(x, weight, out, stream, True, dependent)
    elif tile := _tile(x, weight, gated=True):
        (linear_one_row if len(x) == 1 else linear)(x, weight, out, tile, True, dependent)
    elif fills_hopper(x, weight):
        hopper_gated_linear(x, weight, out)
    else:
        silu_mul(F.linear(x, weight), out, dependent)
    return out


def add_product(x: Tensor, weight: Tensor, residual: Tensor) -> bool:
    """residual += x W^T, rounded once, where cuBLAS computes it in half precision; else False.

    Behind o and down the norm has half as much to read and write then: at 2048 rows of
    Llama-3.1-8B both products with their norms take 469 for 486 us (H100 under load).
    """
    if not _suits(x, weight) or _stream(x, weight) or _tile(x, weight, gated=False):
        return False
    residual.addmm_(x, weight.T)
    return True


def placed_queries(
    x: Tensor, weight: Tensor, cache: Tensor, seats: Seats, dependent: bool = False
) -> Tensor | None:
    """x W^T in one launch with `gpu.rope`, where a stream computes it; to the same bits.

    x: [rows, k]; weight: [(heads + 2 * kv_heads) * d, k]; cache: [2, kv_heads, blocks, page, d],
    which gets keys, rotated, and values. Returns the queries, rotated: [rows, heads * d]. None, and
    nothing done, where it takes two launches: for one row too, where that is no slower.
    """
    d = cache.shape[4]
    stream = _stream(x, weight) if d in (64, 128) else None
    if stream is None:
        return None
    query = x.new_empty(len(x), len(weight) - 2 * cache.shape[1] * d)
    hopper_qkv(x, weight, query, cache, seats, stream, dependent)
    return query


def _stream(x: Tensor, weight: Tensor, gated: bool = False, split: bool = False) -> Stream | None:
    if len(x) == 1 or not fits_hopper(x, weight):
        return None
    n, k = weight.shape
    return stream_for(len(x), n, k, gated, split, multiprocessors(x.device))


def _suits(x: Tensor, weight: Tensor) -> bool:
    half = x.dtype in (torch.bfloat16, torch.float16)
    return half and weight.is_contiguous() and x.stride(1) == 1


def _tile(x: Tensor, weight: Tensor, gated: bool) -> Tile | None:
    if not _suits(x, weight):
        return None
    (n, k), rows = weight.shape, len(x)
    tile = tile_for(rows, n, k, gated)
    return tile if tile is None or rows == 1 else _staged(tile, rows, 1 + gated, x.device)


def _staged(tile: Tile, rows: int, weights: int, device: torch.device) -> Tile | None:
    """The tile with as many pipeline stages as fit into shared memory; None for fewer than two."""
    stage = (weights * tile.n + row_tile(rows)) * tile.k * 2  # bytes
    # The tile that is loaded ahead of the loop takes the room of one more.
    stages = min(tile.stages, _shared_bytes(device) // stage - 1)
    return replace(tile, stages=stages) if stages >= 2 else None


@functools.cache
def _shared_bytes(device: torch.device) -> int:
    properties: Any = torch.cuda.get_device_properties(device)
    return int(properties.shared_memory_per_block_optin)
