"""Sequences in a paged cache, and attention over them row by row: what kernels must equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penstock_kernels.fp8 import saturated
from penstock_kernels.ops import AS_MODEL, CacheSpec


@dataclass(frozen=True)
class PagedCase:
    """Rows of a step, sequence after sequence, over a cache whose blocks are scattered.

    Every block beyond the contexts holds numbers too: whoever reads one gets a wrong answer.
    """

    query: Tensor  # [n, heads, d]
    cache: Tensor  # [2, kv_heads, blocks, page, d]
    table: Tensor  # [sequences, width] int32: also the table of all slots
    slot: Tensor  # [n] int64: sequence of each row
    position: Tensor  # [n] int64
    context: NDArray[np.int64]  # tokens before the first row
    queries: NDArray[np.int64]  # rows of each sequence
    stored: CacheSpec = AS_MODEL

    def to(self, device: str, dtype: torch.dtype) -> PagedCase:
        """The same numbers on another device, rounded to a dtype."""
        return PagedCase(
            self.query.to(device, dtype),
            self.cache.to(device, dtype),
            self.table.to(device),
            self.slot.to(device),
            self.position.to(device),
            self.context,
            self.queries,
        )

    def in_fp8(self, dtype: torch.dtype) -> PagedCase:
        """Its cache in FP8, with scales that matter."""
        stored = CacheSpec(dtype, 0.3, 0.02)
        by = torch.tensor(stored.inverses, device=self.cache.device).view(2, 1, 1, 1, 1)
        return replace(self, cache=saturated(self.cache.float() * by, dtype), stored=stored)


def paged_case(
    spans: Sequence[tuple[int, int]],
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 16,
    page: int = 16,
    seed: int = 0,
) -> PagedCase:
    """spans: (context, queries) of each sequence. Random float32 numbers of unit variance."""
    generator = torch.Generator().manual_seed(seed)
    context = np.array([span[0] for span in spans], np.int64)
    queries = np.array([span[1] for span in spans], np.int64)
    width = -(-int((context + queries).max()) // page)
    blocks = 1 + len(spans) * width
    order = torch.randperm(blocks - 1, generator=generator).add_(1)
    rows = [np.arange(first, first + count) for first, count in spans]
    return PagedCase(
        query=torch.randn(int(queries.sum()), heads, head_dim, generator=generator),
        cache=torch.randn(2, kv_heads, blocks, page, head_dim, generator=generator),
        table=order.view(len(spans), width).to(torch.int32),
        slot=torch.from_numpy(np.repeat(np.arange(len(spans)), queries)),
        position=torch.from_numpy(np.concatenate(rows)),
        context=context,
        queries=queries,
    )


def sinks_of(heads: int, device: torch.device | str = "cpu") -> Tensor:
    """One that hardly counts, one that takes nearly all, and others between: [heads] float32."""
    return torch.linspace(-12.0, 9.0, heads).to(device)


def naive_attention(
    case: PagedCase,
    scale: float,
    window: int | None,
    soft_cap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """[n, heads * d] float64 on the CPU, by the formula, one row and one head at a time."""
    query, cache, table = case.query.double().cpu(), case.cache.double().cpu(), case.table.cpu()
    count, heads, width = query.shape
    page, share = cache.shape[3], heads // cache.shape[1]
    out = torch.empty(count, heads, width, dtype=torch.float64)
    for row, (slot, last) in enumerate(
        zip(case.slot.tolist(), case.position.tolist(), strict=True)
    ):
        first = 0 if window is None else max(0, last + 1 - window)
        token = torch.arange(first, last + 1)
        block = table[slot].long()[token // page]
        key, value = cache[:, :, block, token % page]  # [kv_heads, tokens, d]
        key, value = key * case.stored.key_scale, value * case.stored.value_scale
        for head in range(heads):
            scores = key[head // share] @ query[row, head] * scale
            if soft_cap is not None:
                scores = soft_cap * (scores / soft_cap).tanh()
            weight = scores.softmax(0)
            if sinks is not None:
                weight = torch.cat((scores, sinks[head].double().cpu()[None])).softmax(0)[:-1]
            out[row, head] = weight @ value[head // share]
    return out.view(count, heads * width)


def difference(x: Tensor, reference: Tensor) -> float:
    """1 - 2 xy / (xx + yy) in float64: free of scale, 0 where equal."""
    a, b = x.double().cpu().flatten(), reference.double().cpu().flatten()
    return float(1 - 2 * (a @ b) / (a @ a + b @ b))


def assert_near(x: Tensor, reference: Tensor) -> None:
    """float32: each element within 5e-5; half precision: the whole within rounding."""
    assert x.shape == reference.shape
    assert bool(x.isfinite().all()), "not finite"
    if x.dtype == torch.float32:
        torch.testing.assert_close(x.double().cpu(), reference.double().cpu(), atol=5e-5, rtol=1e-4)
    else:
        # bfloat16 rounds by up to 2^-9 of a number: a few roundings give about 1e-5.
        found = difference(x, reference)
        assert found < 5e-5, f"difference {found:.2e}"
