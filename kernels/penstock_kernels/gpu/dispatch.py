"""Which kernel computes a matrix product: Triton where it was measured to be faster, else cuBLAS.

Measured on an H100 80GB HBM3 over the shapes of Llama-3.1-8B, weights not in L2, microseconds
(cuBLAS / Triton), benchmarks/results/h100_linear_sweep.json:

    rows   qkv          o            gate-up      down         head
    1      20.9 / 18.5  15.9 / 13.1  85.6 / 76.1  43.8 / 40.6  371 / 330
    8      21.3 / -     15.7 / -     82.6 / 82.1  43.9 / -     376 / 346
    32     21.8 / -     14.7 / -     87.4 / 84.2  45.1 / -     380 / 354
    64     20.9 / -     14.9 / -     87.1 / 86.6  47.4 / -     386 / 363

Gate-up with the activation inside also saves its launch, about 2 us. In float32 cuBLAS always runs:
there the results must not depend on the number of rows.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from penstock_kernels.gpu.activation import silu_mul
from penstock_kernels.gpu.hopper_gated import fills_hopper, hopper_gated_linear
from penstock_kernels.gpu.linear import Tile, linear, linear_one_row, row_tile

MOST_ROWS = 64
WIDE = 32768  # from so many outputs on, tiles of 128 fill the card


def skinny_linear(x: Tensor, weight: Tensor) -> Tensor:
    """x W^T. x: [rows, k]; weight: [n, k]. Returns [rows, n]."""
    rows, (n, k) = x.shape[0], weight.shape
    if not _suits(x, weight):
        return F.linear(x, weight)
    tile = _staged(Tile(128, 128, 1, 4, 5), rows, 1, x.device)
    if rows == 1 and (one := _vector_tile(n, k)):
        out = x.new_empty(1, n)
        linear_one_row(x, weight, out, one)
    elif tile and rows <= MOST_ROWS and n >= WIDE and n % tile.n == 0 and k % tile.k == 0:
        out = x.new_empty(rows, n)
        linear(x, weight, out, tile)
    else:
        out = F.linear(x, weight)
    return out


def skinny_gated_linear(x: Tensor, weight: Tensor) -> Tensor:
    """silu(gate) * up of x W^T. x: [rows, k]; weight: [2 n, k], gate first. Returns [rows, n]."""
    rows, (double, k) = x.shape[0], weight.shape
    n = double // 2
    if not _suits(x, weight):
        return silu_mul(F.linear(x, weight))
    tile = _staged(Tile(64, 128, 1, 4, 3), rows, 2, x.device)
    if rows == 1 and (one := _vector_tile(n, k)):
        out = x.new_empty(1, n)
        linear_one_row(x, weight, out, one, gated=True)
    elif tile and rows <= MOST_ROWS and n % tile.n == 0 and k % tile.k == 0:
        out = x.new_empty(rows, n)
        linear(x, weight, out, tile, gated=True)
    elif rows > MOST_ROWS and fills_hopper(x, weight):
        out = hopper_gated_linear(x, weight)
    else:
        out = silu_mul(F.linear(x, weight))
    return out


def _suits(x: Tensor, weight: Tensor) -> bool:
    half = x.dtype in (torch.bfloat16, torch.float16)
    return half and weight.is_contiguous() and x.stride(1) == 1


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


def _vector_tile(n: int, k: int) -> Tile | None:
    """Two rows of the weight a program; long ones in shorter pieces."""
    if n % 2:
        return None
    if k <= 8192 and k % 2048 == 0:
        return Tile(2, 2048, 0, 8, 2)
    return Tile(2, 1024, 0, 4, 2) if k % 1024 == 0 else None
