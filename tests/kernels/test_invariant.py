"""Kernels whose rows do not depend on one another: bit for bit the same in any company."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from penstock_kernels.experts import Experts
from penstock_kernels.ops import Act, Activation, AttentionSpec
from penstock_kernels.reference.device import linear
from penstock_kernels.weight import Layout, Weight
from support.ordered_dot import in_order
from support.paged import PagedCase, assert_near, naive_attention, paged_case
from support.stacks import on, stack_of
from support.weights import weight_of

pytest.importorskip("triton")

from triton import knobs

from penstock_kernels.gpu.attention.invariant_attention import (
    BOUNDS,
    InvariantAttention,
)
from penstock_kernels.gpu.invariant_device import EXPERT_ROWS
from penstock_kernels.gpu.products import invariant, invariant_tiles
from penstock_kernels.gpu.products.experts import mix
from penstock_kernels.gpu.products.invariant_linear import Tile
from penstock_kernels.gpu.products.invariant_tiles import tile_of
from penstock_kernels.gpu.products.problem import Epilogue
from penstock_kernels.gpu.products.table import FASTEST, ProductTable

pytestmark = pytest.mark.filterwarnings(
    "ignore::RuntimeWarning:triton", "ignore::DeprecationWarning"
)
SCALE = 0.3
SHORT = tuple(range(0, 512, 64))  # parts of a tile each
FP8 = torch.float8_e4m3fn


class Place(NamedTuple):
    device: str
    dtype: torch.dtype


@pytest.fixture(
    params=[
        pytest.param(Place("cpu", torch.float32), id="interpreter"),
        pytest.param(Place("cpu", torch.float16), id="interpreter-float16", marks=pytest.mark.full),
        pytest.param(Place("cuda", torch.float32), id="float32", marks=pytest.mark.gpu),
        pytest.param(Place("cuda", torch.bfloat16), id="bfloat16", marks=pytest.mark.gpu),
    ]
)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    chosen: Place = request.param
    if chosen.device == "cpu":
        if not knobs.runtime.interpret:
            pytest.skip("with a GPU the kernels are compiled: run -m gpu")
        in_order(monkeypatch)
    torch.manual_seed(0)
    with np.errstate(invalid="ignore"):
        yield chosen


def spec_of(case: PagedCase, window: int | None, soft_cap: float | None = None) -> AttentionSpec:
    _, heads, width = case.query.shape
    return AttentionSpec(
        heads, case.cache.shape[1], width, SCALE, window, soft_cap=soft_cap, cache=case.stored
    )


def attended(
    case: PagedCase, spec: AttentionSpec, decoding: int = 0, chunk: int = 1 << 30
) -> Tensor:
    """Its first rows as rows that decode, the others in pieces of chunks of so many tokens."""
    count, heads, width = case.query.shape
    device, dtype = case.query.device, case.query.dtype
    attention = InvariantAttention(max(decoding, 1), spec.shape, device, dtype, SHORT)
    for memory in (attention._partial, attention._best, attention._total):
        memory.fill_(torch.nan)
    out = torch.full((count, heads * width), torch.nan, device=device, dtype=dtype)
    shared = (case.query, case.cache, case.table, case.slot, case.position)
    if decoding:
        programs = attention.programs(decoding)
        attention(*shared, attention.singles(decoding, None), out, spec, programs)
    size = min(attention.piece_rows, chunk)
    starts = np.cumsum(case.queries) - case.queries
    pieces = [
        (start + first, min(size, queries - first))
        for start, queries in zip(starts.tolist(), case.queries.tolist(), strict=True)
        for first in range(0, queries, size)
        if start >= decoding
    ]
    if pieces:
        tiles = torch.tensor(pieces, dtype=torch.int32, device=device)
        attention(*shared, tiles, out, spec)
    return out


def decoded(case: PagedCase) -> PagedCase:
    """The same rows, each a sequence of its own over the same blocks."""
    return replace(
        case, context=case.position.cpu().numpy(), queries=np.ones(len(case.query), np.int64)
    )


@pytest.mark.parametrize(
    ("shape", "window", "cap", "stored"),
    [
        ((4, 2, 24, 8), None, None, None),
        ((4, 1, 64, 64), 40, None, None),
        ((3, 1, 80, 16), None, 0.5, FP8),
    ],
    ids=str,
)
def test_attention_has_the_same_bits_however_it_is_cut(
    place: Place,
    shape: tuple[int, int, int, int],
    window: int | None,
    cap: float | None,
    stored: torch.dtype | None,
) -> None:
    """A chunk in pieces of any size, its tokens as rows that decode, few and many."""
    case = paged_case([(0, 70), (126, 3)], *shape).to(*place)
    case = case if stored is None else case.in_fp8(stored)
    spec = spec_of(case, window, cap)
    whole = attended(case, spec)
    assert_near(whole, naive_attention(case, SCALE, window, cap))
    assert torch.equal(attended(case, spec, chunk=7), whole)
    for rows in ([69, 72], [71], list(range(62, 73))):
        some = decoded(case)
        some = replace(
            some, query=some.query[rows], slot=some.slot[rows], position=some.position[rows],
            context=some.context[rows], queries=some.queries[rows],
        )  # fmt: skip
        assert torch.equal(attended(some, spec, decoding=len(rows)), whole[rows])


def test_few_rows_have_several_programs_each() -> None:
    """Else nothing above would merge parts in memory."""
    attention = InvariantAttention(64, (4, 2, 24), torch.device("cpu"), torch.float32, SHORT)
    assert [attention.programs(rows) for rows in (1, 11, 64, 300)] == [8, 8, 4, 1]


def test_parts_begin_where_tiles_of_keys_do() -> None:
    assert BOUNDS[0] == 0 and list(BOUNDS) == sorted(set(BOUNDS))
    assert not any(begin % 64 for begin in BOUNDS)


def test_rows_that_do_not_count_are_left_alone(place: Place) -> None:
    case = paged_case([(70, 1), (3, 1), (90, 1)], 4, 2, 24, 8).to(*place)
    attention = InvariantAttention(8, (4, 2, 24), case.query.device, place.dtype, SHORT)
    out = torch.full((3, 96), torch.nan, device=place.device, dtype=place.dtype)
    live = torch.tensor([2], dtype=torch.int32, device=place.device)
    attention(
        case.query, case.cache, case.table, case.slot, case.position, attention.singles(3, live),
        out, spec_of(case, None), attention.programs(3),
    )  # fmt: skip
    assert out[:2].isfinite().all() and out[2].isnan().all()


@functools.cache
def table_of(place: Place) -> ProductTable:
    return invariant.invariant_products(torch.device(place.device), place.dtype)


def multiplied(table: ProductTable, x: Tensor, weight: Weight, dependent: bool = False) -> Tensor:
    launch = table.find(Epilogue.NONE, Activation(x), weight)
    assert launch is not None
    found: Tensor = launch(Activation(x), weight, dependent)
    return found


@pytest.mark.parametrize(("n", "k", "biased"), [(40, 128, False), (100, 72, True), (1, 64, False)])
@pytest.mark.parametrize("layout", list(Layout))
def test_a_row_of_a_product_has_the_same_bits_among_others(
    place: Place, layout: Layout, n: int, k: int, biased: bool
) -> None:
    bias = torch.randn(n).to(*place) if biased else None
    weight = weight_of(layout, n, k, place.dtype, bias, place.device)
    table = table_of(place)
    x = torch.randn(70, k).to(*place)
    together = multiplied(table, x, weight)
    assert_near(together.float(), linear(x, weight).float()) if place.dtype == torch.float32 else (
        torch.testing.assert_close(together, linear(x, weight), rtol=3e-2, atol=3e-2)
    )
    for rows in ([69], [3, 68]):
        assert torch.equal(multiplied(table, x[rows], weight), together[rows])


def test_tiles_that_disagree_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that sum in another order are found out; the others stay."""
    in_order(monkeypatch)
    cpu, dtype, exact = torch.device("cpu"), torch.bfloat16, invariant_tiles.invariant_linear
    assert invariant_tiles.agreed_rules(cpu, dtype) == (
        invariant_tiles.HALF,
        invariant_tiles.GROUPED,
    )

    def backwards(x: Tensor, weight: Weight, tile: Tile) -> Tensor:
        if tile == invariant_tiles.LARGE:
            x, weight = x.flip(1), Weight(weight.data.flip(1))
        return exact(x, weight, tile)

    monkeypatch.setattr(invariant_tiles, "invariant_linear", backwards)
    rules, grouped = invariant_tiles.agreed_rules(cpu, dtype)
    assert tile_of(rules, 900, 64) == tile_of(grouped, 900, 64) == invariant_tiles.REFERENCE
    assert tile_of(rules, 1, 64) == invariant_tiles.FEW


