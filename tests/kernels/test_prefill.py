"""Triton's prefill attention against the formula: every head layout, piece and boundary.

Without a GPU the kernel runs in Triton's interpreter, in float32 and float16: it cannot multiply
bfloat16 matrices. The tests marked `gpu` run the same cases compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from triton import knobs

from penstock_kernels.gpu.attention.prefill_attention import (
    prefill_attention,
    prefill_tiles,
    query_tile,
)
from support.paged import PagedCase, assert_near, naive_attention, paged_case, sinks_of
from support.sampled import crossed

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning:triton")
SCALE = 0.21
FP8 = [torch.float8_e4m3fn, torch.float8_e5m2]
Where = tuple[str, torch.dtype]


@pytest.fixture(
    params=[
        pytest.param(("cpu", torch.float32), id="interpreter"),
        pytest.param(("cpu", torch.float16), id="interpreter_half"),
        pytest.param(("cuda", torch.float32), id="float32", marks=pytest.mark.gpu),
        pytest.param(("cuda", torch.bfloat16), id="bfloat16", marks=pytest.mark.gpu),
    ]
)
def where(request: pytest.FixtureRequest) -> Iterator[Where]:
    chosen: Where = request.param
    if chosen[0] == "cpu" and not knobs.runtime.interpret:
        pytest.skip("with a GPU the kernels are compiled: run -m gpu")
    with np.errstate(invalid="ignore"):  # rows of padding are 0 / 0 and never stored
        yield chosen


class Layout(NamedTuple):
    heads: int
    kv_heads: int
    head_dim: int
    page: int


LAYOUTS = [
    Layout(2, 2, 64, 64),
    Layout(3, 1, 80, 16),
    Layout(8, 2, 128, 64),
    Layout(7, 1, 64, 8),
    Layout(8, 1, 24, 128),
    Layout(8, 2, 128, 16),
    Layout(4, 1, 64, 32),
]


def run(
    case: PagedCase,
    window: int | None,
    unused: int = 0,
    soft_cap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """With `unused` pieces of no rows behind the used ones, as a captured launch has them."""
    count, heads, width = case.query.shape
    kv_heads, device = case.cache.shape[1], case.query.device
    qkv = torch.randn(count, heads + 2 * kv_heads, width, device=device).to(case.query.dtype)
    qkv[:, :heads] = case.query  # queries stand among keys and values, as the decoder has them
    out = torch.full((count, heads * width), torch.nan, device=device, dtype=case.query.dtype)
    pieces = prefill_tiles(case.queries, case.context, 0, query_tile(heads, kv_heads))
    pieces = np.concatenate((pieces, np.zeros((unused, 2), np.int32)))
    prefill_attention(
        qkv[:, :heads], case.cache, case.table, case.slot.int(), case.position,
        torch.from_numpy(pieces).to(device), out, SCALE, window, soft_cap, case.stored,
        sinks,
    )  # fmt: skip
    return out


@pytest.mark.parametrize(
    ("layout", "window"),
    crossed(
        LAYOUTS,
        [None, 1, 33, 100],
        sample=lambda layout, window: window in (None, 33) or layout in LAYOUTS[1:3],
    ),
    ids=str,
)
def test_chunks(where: Where, layout: Layout, window: int | None) -> None:
    spans = [(5, 1), (70, 17), (0, 130), (64, 64), (127, 2), (0, 1)]
    case = paged_case(spans, *layout).to(*where)
    assert_near(run(case, window), naive_attention(case, SCALE, window))


@pytest.mark.parametrize("window", [None, 33])
@pytest.mark.parametrize("soft_cap", [0.5, 50.0])
@pytest.mark.parametrize("layout", [Layout(8, 2, 128, 64), Layout(8, 4, 256, 64)], ids=str)
def test_soft_caps(where: Where, layout: Layout, window: int | None, soft_cap: float) -> None:
    case = paged_case([(5, 1), (70, 17), (0, 70)], *layout).to(*where)
    found = run(case, window, soft_cap=soft_cap)
    assert_near(found, naive_attention(case, SCALE, window, soft_cap))


@pytest.mark.parametrize("window", [None, 33])
@pytest.mark.parametrize("layout", [Layout(8, 1, 64, 64), Layout(6, 2, 24, 8)], ids=str)
def test_sinks(where: Where, layout: Layout, window: int | None) -> None:
    case = paged_case([(5, 1), (70, 17), (0, 70)], *layout).to(*where)
    sinks = sinks_of(layout.heads, where[0])
    assert_near(run(case, window, sinks=sinks), naive_attention(case, SCALE, window, None, sinks))


@pytest.mark.parametrize(
    ("stored", "window", "soft_cap"),
    crossed(
        FP8,
        [None, 33],
        [None, 0.5],
        sample=lambda stored, window, cap: (window is None) == (cap is None),
    ),
    ids=str,
)
@pytest.mark.parametrize("layout", [LAYOUTS[1], LAYOUTS[2], LAYOUTS[6]], ids=str)
def test_a_cache_in_fp8(
    where: Where, layout: Layout, stored: torch.dtype, window: int | None, soft_cap: float | None
) -> None:
    spans = [(5, 1), (70, 17), (0, 70), (127, 2), (0, 1)]
    case = paged_case(spans, *layout).to(*where).in_fp8(stored)
    found = run(case, window, soft_cap=soft_cap)
    assert_near(found, naive_attention(case, SCALE, window, soft_cap))


def test_every_end_of_a_context(where: Where) -> None:
    """Lengths around the boundaries of key tiles and pages."""
    spans = [(context, 1 + context % 3) for context in (*range(29, 35), *range(60, 67), 126, 127)]
    case = paged_case(spans, 4, 1, 16, 64).to(*where)
    assert_near(run(case, None), naive_attention(case, SCALE, None))


def test_what_stands_behind_a_context_is_not_read(where: Where) -> None:
    """Blocks that were freed keep their numbers: not even a NaN among them may matter."""
    case = paged_case([(0, 70), (70, 20)], 2, 1, 64, 64).to(*where)
    expected = naive_attention(case, SCALE, None)
    for sequence, length in enumerate((70, 90)):
        case.cache[:, :, int(case.table[sequence, length // 64]), length % 64 :] = torch.nan
    assert_near(run(case, None), expected)


def test_pieces_of_no_rows_do_nothing(where: Where) -> None:
    case = paged_case([(3, 40), (0, 9)], 4, 2, 24, 8).to(*where)
    torch.manual_seed(0)
    assert torch.equal(run(case, None, unused=5), run(case, None))


@pytest.mark.parametrize("heads", [1, 3, 7, 200])
def test_pieces_cover_every_row_once(heads: int) -> None:
    queries, context = np.array([300, 1, 128, 129]), np.array([0, 7, 500, 2])
    tile = query_tile(heads, 1)
    assert tile == max(1, 128 // heads)
    chunk_of = np.repeat(np.arange(4), queries)
    pieces = prefill_tiles(queries, context, 5, tile)
    assert pieces.dtype == np.int32 and pieces[:, 1].min() >= 1 and pieces[:, 1].max() <= tile
    covered = [np.arange(first, first + count) for first, count in pieces]
    assert np.array_equal(np.sort(np.concatenate(covered)), np.arange(5, 5 + queries.sum()))
    assert all(len(set(chunk_of[rows - 5])) == 1 for rows in covered)


def test_pieces_with_the_longest_context_come_first() -> None:
    pieces = prefill_tiles(np.array([40, 40]), np.array([0, 1000]), 0, 32)
    assert pieces.tolist() == [[72, 8], [40, 32], [32, 8], [0, 32]]
