"""Attention of decode rows and of prompts, and what merges partial results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from benchmarks.configs import Shape
from benchmarks.kernels.decode import Bench, Case
from benchmarks.kernels.lines.line import Launch, Line, dependent, randn
from benchmarks.kernels.prefill import Chunks, inputs

from penstock_kernels.gpu.attention import decode_merge, hopper_merge
from penstock_kernels.gpu.attention.decode_attention import DecodeAttention
from penstock_kernels.gpu.attention.hopper_decode import HopperDecode
from penstock_kernels.gpu.attention.hopper_prefill import hopper_prefill
from penstock_kernels.gpu.attention.invariant_attention import InvariantAttention
from penstock_kernels.gpu.attention.prefill_attention import triton_prefill
from penstock_kernels.ops import AttentionSpec

PAGE = 64
OWN = [Case(rows, 576, 0) for rows in (1, 8, 64, 256)] + [Case(16, 7000, 0)]
SHARED = [Case(64, 1056, 960), Case(32, 2064, 1984)]
PARTS = (64, 5), (8, 33)  # rows, and partial results of each
PROMPTS = [Chunks(1, 4096, 0), Chunks(8, 512, 0), Chunks(1, 2048, 5000)]
PROMPTS += [Chunks(64, 24, 1000, True)]
MERGES = {"": hopper_merge.merge, ", portable": decode_merge.merge}
PREFILLS: dict[str, Callable[..., None]] = {"": hopper_prefill, ", portable": triton_prefill}


def lines(shape: Shape) -> Iterator[Line]:
    """All of them for a model."""
    for case in OWN + SHARED:
        yield _decode_line(
            case, shape, "", _decode, ("hopper_decode._kernel", "hopper_merge._kernel")
        )
    portable = ("decode_attention._decode_kernel", "decode_merge._merge_kernel")
    for case in (Case(8, 576, 0), Case(64, 576, 0), SHARED[0]):
        yield _decode_line(case, shape, ", portable", _portable, portable)
    fixed = ("invariant_attention._attend_kernel", "invariant_attention._merge_kernel")
    for case in (Case(8, 576, 0), Case(16, 7000, 0)):
        yield _decode_line(case, shape, ", deterministic", _deterministic, fixed)
    kernels = {"": "hopper_merge._kernel", ", portable": "decode_merge._merge_kernel"}
    for rows, parts in PARTS:
        for way, kernel in kernels.items():
            each = 4 * parts * (shape.head_dim + 1) + 2 * shape.head_dim  # bytes of a row and head
            yield Line(
                name=f"merge of partial results{way}", what=f"{rows} rows of {parts}",
                kernels=(kernel,), moved=rows * shape.heads * each, small=True,
                prepare=partial(_merge, rows, parts, shape, way),
            )  # fmt: skip
    for chunks in PROMPTS:
        yield _prefill_line(chunks, shape, "", "hopper_prefill._kernel")
    yield _prefill_line(PROMPTS[0], shape, ", portable", "prefill_attention._prefill_kernel")


def _decode_line(
    case: Case,
    shape: Shape,
    way: str,
    prepare: Callable[[Case, Shape, torch.device, int], Launch],
    kernels: tuple[str, ...],
) -> Line:
    """The merge that follows is of the same launch; its partial results are not counted."""
    read = case.bytes_read(PAGE, shape.kv_heads * shape.head_dim * 4)
    shared = f", {case.shared} of them shared" if case.shared else ""
    return Line(
        name=f"decode attention{way}", what=f"{case.rows} x {case.context} tokens{shared}",
        kernels=kernels, moved=read + 4 * case.rows * shape.heads * shape.head_dim,
        prepare=partial(prepare, case, shape),
    )  # fmt: skip


def _bench(case: Case, shape: Shape, device: torch.device, copies: int) -> Bench:
    sizes = (shape.heads, shape.kv_heads, shape.head_dim)
    return Bench(case, *sizes, PAGE, copies, str(device))


def _decode(case: Case, shape: Shape, device: torch.device, copies: int) -> Launch:
    bench = _bench(case, shape, device, copies)
    sizes: tuple[Any, ...] = (case.rows, shape.heads, shape.kv_heads, shape.head_dim, device)
    attend = HopperDecode(*sizes, **dependent(device))
    plan = attend.plan(bench.positions, bench.slots, None, bench.sharing(attend.tile_rows))
    scale = shape.head_dim**-0.5
    return lambda i: attend(
        bench.query, bench.caches[i % copies], bench.table, bench.out, plan, scale
    )


def _portable(case: Case, shape: Shape, device: torch.device, copies: int) -> Launch:
    bench = _bench(case, shape, device, copies)
    sizes: tuple[Any, ...] = (case.rows, shape.heads, shape.kv_heads, shape.head_dim, device)
    attend = DecodeAttention(*sizes, **dependent(device))
    plan = attend.plan(bench.positions, None, bench.sharing(attend.tile_rows))
    scale = shape.head_dim**-0.5
    return lambda i: attend(
        bench.query, bench.caches[i % copies], bench.table, bench.slots, bench.positions,
        bench.out, plan, scale,
    )  # fmt: skip


def _deterministic(case: Case, shape: Shape, device: torch.device, copies: int) -> Launch:
    bench = _bench(case, shape, device, copies)
    width = shape.head_dim
    spec = AttentionSpec(shape.heads, shape.kv_heads, width, width**-0.5)
    attend = InvariantAttention(case.rows, spec.shape, device, torch.bfloat16)
    pieces, programs = attend.singles(case.rows, None), attend.programs(case.rows)
    return lambda i: attend(
        bench.query, bench.caches[i % copies], bench.table, bench.slots, bench.positions, pieces,
        bench.out, spec, programs,
    )  # fmt: skip


def _merge(
    rows: int, parts: int, shape: Shape, way: str, device: torch.device, copies: int
) -> Launch:
    heads, d, how = shape.heads, shape.head_dim, dependent(device)
    partials = torch.randn(rows * parts, heads, d, device=device)
    lse, out = torch.randn(rows * parts, heads, device=device), randn(device, rows, heads * d)
    count = torch.full((rows,), parts, device=device, dtype=torch.int32)
    first = torch.arange(0, rows * parts, parts, device=device).int()
    spans = torch.stack((first, count, count), 1)
    return lambda _: MERGES[way](partials, lse, spans, out, rows, d, **how)


def _prefill_line(case: Chunks, shape: Shape, way: str, kernel: str) -> Line:
    """Operations are those that a causal mask leaves; a prefix that is shared is read once."""
    width, rows = shape.heads * shape.head_dim, case.chunks * case.tokens
    contexts = (1 if case.shared else case.chunks) * case.context
    pairs = case.tokens * case.context + case.tokens * (case.tokens + 1) // 2
    shared = ", shared" if case.shared else ""
    return Line(
        name=f"prefill attention{way}",
        what=f"{case.chunks} x {case.tokens} behind {case.context}{shared}", kernels=(kernel,),
        moved=4 * rows * width + 4 * (contexts + rows) * shape.kv_heads * shape.head_dim,
        flops=4 * width * case.chunks * pairs, prepare=partial(_prefill, case, shape, way),
    )  # fmt: skip


def _prefill(case: Chunks, shape: Shape, way: str, device: torch.device, copies: int) -> Launch:
    sizes = (shape.heads, shape.kv_heads, shape.head_dim)
    every = [inputs(sizes, case, str(device)) for _ in range(copies)]
    return lambda i: PREFILLS[way](*every[i % copies])