def test_products_that_depend_on_a_place_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = invariant_tiles.invariant_linear

    def uneven(x: Tensor, weight: Weight, tile: Tile) -> Tensor:
        found = exact(x, weight, tile)
        found[5] += 1
        return found

    in_order(monkeypatch)
    monkeypatch.setattr(invariant_tiles, "invariant_linear", uneven)
    with pytest.raises(ValueError, match="`deterministic` cannot be kept with `device` cpu here"):
        invariant_tiles.agreed_rules(torch.device("cpu"), torch.bfloat16)


def test_every_product_has_a_tile() -> None:
    for rules in (invariant_tiles.HALF, invariant_tiles.GROUPED):
        for rows, outputs in itertools.product((1, 16, 17, 64, 65, 5000), (1, 4096, 200_000)):
            assert tile_of(rules, rows, outputs).k % 64 == 0


@pytest.mark.parametrize("kind", ["dense", "mxfp4"])
def test_a_row_of_experts_has_the_same_bits_among_others(place: Place, kind: str) -> None:
    up, down = (on(stack_of(kind, 5, n, k), *place) for n, k in ((2 * 64, 64), (64, 64)))
    experts = Experts(up, down, Act.SILU, 2, True)
    x, logits = torch.randn(90, 64).to(*place), torch.randn(90, 5).to(*place)
    together = mix(x, logits, experts, rows_of_tile=EXPERT_ROWS)
    for rows in ([0], [3, 89], list(range(0, 90, 2))):
        found = mix(x[rows], logits[rows], experts, rows_of_tile=EXPERT_ROWS)
        assert torch.equal(found, together[rows])


