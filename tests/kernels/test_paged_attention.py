"""The torch reference of paged attention against the formula, row by row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_kernels.reference.paged_attention import PIECE, PagedBatch, paged_attention
from support.paged import PagedCase, assert_near, naive_attention, paged_case, sinks_of

SCALE = 0.31


def attend(
    case: PagedCase,
    window: int | None,
    soft_cap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    batch = PagedBatch(case.table, case.context, case.queries, case.cache.shape[3])
    return paged_attention(
        case.query, case.cache, batch, SCALE, window, soft_cap, case.stored, sinks
    )


@settings(max_examples=60, deadline=None)
@given(
    spans=st.lists(
        st.tuples(st.integers(0, 90), st.one_of(st.just(1), st.integers(1, 5), st.integers(1, 40))),
        min_size=1,
        max_size=7,
    ),
    share=st.sampled_from([1, 2, 4]),
    kv_heads=st.sampled_from([1, 2]),
    page=st.sampled_from([1, 3, 8, 16]),
    window=st.none() | st.integers(1, 60),
    soft_cap=st.none() | st.sampled_from([0.5, 20.0]),
    has_sinks=st.booleans(),
    seed=st.integers(0, 3),
)
def test_any_mixture(
    spans: list[tuple[int, int]],
    share: int,
    kv_heads: int,
    page: int,
    window: int | None,
    soft_cap: float | None,
    has_sinks: bool,
    seed: int,
) -> None:
    case = paged_case(spans, share * kv_heads, kv_heads, 8, page, seed)
    sinks = sinks_of(share * kv_heads) if has_sinks else None
    found = attend(case, window, soft_cap, sinks)
    assert_near(found, naive_attention(case, SCALE, window, soft_cap, sinks))


MIXTURES = {
    "one_long_chunk": [(0, PIECE + 130)],
    "long_chunk_after_a_prefix": [(37, PIECE + 1)],
    "exactly_one_piece": [(0, PIECE), (3, 1)],
    "decodes_of_very_different_length": [(0, 1), (700, 1), (2, 1), (5, 1), (699, 1)],
    "decodes_between_chunks": [(9, 1), (0, 65), (300, 1), (12, 64), (0, 1), (40, 2)],
    "equal_decodes": [(31, 1)] * 9,
}


@pytest.mark.parametrize("window", [None, 1, 50, PIECE + 5])
@pytest.mark.parametrize("name", MIXTURES)
def test_shapes_that_take_other_paths(name: str, window: int | None) -> None:
    case = paged_case(MIXTURES[name], heads=2, kv_heads=1, head_dim=8)
    assert_near(attend(case, window), naive_attention(case, SCALE, window))


def test_layers_share_a_batch() -> None:
    """Windows alternate between the layers of a step: cached masks must not be mixed up."""
    case = paged_case([(20, 1), (0, 33), (50, 1)])
    batch = PagedBatch(case.table, case.context, case.queries, 16)
    for window in (None, 7, None, 12, 7):
        out = paged_attention(case.query, case.cache, batch, SCALE, window)
        assert_near(out, naive_attention(case, SCALE, window))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    case = paged_case([(70, 1), (3, 1), (10, 20), (0, 40)]).to("cpu", dtype)
    out = attend(case, None)
    assert out.dtype == dtype
    assert_near(out, naive_attention(case, SCALE, None))


@pytest.mark.parametrize("soft_cap", [None, 0.5])
@pytest.mark.parametrize("stored", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cache_in_fp8(dtype: torch.dtype, stored: torch.dtype, soft_cap: float | None) -> None:
    case = paged_case([(70, 1), (3, 1), (10, 20), (0, 40)]).to("cpu", dtype).in_fp8(stored)
    out = attend(case, 17, soft_cap)
    assert out.dtype == dtype
    assert_near(out, naive_attention(case, SCALE, 17, soft_cap))


def test_rows_do_not_depend_on_their_batch() -> None:
    """A decode row gives the same numbers alone and among others."""
    spans = [(40, 1), (45, 1), (33, 1)]
    case = paged_case(spans)
    together = attend(case, None)
    for index, (context, _) in enumerate(spans):
        batch = PagedBatch(
            case.table[index : index + 1], case.context[index : index + 1], case.queries[:1], 16
        )
        query = case.query[index : index + 1]
        alone = paged_attention(query, case.cache, batch, SCALE, None)
        torch.testing.assert_close(
            alone[0], together[index], atol=1e-6, rtol=1e-6, msg=str(context)
        )
