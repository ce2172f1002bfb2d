"""Kernels that go over rows: norms, rotation, activation, and what chooses tokens."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from benchmarks.configs import Shape
from benchmarks.kernels.lines.line import EPS, Launch, Line, dependent, randn

from penstock_kernels.gpu.ranks.rank_choice import EMPTY, Votes, argmax_over_ranks
from penstock_kernels.gpu.ranks.rank_sum import TURNS
from penstock_kernels.gpu.sampling.argmax import argmax
from penstock_kernels.gpu.step.activation import gate
from penstock_kernels.gpu.step.mean_squares import mean_squares
from penstock_kernels.gpu.step.norm import add_norm, normalise
from penstock_kernels.gpu.step.rope import RowPlacement, rope_and_write
from penstock_kernels.ops import Act, AttentionSpec, Norm

ROWS = (64, 4096)  # of a decode step and of a step full of prompts
PARTS = 2  # of a split product
PAGE = 64


def lines(shape: Shape) -> Iterator[Line]:
    """All of them for a model."""
    d, wide, norm = shape.hidden, shape.intermediate, ("norm._norm_kernel",)
    width = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    for rows in ROWS:
        small, what = rows < 1024, f"{rows} x {d}"
        yield Line(
            name="norm", what=what, kernels=norm, moved=4 * rows * d, small=small,
            prepare=partial(_norm, rows, d),
        )  # fmt: skip
        yield Line(
            name="residual and norm", what=what, kernels=norm, moved=8 * rows * d, small=small,
            prepare=partial(_add_norm, rows, d),
        )  # fmt: skip
        yield Line(
            name="rotation and KV write", what=f"{rows} x {width}", kernels=("rope._rope_kernel",),
            moved=rows * (4 * width + 4 * shape.head_dim), small=small,
            prepare=partial(_rope, rows, shape),
        )  # fmt: skip
        read = (shape.heads + shape.kv_heads) * shape.head_dim
        yield Line(
            name="means for norms of all heads", what=f"{rows} x {read}", moved=2 * rows * read,
            kernels=("mean_squares._mean_squares_kernel",), small=small,
            prepare=partial(_means, rows, shape),
        )  # fmt: skip
        yield Line(
            name="SiLU and product", what=f"{rows} x {wide}", moved=6 * rows * wide, small=small,
            kernels=("activation._kernel",), prepare=partial(_silu, rows, wide),
        )  # fmt: skip
    yield Line(
        name="partial sums, residual and norm", what=f"{PARTS} x {ROWS[0]} x {d}", kernels=norm,
        moved=ROWS[0] * d * (4 * PARTS + 6), small=True,
        prepare=partial(_add_parts, ROWS[0], d),
    )  # fmt: skip
    for rows in (8, 64, 256):
        yield Line(
            name="greedy choice", what=f"{rows} x {shape.vocab}", moved=4 * rows * shape.vocab,
            kernels=("argmax._piece_kernel", "argmax._row_kernel"),
            prepare=partial(_argmax, rows, shape.vocab),
        )  # fmt: skip
    yield Line(
        name="greedy choice, as one of ranks", what=f"64 x {shape.vocab}", moved=256 * shape.vocab,
        kernels=("argmax._piece_kernel", "rank_choice._vote_kernel"),
        prepare=partial(_vote, 64, shape.vocab),
    )  # fmt: skip


def _norm(rows: int, d: int, device: torch.device, copies: int) -> Launch:
    x, gain = randn(device, copies, rows, d), randn(device, d)
    norm, how = Norm(gain, EPS), dependent(device)
    return lambda i: normalise(x[i % copies], norm, **how)


def _add_norm(rows: int, d: int, device: torch.device, copies: int) -> Launch:
    x, gain, residual = randn(device, copies, rows, d), randn(device, d), randn(device, rows, d)
    residual = residual.expand(copies, rows, d).contiguous()
    norm, how = Norm(gain, EPS), dependent(device)
    return lambda i: add_norm(x[i % copies], residual[i % copies], norm, **how)


def _add_parts(rows: int, d: int, device: torch.device, copies: int) -> Launch:
    x, how = torch.randn(copies, PARTS, rows, d, device=device), dependent(device)
    residual, gain = randn(device, copies, rows, d), randn(device, d)
    norm = Norm(gain, EPS)
    return lambda i: add_norm(x[i % copies], residual[i % copies], norm, **how)


def _means(rows: int, shape: Shape, device: torch.device, copies: int) -> Launch:
    heads, kv_heads, d = shape.heads, shape.kv_heads, shape.head_dim
    qkv, how = randn(device, copies, rows, (heads + 2 * kv_heads) * d), dependent(device)
    spec = AttentionSpec(heads, kv_heads, d, 1.0)
    return lambda i: mean_squares(qkv[i % copies], spec, **how)


def _rope(rows: int, shape: Shape, device: torch.device, copies: int) -> Launch:
    """A prompt, or a row of each of many sequences: the same for this kernel."""
    heads, kv_heads, d = shape.heads, shape.kv_heads, shape.head_dim
    qkv, how = randn(device, copies, rows, (heads + 2 * kv_heads) * d), dependent(device)
    pages = rows // PAGE
    cache = randn(device, copies, 2, kv_heads, pages, PAGE, d)
    table = torch.randperm(pages, device=device).int().view(1, pages)
    slots = torch.zeros(rows, device=device, dtype=torch.int64)
    positions = torch.arange(rows, device=device)
    angles = torch.rand(rows, 2, d // 2, device=device)
    placement, spec = (
        RowPlacement(slots, positions, table, angles),
        AttentionSpec(heads, kv_heads, d, 1.0),
    )
    return lambda i: rope_and_write(qkv[i % copies], cache[i % copies], placement, spec, **how)


def _silu(rows: int, wide: int, device: torch.device, copies: int) -> Launch:
    gate_up, how = randn(device, copies, rows, 2 * wide), dependent(device)
    return lambda i: gate(gate_up[i % copies], Act.SILU, **how)


def _argmax(rows: int, vocab: int, device: torch.device, copies: int) -> Launch:
    logits, how = randn(device, copies, rows, vocab), dependent(device)
    kept, token = torch.empty_like(logits), torch.zeros(rows, device=device, dtype=torch.int64)
    return lambda i: argmax(logits[i % copies], kept[i % copies], token, **how)


def _vote(rows: int, vocab: int, device: torch.device, copies: int) -> Launch:
    """What it costs beside the waiting, which more ranks are needed for."""
    logits, how = randn(device, copies, rows, vocab), dependent(device)
    kept, token = torch.empty_like(logits), torch.zeros(rows, device=device, dtype=torch.int64)
    every = torch.full((TURNS, 1, rows), EMPTY, device=device, dtype=torch.int64)
    votes = Votes(0, (every,), torch.zeros(rows, device=device, dtype=torch.int32))
    return lambda i: argmax_over_ranks(logits[i % copies], kept[i % copies], token, 0, votes, **how)