SHAPES = ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (128256, 4096))


@pytest.mark.gpu
@pytest.mark.parametrize("layout", list(Layout))
def test_products_of_8b_have_the_same_bits_for_1_to_300_rows(layout: Layout) -> None:
    table = invariant.invariant_products(torch.device("cuda"), torch.bfloat16)
    for n, k in SHAPES if layout is Layout.DENSE else SHAPES[1:2]:
        weight = weight_of(layout, n, k, torch.bfloat16, None, "cuda")
        x = torch.randn(300, k, device="cuda", dtype=torch.bfloat16)
        together = multiplied(table, x, weight)
        for rows in (1, 2, 3, 7, 16, 17, 31, 64, 65, 100, 128, 129, 200, 299):
            for first in (0, 300 - rows):
                some = slice(first, first + rows)
                found = multiplied(table, x[some], weight, dependent=True)
                assert torch.equal(found, together[some]), (n, k, rows, first)


@pytest.mark.gpu
def test_the_fastest_products_have_not() -> None:
    """What the option is for: with as many rows as a batch has, a row's bits change."""
    x = torch.randn(300, 4096, device="cuda", dtype=torch.bfloat16)
    weight = weight_of(Layout.DENSE, 4096, 4096, torch.bfloat16, None, "cuda")
    together = multiplied(FASTEST, x, weight)
    assert any(
        not torch.equal(multiplied(FASTEST, x[:rows], weight), together[:rows])
        for rows in (1, 16, 64, 128)
    )


@pytest.mark.gpu
def test_attention_of_8b_has_the_same_bits_however_it_is_cut() -> None:
    """Contexts beyond the first long part, rows that decode alone and among 40."""
    case = paged_case([(9000, 300), (26000, 3), (700, 40)], 32, 8, 128, 64)
    case = case.to("cuda", torch.bfloat16)
    spec = spec_of(case, None)
    device = torch.device("cuda")
    attention = InvariantAttention(64, spec.shape, device, torch.bfloat16)

    def run(case: PagedCase, pieces: Tensor, programs: int = 1) -> Tensor:
        out = torch.full_like(case.query.flatten(1), torch.nan)
        shared = (case.query, case.cache, case.table, case.slot, case.position)
        attention(*shared, pieces, out, spec, programs)
        return out

    size = attention.piece_rows
    pieces = [
        (start + first, min(size, count - first))
        for start, count in ((0, 300), (300, 3), (303, 40))
        for first in range(0, count, size)
    ]
    whole = run(case, torch.tensor(pieces, dtype=torch.int32, device=device))
    for rows in ([0], [301], [299, 302, 342], list(range(290, 343)), list(range(0, 300, 5))):
        some = replace(
            case, query=case.query[rows], slot=case.slot[rows], position=case.position[rows]
        )
        count = len(rows)
        found = run(some, attention.singles(count, None), attention.programs(count))
        assert torch.equal(found, whole[rows]), rows
