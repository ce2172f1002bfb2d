"""Products with dense weights: a kernel of ours where it was measured to be faster, else cuBLAS."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from penstock_kernels.gpu.launch.card import shared_bytes
from penstock_kernels.gpu.launch.hopper import is_hopper, multiprocessors
from penstock_kernels.gpu.products.hopper_gated import hopper_gated_linear, supports_hopper_gated
from penstock_kernels.gpu.products.hopper_linear import LinearConfig, hopper_linear, linear_config
from penstock_kernels.gpu.products.hopper_qkv import hopper_qkv
from penstock_kernels.gpu.products.linear import Tile, linear, linear_one_row, row_tile
from penstock_kernels.gpu.products.problem import MANY, Epilogue, Problem, Product, gated
from penstock_kernels.gpu.products.tiles import tile_for
from penstock_kernels.gpu.step.rope import RowPlacement
from penstock_kernels.ops import Activation
from penstock_kernels.weight import Layout, Weight


def _stream(p: Problem, gated: bool = False, split: bool = False) -> LinearConfig | None:
    """Weights through shared memory, on Hopper."""
    if p.rows == 1 or not (p.half and p.dense and is_hopper(p.device)):
        return None
    return linear_config(p.rows, p.n, p.k, gated, split, multiprocessors(p.device))


def _rotating_stream(p: Problem) -> LinearConfig | None:
    return _stream(p) if p.width in (64, 128) else None


def _split_stream(p: Problem) -> LinearConfig | None:
    """A bias cannot be added to parts."""
    return None if p.biased else _stream(p, split=True)


def _tile(p: Problem, gated: bool = False) -> Tile | None:
    """Tiles of the portable kernels."""
    if not p.half:
        return None
    tile = tile_for(p.rows, p.n, p.k, gated)
    return tile if tile is None or p.rows == 1 else staged(tile, p, 1 + gated)


def staged(tile: Tile, p: Problem, weights: int) -> Tile | None:
    """The tile with as many pipeline stages as fit into shared memory; None for fewer than two."""
    stage = (weights * tile.n + row_tile(p.rows)) * tile.k * 2  # bytes
    # The tile that is loaded ahead of the loop takes the room of one more.
    stages = min(tile.stages, shared_bytes(p.device) // stage - 1)
    return replace(tile, stages=stages) if stages >= 2 else None


def _fills(p: Problem) -> bool | None:
    usable = p.half and p.dense and not p.biased and is_hopper(p.device)
    return usable and supports_hopper_gated(p.rows, p.n, p.k, multiprocessors(p.device)) or None


def _adds(p: Problem) -> bool | None:
    """Behind o and down the norm has half as much to read and write where cuBLAS adds: at 2048 rows
    of Llama-3.1-8B both products with their norms take 469 us instead of 486 (H100 under load)."""
    ours = _stream(p) or _tile(p)
    return (p.half and not p.biased and ours is None) or None


def _always(p: Problem) -> bool:
    return True


def launch_stream(config: LinearConfig, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    rows = x.x
    if config.splits == 1:
        out = rows.new_empty(len(rows), weight.n)
    else:
        out = rows.new_empty(config.splits, len(rows), weight.n, dtype=torch.float32)
    hopper_linear(rows, weight, out, config, False, dependent)
    return out


def launch_gated_stream(
    config: LinearConfig, x: Activation, weight: Weight, dependent: bool
) -> Tensor:
    out = _gated_out(x, weight)
    hopper_linear(x.x, weight, out, config, True, dependent)
    return out


def launch_tile(tile: Tile, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    out = x.x.new_empty(len(x.x), weight.n)
    (linear_one_row if len(x.x) == 1 else linear)(x.x, weight, out, tile, False, dependent)
    return out


def launch_gated_tile(tile: Tile, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    out = _gated_out(x, weight)
    (linear_one_row if len(x.x) == 1 else linear)(x.x, weight, out, tile, True, dependent)
    return out


def _launch_gated(config: bool, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    out = _gated_out(x, weight)
    hopper_gated_linear(x.x, weight.data, out)
    return out


def _gated_out(x: Activation, weight: Weight) -> Tensor:
    return x.x.new_empty(len(x.x), weight.n // 2)


def launch_rotate(
    config: LinearConfig,
    x: Activation,
    weight: Weight,
    dependent: bool,
    cache: Tensor,
    placement: RowPlacement,
) -> Tensor:
    query = x.x.new_empty(len(x.x), weight.n - 2 * cache.shape[1] * cache.shape[4])
    hopper_qkv(x.x, weight, query, cache, placement, config, dependent)
    return query


def _launch_add(
    config: bool, x: Activation, weight: Weight, dependent: bool, residual: Tensor
) -> None:
    residual.addmm_(x.x, weight.data.T)  # rounded once


def _launch_cublas(config: bool, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    return F.linear(x.x, weight.data, weight.bias)


_row = partial(Product, Layout.DENSE)


PRODUCTS = (
    _row(Epilogue.NONE, range(2, 65), _stream, launch_stream),
    _row(Epilogue.NONE, range(1, 65), _tile, launch_tile),
    _row(Epilogue.NONE, range(1, MANY), _always, _launch_cublas),
    _row(Epilogue.PARTIAL, range(2, 65), _split_stream, launch_stream),
    _row(Epilogue.RESIDUAL, range(1, MANY), _adds, _launch_add),
    _row(Epilogue.GATED, range(2, 129), gated(_stream), launch_gated_stream),
    _row(Epilogue.GATED, range(1, 65), gated(_tile), launch_gated_tile),
    _row(Epilogue.GATED, range(65, MANY), _fills, _launch_gated),
    _row(Epilogue.ROTATE, range(2, 65), _rotating_stream, launch_rotate),
)
