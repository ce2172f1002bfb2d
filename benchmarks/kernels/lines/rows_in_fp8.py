"""Products of many rows in FP8 with weights of 4 bits in whole numbers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from benchmarks.configs import Shape
from benchmarks.kernels.lines.line import Launch, Line, dependent
from benchmarks.kernels.lines.products import H100, sizes
from benchmarks.kernels.lines.whole_numbers import GROUP, MANY, stored, weights_of
from torch import Tensor

from penstock_kernels.gpu.launch.hopper import multiprocessors
from penstock_kernels.gpu.products.hopper_w4a8 import W4A8Config, hopper_w4a8, w4a8_config
from penstock_kernels.gpu.products.hopper_w4a8_gated import gated_w4a8_tile, hopper_w4a8_gated
from penstock_kernels.gpu.products.w4a8_linear import w4a8_linear


def lines(shape: Shape) -> Iterator[Line]:
    """Of a model, as they are launched."""
    for name in ("qkv", "o", "gate-up", "down"):
        n, k = sizes(shape)[name]
        gated = name == "gate-up"
        wide, results = (n // 2, 2) if gated else (n, _bytes_of_results(n, k, H100))
        kernel = "hopper_w4a8_gated" if gated else "hopper_w4a8"
        yield Line(
            name=f"{name}, 4 bits, rows in FP8", what=f"{MANY} x {k} to {n}",
            kernels=(f"{kernel}._kernel",), flops=2 * MANY * n * k,
            moved=stored(n, k) + MANY * (k + results * wide),
            prepare=partial(_gated if gated else _plain, n, k),
        )  # fmt: skip
    n, k = sizes(shape)["o"]
    yield Line(
        name="o, 4 bits, rows in FP8, by Triton", what=f"{MANY} x {k} to {n}",
        kernels=("w4a8_linear._w4a8_kernel",), flops=2 * MANY * n * k,
        moved=stored(n, k) + MANY * (k + 2 * n), prepare=partial(_portable, n, k),
    )  # fmt: skip


def _config(n: int, k: int, programs: int) -> W4A8Config:
    config = w4a8_config(MANY, n, k, GROUP, True, programs)
    assert config is not None
    return config


def _bytes_of_results(n: int, k: int, programs: int) -> int:
    splits = _config(n, k, programs).splits
    return 2 if splits == 1 else 4 * splits


def _rows(k: int, device: torch.device) -> tuple[Tensor, Tensor]:
    x = torch.zeros(MANY, k, dtype=torch.float8_e4m3fn, device=device)
    return x, torch.ones(MANY, 1, device=device)


def _plain(n: int, k: int, device: torch.device, copies: int) -> Launch:
    weights, (x, scale), how = weights_of(n, k, device, copies), _rows(k, device), dependent(device)
    config = _config(n, k, multiprocessors(device))
    out = torch.empty(MANY, n, dtype=torch.bfloat16, device=device)
    if config.splits > 1:
        out = torch.empty(config.splits, MANY, n, device=device)
    return lambda i: hopper_w4a8(x, scale, weights[i % copies], out, config, **how)


def _gated(n: int, k: int, device: torch.device, copies: int) -> Launch:
    weights, (x, scale), how = weights_of(n, k, device, copies), _rows(k, device), dependent(device)
    tile = gated_w4a8_tile(MANY, n, k, GROUP, multiprocessors(device))
    assert tile is not None
    out = torch.empty(MANY, n // 2, dtype=torch.bfloat16, device=device)
    return lambda i: hopper_w4a8_gated(x, scale, weights[i % copies], out, tile, **how)


def _portable(n: int, k: int, device: torch.device, copies: int) -> Launch:
    weights, (x, scale), how = weights_of(n, k, device, copies), _rows(k, device), dependent(device)
    out = torch.empty(MANY, n, dtype=torch.bfloat16, device=device)
    return lambda i: w4a8_linear(x, scale, weights[i % copies], out, **how)
