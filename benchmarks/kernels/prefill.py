"""What the kernels of a prefill step reach: attention, products, elementwise. Needs a CUDA device.

    python -m benchmarks.kernels.prefill --out prefill.json

Attention counts what a causal mask leaves, 4 * heads * d operations a visible pair, and every
result is held to float32 first. Yardsticks are torch's own kernels on contiguous tensors.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import triton
from benchmarks.kernels.timing import microseconds
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from penstock_kernels.gpu.attention.prefill_attention import (
    prefill_attention,
    prefill_tiles,
    query_tile,
    triton_prefill,
)
from penstock_kernels.gpu.launch.hopper import multiprocessors
from penstock_kernels.gpu.products.hopper_gated import hopper_gated_linear, supports_hopper_gated
from penstock_kernels.gpu.step.activation import gate
from penstock_kernels.gpu.step.norm import add_norm
from penstock_kernels.gpu.step.rope import RowPlacement, rope_and_write
from penstock_kernels.ops import Act, AttentionSpec, Norm

Shape = tuple[int, int, int]  # heads, KV heads, head_dim
SHAPES: dict[str, Shape] = {"8b": (32, 8, 128), "1b": (32, 8, 64)}
GATED = {"8b": (14336, 4096), "1b": (8192, 2048)}
PAGE = 64
REPEATS = 8


class Chunks(NamedTuple):
    chunks: int
    tokens: int
    context: int
    shared: bool = False  # one prefix under all


CASES = [
    Chunks(1, 4096, 0),
    Chunks(8, 512, 0),
    Chunks(1, 2048, 5000),
    Chunks(1, 512, 3500),
    Chunks(64, 24, 1000),
    Chunks(64, 24, 1000, True),
    Chunks(4, 64, 7000),
]


class Inputs(NamedTuple):
    query: Tensor
    cache: Tensor
    table: Tensor
    slots: Tensor
    positions: Tensor
    tiles: Tensor
    out: Tensor
    scale: float


def inputs(shape: Shape, case: Chunks, device: str = "cuda") -> Inputs:
    heads, kv_heads, d = shape
    bf16: dict[str, Any] = {"device": device, "dtype": torch.bfloat16}
    width = (case.tokens + case.context) // PAGE + 1
    pages = case.chunks * width
    table = (torch.randperm(pages, device=device).int() + 1).view(case.chunks, width)
    if case.shared:
        table[:, : case.context // PAGE] = table[0, : case.context // PAGE]
    sequences = torch.arange(case.chunks, device=device, dtype=torch.int32)
    tokens, context = np.full(case.chunks, case.tokens), np.full(case.chunks, case.context)
    tiles = prefill_tiles(tokens, context, 0, query_tile(heads, kv_heads))
    rows = case.chunks * case.tokens
    return Inputs(
        torch.randn(rows, heads, d, **bf16),
        torch.randn(2, kv_heads, pages + 1, PAGE, d, **bf16),
        table,
        sequences.repeat_interleave(case.tokens),
        torch.arange(case.context, case.context + case.tokens, device=device).repeat(case.chunks),
        torch.from_numpy(tiles).to(device),
        torch.full((rows, heads * d), torch.nan, **bf16),
        d**-0.5,
    )


def in_float32(x: Inputs) -> Tensor:
    """The formula, a sequence and a head at a time."""
    found = torch.empty(x.query.shape, device="cuda")
    group = x.query.shape[1] // x.cache.shape[1]
    for sequence in range(x.table.shape[0]):
        rows = x.slots == sequence
        position = x.positions[rows]
        keys, values = x.cache[:, :, x.table[sequence].long()].flatten(2, 3).float()
        after = torch.arange(keys.shape[1], device="cuda") > position[:, None]
        for head in range(x.query.shape[1]):
            scores = x.query[rows, head].float() @ keys[head // group].T * x.scale
            weight = scores.masked_fill(after, -torch.inf).softmax(-1)
            found[rows, head] = weight @ values[head // group]
    return found.flatten(1)


def attention(name: str, case: Chunks) -> dict[str, Any]:
    heads, _, d = SHAPES[name]
    x = inputs(SHAPES[name], case)
    expected = in_float32(x)
    pairs = case.chunks * case.tokens * (case.context + (case.tokens + 1) / 2)
    found: dict[str, Any] = {"shape": name, **case._asdict()}
    for label, kernel in (("chosen", prefill_attention), ("portable", triton_prefill)):
        x.out.fill_(torch.nan)
        kernel(*x)
        error = float((x.out.float() - expected).norm() / expected.norm())
        if not error < 0.01:
            raise RuntimeError(f"{label} of {name}, {case}: relative error {error}")
        us = microseconds(functools.partial(_again, kernel, x), REPEATS)
        found[label] = {"us": us, "tflops": 4 * heads * d * pairs / us / 1e6, "error": error}
    return found


def _again(kernel: Callable[..., None], x: Inputs, _: int) -> None:
    kernel(*x)


def yardstick(name: str, backend: SDPBackend, tokens: int) -> dict[str, Any]:
    heads, _, d = SHAPES[name]
    q, k, v = torch.randn(3, 1, heads, tokens, d, device="cuda", dtype=torch.bfloat16)
    with sdpa_kernel(backend):
        us = microseconds(
            lambda _: F.scaled_dot_product_attention(q, k, v, is_causal=True), REPEATS
        )
    flops = 2 * heads * d * tokens * (tokens + 1)
    return {"shape": name, "kernel": backend.name, "us": us, "tflops": flops / us / 1e6}


def products(rows: int) -> dict[str, Any]:
    """The 8B products at their size in a step, by cuBLAS."""
    found: dict[str, Any] = {"rows": rows}
    for name, n, k in [("qkv", 6144, 4096), ("o", 4096, 4096), ("gate_up", 28672, 4096),
                       ("down", 4096, 14336)]:  # fmt: skip
        weights = torch.randn(2, n, k, device="cuda", dtype=torch.bfloat16).mul_(k**-0.5)
        x = torch.randn(rows, k, device="cuda", dtype=torch.bfloat16)
        out = torch.empty(rows, n, device="cuda", dtype=torch.bfloat16)
        us = microseconds(functools.partial(_multiply, x, weights, out), REPEATS)
        found[name] = {"us": us, "tflops": 2 * rows * n * k / us / 1e6}
    return found


def gated(name: str, rows: int) -> dict[str, Any]:
    """The gate-up product and its activation: in one kernel, or cuBLAS and then `gate`."""
    n, k = GATED[name]
    weights = torch.randn(3, 2 * n, k, device="cuda", dtype=torch.bfloat16).mul_(k**-0.5)
    x = torch.randn(rows, k, device="cuda", dtype=torch.bfloat16)
    out = x.new_empty(rows, n)
    launches: dict[str, Callable[[int], object]] = {
        "one": lambda i: hopper_gated_linear(x, weights[i % 3], out),
        "cublas_then_silu": lambda i: gate(F.linear(x, weights[i % 3]), Act.SILU),
    }
    chosen = supports_hopper_gated(rows, 2 * n, k, multiprocessors(x.device))
    found: dict[str, Any] = {"shape": name, "rows": rows, "chosen": chosen}
    for label, launch in [*launches.items(), *launches.items()]:  # the faster of two, in turns
        us = microseconds(launch, REPEATS)
        found[label] = min(us, found.get(label, us))
    return found


def _multiply(x: Tensor, weights: Tensor, out: Tensor, i: int) -> None:
    torch.mm(x, weights[i % len(weights)].t(), out=out)


def elementwise(rows: int) -> dict[str, Any]:
    """The 8B kernels between the products; inputs rotate, so that none stands in L2."""
    bf16: dict[str, Any] = {"device": "cuda", "dtype": torch.bfloat16}
    x = torch.randn(8, rows, 6144, **bf16)
    gate_up = torch.randn(3, rows, 28672, **bf16)
    residual, weight = torch.zeros(rows, 4096, **bf16), torch.ones(4096, **bf16)
    case = inputs(SHAPES["8b"], Chunks(1, rows, 0))
    angles = torch.rand(rows, 2, 64, device="cuda")
    placement = RowPlacement(case.slots, case.positions, case.table, angles)
    into, norm = (case.cache, placement, AttentionSpec(32, 8, 128, 1.0)), Norm(weight, 1e-5)
    normed = x[:, :, :4096].contiguous()
    launches: dict[str, tuple[int, Callable[[int], object]]] = {
        "add_rms_norm": (4 * 4096, lambda i: add_norm(normed[i % 8], residual, norm)),
        "rope_and_write": (2 * 6144, lambda i: rope_and_write(x[i % 8], *into)),
        "silu_mul": (3 * 14336, lambda i: gate(gate_up[i % 3], Act.SILU)),
    }
    found: dict[str, Any] = {"rows": rows}
    for name, (numbers, launch) in launches.items():
        us = microseconds(launch, REPEATS)
        found[name] = {"us": us, "tb_per_s": 2 * rows * numbers / us / 1e6}
    return found


def host_microseconds() -> float:
    """Python's share of a launch outside a graph."""
    x = inputs(SHAPES["8b"], Chunks(1, 24, 40))
    prefill_attention(*x)
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(200):
        prefill_attention(*x)
    return (time.perf_counter() - begin) / 200 * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--commit", help="of the tree, where it is not a git checkout")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    git = ["git", "describe", "--always", "--dirty"]
    found: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "date": datetime.date.today().isoformat(),
        "commit": arguments.commit or subprocess.check_output(git, text=True).strip(),
        "host_us_a_launch": host_microseconds(),
    }
    parts: dict[str, list[Callable[[], dict[str, Any]]]] = {
        "attention": [functools.partial(attention, n, case) for n in SHAPES for case in CASES],
        "yardsticks": [
            functools.partial(yardstick, name, backend, 4096)
            for name in SHAPES
            for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION)
        ],
        "elementwise": [functools.partial(elementwise, rows) for rows in (1024, 4096)],
        "gated": [
            functools.partial(gated, name, rows)
            for name in GATED
            for rows in (256, 512, 1024, 2048, 4096)
        ],
        "products": [functools.partial(products, rows) for rows in (4096, 512, 1024, 2048)],
    }
    for part, jobs in parts.items():
        found[part] = []
        for job in jobs:
            found[part].append(job())
            print(part, json.dumps(_rounded(found[part][-1])), flush=True)
    arguments.out.write_text(json.dumps(_rounded(found), indent=1) + "\n")


def _rounded(x: Any) -> Any:
    if isinstance(x, dict):
        return {key: _rounded(value) for key, value in x.items()}
    if isinstance(x, list):
        return [_rounded(value) for value in x]
    return float(f"{x:.3g}") if isinstance(x, float) else x


if __name__ == "__main__":
    main()
