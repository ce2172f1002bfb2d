"""Matrix products: one row, streams of few rows, and the gated product of many."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from benchmarks.configs import Shape
from benchmarks.kernels.lines.line import Launch, Line, dependent, randn

from penstock_kernels.gpu.launch.hopper import multiprocessors
from penstock_kernels.gpu.products.hopper_gated import hopper_gated_linear
from penstock_kernels.gpu.products.hopper_linear import LinearConfig, hopper_linear, linear_config
from penstock_kernels.gpu.products.hopper_qkv import hopper_qkv
from penstock_kernels.gpu.products.invariant_linear import invariant_linear
from penstock_kernels.gpu.products.invariant_tiles import HALF, tile_of
from penstock_kernels.gpu.products.linear import Tile, linear, linear_one_row
from penstock_kernels.gpu.products.tiles import tile_for
from penstock_kernels.gpu.step.rope import RowPlacement
from penstock_kernels.weight import Weight

STREAMED = (8, 32, 64)
PAGE = 64
H100 = 132  # multiprocessors: how often k is split does not depend on them


def sizes(shape: Shape) -> dict[str, tuple[int, int]]:
    """n and k of the weights [n, k] of a model."""
    heads = shape.heads * shape.head_dim
    return {
        "qkv": (heads + 2 * shape.kv_heads * shape.head_dim, shape.hidden),
        "o": (shape.hidden, heads),
        "gate-up": (2 * shape.intermediate, shape.hidden),
        "down": (shape.hidden, shape.intermediate),
        "head": (shape.vocab, shape.hidden),
    }


def lines(shape: Shape) -> Iterator[Line]:
    """All of them for a model."""
    for name, (n, k) in sizes(shape).items():
        gated = name == "gate-up"
        wide = n // 2 if gated else n
        if tile := tile_for(1, n, k, gated):
            yield Line(
                name=name, what=f"1 x {k} to {n}", kernels=("linear._vector_kernel",),
                moved=2 * (n * k + k + wide), prepare=partial(_one_row, n, k, tile, gated),
            )  # fmt: skip
        for rows in STREAMED:
            what, weights = f"{rows} x {k} to {n}", 2 * (n * k + rows * k)
            if name == "qkv":
                yield Line(
                    name="qkv, rotation and KV write", what=what,
                    kernels=("hopper_qkv._kernel",), flops=2 * rows * n * k,
                    moved=weights + 2 * rows * n, prepare=partial(_qkv, rows, shape),
                )  # fmt: skip
                continue
            split = name in ("o", "down")
            config = linear_config(rows, n, k, gated, split, H100)
            assert config is not None
            parts = 2 if config.splits == 1 else 4 * config.splits  # bytes of a result
            yield Line(
                name=name, what=what, kernels=("hopper_linear._kernel",), flops=2 * rows * n * k,
                moved=weights + parts * rows * wide,
                prepare=partial(_stream, rows, n, k, gated, split),
            )  # fmt: skip
        for rows in (1, 64, 2048):
            yield Line(
                name=f"{name}, deterministic", what=f"{rows} x {k} to {n}",
                kernels=("invariant_linear._kernel",), flops=2 * rows * n * k,
                moved=2 * (n * k + rows * k + rows * n),
                prepare=partial(_deterministic, rows, n, k),
            )  # fmt: skip
    n, k = sizes(shape)["gate-up"]
    tile = tile_for(64, n, k, True)
    assert tile is not None
    for rows in STREAMED:
        yield Line(
            name="gate-up, portable", what=f"{rows} x {k} to {n}", flops=2 * rows * n * k,
            kernels=("linear._linear_kernel",), moved=2 * (n * k + rows * k + rows * n // 2),
            prepare=partial(_portable, rows, n, k, tile),
        )  # fmt: skip
    for rows in (1024, 2048):
        yield Line(
            name="gate-up", what=f"{rows} x {k} to {n}", flops=2 * rows * n * k,
            kernels=("hopper_gated._kernel",), moved=2 * (n * k + rows * k + rows * n // 2),
            prepare=partial(_gated, rows, n, k),
        )  # fmt: skip


def _weights(n: int, k: int, device: torch.device, copies: int) -> list[Weight]:
    return [Weight(data) for data in randn(device, copies, n, k).mul_(k**-0.5)]


def _one_row(n: int, k: int, tile: Tile, gated: bool, device: torch.device, copies: int) -> Launch:
    weights, x, how = _weights(n, k, device, copies), randn(device, 1, k), dependent(device)
    out = x.new_empty(1, n // 2 if gated else n)
    return lambda i: linear_one_row(x, weights[i % copies], out, tile, gated, **how)


def _deterministic(rows: int, n: int, k: int, device: torch.device, copies: int) -> Launch:
    weights, x, how = _weights(n, k, device, copies), randn(device, rows, k), dependent(device)
    tile = tile_of(HALF, rows, n)
    return lambda i: invariant_linear(x, weights[i % copies], tile, **how)


def _stream(
    rows: int, n: int, k: int, gated: bool, split: bool, device: torch.device, copies: int
) -> Launch:
    weights, x, how = _weights(n, k, device, copies), randn(device, rows, k), dependent(device)
    config = _stream_of(rows, n, k, gated, split, device)
    out = x.new_empty(rows, n // 2 if gated else n)
    if config.splits > 1:
        out = torch.empty(config.splits, rows, n, device=device)
    return lambda i: hopper_linear(x, weights[i % copies], out, config, gated, **how)


def _stream_of(
    rows: int, n: int, k: int, gated: bool, split: bool, device: torch.device
) -> LinearConfig:
    config = linear_config(rows, n, k, gated, split, multiprocessors(device))
    assert config is not None
    return config


def _qkv(rows: int, shape: Shape, device: torch.device, copies: int) -> Launch:
    (n, k), d = sizes(shape)["qkv"], shape.head_dim
    weights, x, how = _weights(n, k, device, copies), randn(device, rows, k), dependent(device)
    query = x.new_empty(rows, shape.heads * d)
    cache = randn(device, 2, shape.kv_heads, rows, PAGE, d)
    placement = RowPlacement(
        slots=torch.randperm(rows, device=device),
        positions=torch.randint(0, PAGE, (rows,), device=device),
        table=torch.randperm(rows, device=device).int().view(rows, 1),
        angles=torch.rand(PAGE, 2, d // 2, device=device),
    )
    config = _stream_of(rows, n, k, False, False, device)
    return lambda i: hopper_qkv(x, weights[i % copies], query, cache, placement, config, **how)


def _portable(rows: int, n: int, k: int, tile: Tile, device: torch.device, copies: int) -> Launch:
    weights, x, how = _weights(n, k, device, copies), randn(device, rows, k), dependent(device)
    out = x.new_empty(rows, n // 2)
    return lambda i: linear(x, weights[i % copies], out, tile, True, **how)


def _gated(rows: int, n: int, k: int, device: torch.device, copies: int) -> Launch:
    weights, x = _weights(n, k, device, copies), randn(device, copies, rows, k)
    out = x.new_empty(copies, rows, n // 2)
    return lambda i: hopper_gated_linear(x[i % copies], weights[i % copies].data, out[i % copies])
