"""The Triton kernels against the torch references and the formula.

Without a GPU they run in Triton's interpreter, in float32 only: it cannot multiply bfloat16
matrices. The tests marked `gpu` run the same functions compiled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from triton import knobs

from penstock_kernels import int4
from penstock_kernels.fp8 import interleave, quantise, scale_of
from penstock_kernels.gpu.attention import decode_attention as decode
from penstock_kernels.gpu.attention import decode_plan
from penstock_kernels.gpu.device import TritonDevice
from penstock_kernels.gpu.products.linear import Tile, linear, linear_one_row
from penstock_kernels.gpu.products.lut_linear import lut_linear
from penstock_kernels.gpu.products.lut_linear import widened as looked_up
from penstock_kernels.gpu.products.parts import summed
from penstock_kernels.gpu.products.quantise import Room, quantise_rows, room_for
from penstock_kernels.gpu.products.widen import widened
from penstock_kernels.gpu.sampling.argmax import argmax
from penstock_kernels.gpu.step.activation import activate, gate
from penstock_kernels.gpu.step.blocks import copy_blocks
from penstock_kernels.gpu.step.norm import add_norm, normalise
from penstock_kernels.gpu.step.rope import RowPlacement, rope_and_write
from penstock_kernels.gpu.step.slots import advance_slots, read_slots
from penstock_kernels.ops import (
    Act,
    Activation,
    AttentionSpec,
    EagerPlan,
    Norm,
    NormKind,
    QKNorm,
    Sharing,
    StepBatch,
)
from penstock_kernels.reference import activation, norm, rope
from penstock_kernels.reference.device import TorchDevice
from penstock_kernels.sampler import NO_TOKEN
from penstock_kernels.weight import Layout, Weight
from penstock_quantization.lut import Coded, packed
from penstock_quantization.online import fp8
from support.paged import (
    PagedCase,
    assert_near,
    difference,
    naive_attention,
    paged_case,
    sinks_of,
)
from support.sampled import crossed

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning:triton")
SCALE = 0.21
FP8 = [torch.float8_e4m3fn, torch.float8_e5m2]


class Place(NamedTuple):
    """Where a kernel runs and in what."""

    device: str
    dtype: torch.dtype

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(*shape).to(self.device, self.dtype)


@pytest.fixture(
    params=[
        pytest.param(Place("cpu", torch.float32), id="interpreter"),
        pytest.param(Place("cuda", torch.float32), id="float32", marks=pytest.mark.gpu),
        pytest.param(Place("cuda", torch.bfloat16), id="bfloat16", marks=pytest.mark.gpu),
    ]
)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    chosen: Place = request.param
    if chosen.device == "cpu" and not knobs.runtime.interpret:
        pytest.skip("with a GPU the kernels are compiled: run -m gpu")
    torch.manual_seed(0)
    with np.errstate(invalid="ignore"):  # rows of padding are 0 / 0 and never stored
        yield chosen


class Shape(NamedTuple):
    heads: int
    kv_heads: int
    head_dim: int
    page: int


SHAPES = [
    Shape(2, 2, 64, 16),
    Shape(4, 2, 24, 8),
    Shape(4, 1, 128, 64),
    Shape(8, 1, 64, 8),
    Shape(3, 1, 80, 16),
]


def case_of(spans: list[tuple[int, int]], shape: Shape, place: Place) -> PagedCase:
    return paged_case(spans, *shape).to(place.device, place.dtype)


def run_decode(
    case: PagedCase,
    window: int | None = None,
    live: int | None = None,
    sharing: Sharing | None = None,
    soft_cap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """NaN in rows that are not computed."""
    rows, heads, width = case.query.shape
    kv_heads = case.cache.shape[1]
    device = case.query.device
    # Queries stand among keys and values, as the decoder has them.
    qkv = torch.randn(rows, heads + 2 * kv_heads, width, device=device).to(case.query.dtype)
    qkv[:, :heads] = case.query
    out = torch.full((rows, heads * width), torch.nan, device=device, dtype=case.query.dtype)
    attend = decode.DecodeAttention(96, heads, kv_heads, width, torch.device(device))
    attend.partial.fill_(torch.nan)  # what no piece wrote must not be read
    attend.lse.fill_(torch.nan)
    alive = None if live is None else torch.tensor([live], dtype=torch.int32, device=device)
    for _ in range(2):  # the second launch finds what the first left
        plan = attend.plan(case.position, alive, sharing, window)
        attend(
            qkv[:, :heads], case.cache, case.table, case.slot, case.position, out, plan, SCALE,
            window, soft_cap, case.stored, sinks,
        )  # fmt: skip
    return out


@pytest.mark.parametrize("shape", [*SHAPES, Shape(28, 4, 16, 64)], ids=str)
def test_decode_attention(place: Place, shape: Shape) -> None:
    case = case_of([(0, 1), (299, 1), (63, 1), (64, 1), (130, 1)], shape, place)
    assert_near(run_decode(case), naive_attention(case, SCALE, None))


@pytest.mark.parametrize("window", [1, 17, 64, 200, 1000])
def test_decode_attention_in_a_window(place: Place, window: int) -> None:
    spans = [(0, 1), (250, 1), (191, 1), (16, 1), (64, 1)]
    for shape in (Shape(4, 2, 24, 8), Shape(2, 1, 64, 64)):
        case = case_of(spans, shape, place)
        assert_near(run_decode(case, window), naive_attention(case, SCALE, window))


@pytest.mark.parametrize("window", [None, 64])
@pytest.mark.parametrize("soft_cap", [0.5, 50.0])
def test_decode_attention_with_a_soft_cap(
    place: Place, window: int | None, soft_cap: float
) -> None:
    for shape in (Shape(4, 2, 24, 8), Shape(4, 2, 256, 64)):
        case = case_of([(0, 1), (250, 1), (191, 1)], shape, place)
        found = run_decode(case, window, soft_cap=soft_cap)
        assert_near(found, naive_attention(case, SCALE, window, soft_cap))


@pytest.mark.parametrize(
    ("stored", "window", "soft_cap"),
    crossed(
        FP8,
        [None, 17],
        [None, 0.5],
        sample=lambda stored, window, cap: (
            ((window is None) == (cap is None)) == (stored is FP8[0])
        ),
    ),
    ids=str,
)
def test_decode_attention_of_a_cache_in_fp8(
    place: Place, stored: torch.dtype, window: int | None, soft_cap: float | None
) -> None:
    for shape in (SHAPES[1], SHAPES[2], SHAPES[3]):
        case = case_of([(0, 1), (250, 1), (191, 1)], shape, place).in_fp8(stored)
        found = run_decode(case, window, soft_cap=soft_cap)
        assert_near(found, naive_attention(case, SCALE, window, soft_cap))


def test_decode_attention_of_every_length(place: Place) -> None:
    """Around each tile and page boundary."""
    for first in (0, 61, 125):
        case = case_of([(first + i, 1) for i in range(5)], Shape(2, 1, 16, 16), place)
        assert_near(run_decode(case), naive_attention(case, SCALE, None))


@pytest.mark.parametrize("rows", [40, 70])
def test_one_long_context_among_many(place: Place, rows: int, monkeypatch: Any) -> None:
    """With many programs only the long ones are cut."""
    monkeypatch.setattr(decode_plan, "ENOUGH", 60)
    monkeypatch.setattr(decode_plan, "TARGET", 120)
    case = case_of([(700, 1)] + [(20 + i % 50, 1) for i in range(rows)], Shape(2, 2, 16, 16), place)
    assert_near(run_decode(case), naive_attention(case, SCALE, None))


def test_a_context_cut_into_the_most_items_is_read_to_its_end(place: Place) -> None:
    """8,070 tokens are 64.6 a program: in pieces of 64 the last tokens had no program."""
    case = case_of([(8069, 1)], Shape(4, 4, 16, 64), place)
    assert_near(run_decode(case), naive_attention(case, SCALE, None))


@pytest.mark.parametrize("live", [0, 1, 3, 5])
@pytest.mark.parametrize("window", [None, 50])
def test_rows_that_do_not_count_are_left_alone(place: Place, live: int, window: int | None) -> None:
    spans = [(70, 1), (1, 1), (200, 1), (30, 1), (90, 1)]
    case = case_of(spans, Shape(4, 2, 24, 8), place)
    out = run_decode(case, window, live)
    if live:
        assert_near(out[:live], naive_attention(case, SCALE, window)[:live])
    assert bool(out[live:].isnan().all())


def shared_case(
    groups: list[tuple[int, int]], alone: int, shape: Shape, place: Place
) -> tuple[PagedCase, Sharing]:
    """groups: rows and shared blocks of each; then rows that share nothing."""
    spans: list[tuple[int, int]] = []
    for index, (rows, blocks) in enumerate(groups):
        # The shortest has just one token of its own.
        spans += [(blocks * shape.page + 37 * i + index, 1) for i in range(rows)]
    case = paged_case(spans + [(90 + i, 1) for i in range(alone)], *shape)
    tile_rows = decode.DecodeAttention(
        1, shape.heads, shape.kv_heads, shape.head_dim, torch.device("cpu")
    ).tile_rows
    tile_of_row = torch.full((len(case.slot),), -1, dtype=torch.int32)
    tiles: list[tuple[int, int, int]] = []
    row = 0
    for rows, blocks in groups:
        case.table[row : row + rows, :blocks] = case.table[row, :blocks]
        for first in range(row, row + rows, tile_rows):
            count = min(tile_rows, row + rows - first)
            tile_of_row[first : first + count] = len(tiles)
            tiles.append((first, count, blocks * shape.page))
        row += rows
    most = decode.DecodeAttention.tiles_for(len(case.slot))
    padded = torch.tensor(tiles + [(0, 0, 0)] * (most - len(tiles)), dtype=torch.int32)
    case = case.to(place.device, place.dtype)
    return case, Sharing(tile_of_row.to(place.device), padded.to(place.device))


def test_sinks_count_once_among_all_pieces(place: Place) -> None:
    """Of rows that share tokens, of those of several pieces, and of those of one."""
    shape = Shape(4, 2, 24, 8)
    case, sharing = shared_case([(2, 3), (3, 9)], 3, shape, place)
    sinks = sinks_of(shape.heads, place.device)
    for window, together in ((None, None), (None, sharing), (40, None)):
        found = run_decode(case, window, None, together, sinks=sinks)
        assert_near(found, naive_attention(case, SCALE, window, None, sinks))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "groups", [[(2, 3)], pytest.param([(5, 8), (2, 1), (9, 20)], marks=pytest.mark.full)], ids=str
)
def test_shared_tokens_are_read_once_for_a_tile(
    place: Place, shape: Shape, groups: list[tuple[int, int]]
) -> None:
    if shape.heads // shape.kv_heads > 4 and len(groups) > 1:
        groups = groups[:1]  # tiles of two rows: more of them than rows / 2 there would be
    case, sharing = shared_case(groups, 3, shape, place)
    assert_near(run_decode(case, None, None, sharing), naive_attention(case, SCALE, None))
    # A window of some layers sees no sharing.
    assert_near(run_decode(case, 40, None, sharing), naive_attention(case, SCALE, 40))


def test_more_rows_than_there_is_room_for_are_refused(place: Place) -> None:
    attend = decode.DecodeAttention(4, 4, 2, 16, torch.device(place.device))
    with pytest.raises(ValueError, match="5 rows are more than the 4"):
        attend.plan(torch.zeros(5, dtype=torch.int64, device=place.device))


@pytest.mark.parametrize(
    ("rows", "kv_heads"),
    crossed(
        [1, 3], [1, 2, 3, 4, 5, 8], sample=lambda rows, kv_heads: (rows == 1) == (kv_heads % 2 > 0)
    ),
)
def test_no_context_makes_more_items_than_there_is_room_for(kv_heads: int, rows: int) -> None:
    if not knobs.runtime.interpret:
        pytest.skip("by the interpreter")
    cut = decode_plan.TARGET * decode_plan.TILE // kv_heads  # tokens: where a piece is one tile
    most = decode_plan.most_items(rows, 0, kv_heads)
    for length in (cut - 1, cut, cut + 1, cut + cut // 200, cut + cut // 70, 2 * cut + cut // 70):
        plan = decode_plan.empty_plan(rows, 8, kv_heads, torch.device("cpu"))
        positions = torch.tensor([length - rows, *[0] * (rows - 1)])
        decode_plan.plan_decode(plan, positions, kv_heads)
        assert int((plan.items[:, 1] > 0).sum()) <= most


anything_to_plan = given(
    lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=70),
    kv_heads=st.sampled_from([1, 2, 8]),
    share=st.booleans(),
    live=st.floats(0, 1),
)


@settings(max_examples=25)
@anything_to_plan
def test_a_plan_covers_every_token_once_and_fits(
    lengths: list[int], kv_heads: int, share: bool, live: float
) -> None:
    check_plan(lengths, kv_heads, share, live)


@pytest.mark.full
@settings(max_examples=300)
@anything_to_plan
def test_many_plans_cover_every_token_once_and_fit(
    lengths: list[int], kv_heads: int, share: bool, live: float
) -> None:
    check_plan(lengths, kv_heads, share, live)


def check_plan(lengths: list[int], kv_heads: int, share: bool, live: float) -> None:
    if not knobs.runtime.interpret:
        pytest.skip("by the interpreter")
    rows, alive = len(lengths), round(live * len(lengths))
    tiles: list[tuple[int, int, int]] = []
    tile_of_row, members = torch.full((rows,), -1, dtype=torch.int32), 4
    for first in range(0, rows - 3, 9) if share else ():
        blocks = (min(lengths[first : first + 4]) - 1) // 64
        if blocks and first + 4 <= alive:
            tile_of_row[first : first + 4] = len(tiles)
            tiles.append((first, 4, blocks * 64))
    most = decode.DecodeAttention.tiles_for(rows)
    padded = torch.tensor(tiles + [(0, 0, 0)] * (most - len(tiles)), dtype=torch.int32)
    plan = decode_plan.empty_plan(rows, most, kv_heads, torch.device("cpu"))
    decode_plan.plan_decode(
        plan, torch.tensor(lengths) - 1, kv_heads, torch.tensor([alive], dtype=torch.int32),
        Sharing(tile_of_row, padded),
    )  # fmt: skip
    count = int((plan.items[:, 1] > 0).sum())
    assert count <= decode_plan.most_items(rows, len(tiles), kv_heads)
    assert not plan.items[count:, 1].any()
    seen = [np.zeros(length, np.int64) for length in lengths]
    partials = set()
    for first, rows_of_item, start, end, piece in plan.items[:count].tolist():
        for row in range(first, first + rows_of_item):
            seen[row][start:end] += 1
            at, own, parts = plan.spans[row].tolist()
            index = at + piece // 2 + (0 if piece % 2 else parts - own)
            assert at <= index < at + parts
            partials.add((row, index))
    assert all((tokens == (row < alive)).all() for row, tokens in enumerate(seen))
    assert len({index for _, index in partials}) == len(partials) == int(plan.spans[:, 2].sum())
    assert max((i for _, i in partials), default=0) < decode_plan.most_partials(
        rows, most, kv_heads, members
    )


def batch_of(case: PagedCase, decode_rows: int = 0) -> StepBatch:
    slots = torch.arange(len(case.queries), device=case.slot.device)
    plan = EagerPlan(slots, case.context, case.queries)
    return StepBatch(case.slot, case.position, case.table, decode_rows, plan)


# Elements of a head that are rotated; which norm, if any, comes before.
TURNS = [
    ("all", None),
    ("all", NormKind.RMS),
    ("some", NormKind.RMS_ONE),
    ("some", None),
    ("none", None),
    ("neighbours", NormKind.RMS_ONE),
    ("some neighbours", None),
]


@pytest.mark.parametrize(("turned", "kind"), TURNS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rope_and_write(place: Place, shape: Shape, turned: str, kind: NormKind | None) -> None:
    check_rope_and_write(place, shape, turned, kind, None)


@pytest.mark.parametrize("turned", ["all", "some"])
@pytest.mark.parametrize("kind", [NormKind.RMS, NormKind.RMS_ONE])
@pytest.mark.parametrize("shape", [SHAPES[1], SHAPES[4]], ids=str)
def test_rope_and_write_behind_norms_of_all_heads(
    place: Place, shape: Shape, kind: NormKind, turned: str
) -> None:
    check_rope_and_write(place, shape, turned, kind, None, joint=True)


@pytest.mark.parametrize("stored", FP8, ids=str)
@pytest.mark.parametrize("turned", ["all", "some", "none"])
def test_rope_and_write_to_a_cache_in_fp8(place: Place, turned: str, stored: torch.dtype) -> None:
    check_rope_and_write(place, SHAPES[4], turned, None, stored)


def check_rope_and_write(
    place: Place,
    shape: Shape,
    turned: str,
    kind: NormKind | None,
    stored: torch.dtype | None,
    joint: bool = False,
) -> None:
    heads, kv_heads, width, page = shape
    case = case_of([(0, 1), (41, 1), (3, 6), (15, 2)], shape, place)
    if stored is not None:
        case = case.in_fp8(stored)
    rows, total = len(case.slot), heads + 2 * kv_heads
    share, interleaved = turned.removesuffix("neighbours").strip(), turned.endswith("neighbours")
    rotary = {"": width, "all": width, "some": width // 4 * 2, "none": 0}[share]
    spec = AttentionSpec(heads, kv_heads, width, 1.0, rotary=rotary, interleaved=interleaved)
    if turned == "none":
        spec = AttentionSpec(heads, kv_heads, width, 1.0, rope=None)
    angle = torch.rand(64, rotary // 2, device=place.device) * 6.28
    angles = torch.stack((angle.cos(), angle.sin()), dim=1)
    norms = None
    if kind is not None:
        widths = (heads * width, kv_heads * width) if joint else (width, width)
        query, key = (Norm(place.randn(one), 1e-6, kind) for one in widths)
        # As if others had means of one: ranks' means reach the rotation in this form.
        norms = QKNorm(query, key, (lambda means: (means + 1) / 2) if joint else None)
    qkv, cache = place.randn(rows, total * width), case.cache.clone()
    expected, expected_cache = qkv.view(rows, total, width).float().clone(), cache.clone()
    if stored is None:
        expected_cache = expected_cache.float()
    if norms is not None:
        wide = (Norm(one.weight.float(), 1e-6, one.kind) for one in (norms.query, norms.key))
        norm.qk_norm_(expected, QKNorm(*wide, norms.mean), heads, kv_heads)
    if rotary:
        turning = expected[:, : heads + kv_heads, :rotary]
        rope.rotate_(turning, *rope.rotation(angles, case.position), interleaved)
    column = (case.position // page).unsqueeze(1)
    block = case.table[case.slot].gather(1, column).squeeze(1).long()
    kv = expected[:, heads:]
    if stored is not None:
        kv = kv.to(place.dtype)
    location = block * page + case.position % page
    rope.write_kv(expected_cache, kv, location, case.stored)
    placement = RowPlacement(
        case.slot.int(), case.position, case.table, angles, case.stored.inverses
    )
    rope_and_write(qkv, cache, placement, spec, norms)
    assert_near(qkv.view(rows, total, width)[:, :heads], expected[:, :heads])
    before, found, meant = case.cache.float(), cache.float(), expected_cache.float()
    untouched = meant == before
    assert torch.equal(found[untouched], before[untouched])
    if stored is None:
        assert_near(cache, expected_cache)
    else:  # what is rounded otherwise before may be the next number in FP8
        assert (found != meant).float().mean() < 1e-3
        assert difference(found, meant) < 1e-5


@pytest.mark.parametrize("width", [1, 301, 4096, 10_000])
def test_argmax_keeps_the_logits_and_the_first_of_the_largest(place: Place, width: int) -> None:
    logits = place.randn(4, width + 3)[:, :width]
    logits[1] = 0.5
    logits[2, width // 2] = logits[2, width - 1] = 9.0
    kept, token = torch.full_like(logits, torch.nan).contiguous(), logits.new_zeros(4).long()
    argmax(logits, kept, token)
    assert torch.equal(kept, logits)
    best = logits.max(1, keepdim=True).values
    assert token.tolist() == [row.nonzero()[0].item() for row in logits == best]


@pytest.mark.parametrize("width", [301, 5000])
def test_argmax_of_what_is_no_finite_number(place: Place, width: int) -> None:
    """Rows without a token, beside one that has a single finite logit."""
    logits = torch.full((5, width), torch.nan, device=place.device, dtype=place.dtype)
    logits[1, : width - 1] = 1.0
    logits[2:] = -torch.inf
    logits[3, width - 2] = -9.0
    logits[4, 7] = torch.inf
    kept, token = torch.empty_like(logits), logits.new_zeros(5).long()
    argmax(logits, kept, token)
    assert token.tolist() == [NO_TOKEN, NO_TOKEN, NO_TOKEN, width - 2, NO_TOKEN]
    assert torch.equal(kept.nan_to_num(1), logits.nan_to_num(1))


@pytest.mark.parametrize("rows", [1, 5, 300])
def test_rows_take_from_their_slots_and_leave_there(place: Place, rows: int) -> None:
    slots, count = 400, max(1, rows // 3)
    last = torch.randint(0, 1000, (slots + 1,), device=place.device)
    last[::7] = NO_TOKEN
    lengths = torch.randint(0, 500, (slots + 1,), device=place.device)
    slot = torch.randperm(slots, device=place.device)[:rows]
    tokens, positions = read_slots(slot, last, lengths)
    assert torch.equal(tokens, last[slot].clamp(min=0)) and torch.equal(positions, lengths[slot])
    given = torch.randint(-1, 3, (rows,), device=place.device)
    places = torch.randint(0, 500, (rows,), device=place.device)
    mixed, somewhere = read_slots(slot, last, lengths, (given, places))
    assert torch.equal(mixed, torch.where(given < 0, tokens, given))
    assert torch.equal(somewhere, torch.where(given < 0, positions, places))
    # The last of those that count comes twice, the second time with another token; padding stays
    # empty.
    slot[-1] = slots
    ends = torch.randperm(rows, device=place.device)[:count]
    chosen = torch.randint(0, 1000, (count,), device=place.device)
    expected_last, expected = last.clone(), lengths.clone()
    expected_last[slot[ends]], expected[slot[ends]] = chosen, places[ends] + 1
    ends = torch.cat((ends, ends[-1:]))
    chosen = torch.cat((chosen, chosen[-1:] + 1))
    if bool((slot[ends] == slots).any()):
        expected[slots] = 0
    advance_slots(slot, places, ends, chosen, last, lengths)
    assert torch.equal(last, expected_last) and torch.equal(lengths, expected)
    advance_slots(slot[:1], places[:1], None, None, last, lengths)
    assert torch.equal(last, expected_last)
    assert int(lengths[slot[0]]) == (0 if int(slot[0]) == slots else int(places[0]) + 1)


@pytest.mark.parametrize("width", [1, 24, 300, 1025])
def test_norms(place: Place, width: int) -> None:
    wide = place.randn(3, 2 * width)
    for x in (wide[:, :width], wide[:, width:], wide[:, :width].contiguous()):
        weight, residual = place.randn(width), place.randn(3, width)
        wide_x, gain, total = x.float(), weight.float(), residual.float().clone()
        shift = place.randn(width)
        for kind in NormKind:
            ours, theirs = Norm(weight, 1e-5, kind, shift), Norm(gain, 1e-5, kind, shift.float())
            assert_near(normalise(x, ours), norm.normalise(wide_x, theirs))
        expected = norm.add_norm(wide_x, total, Norm(gain, 1e-5))
        assert_near(add_norm(x, residual, Norm(weight, 1e-5)), expected)
        assert torch.equal(residual, total.to(place.dtype))


@pytest.mark.parametrize("parts", [2, 3])
def test_norm_of_partial_sums(place: Place, parts: int) -> None:
    """They are added up in float32 and rounded once."""
    x, weight, residual = torch.randn(parts, 5, 300), place.randn(300), place.randn(5, 300)
    x = x.to(place.device)
    total = residual.float().clone()
    expected = norm.add_norm(x.sum(0), total, Norm(weight.float(), 1e-5))
    assert_near(add_norm(x, residual, Norm(weight, 1e-5)), expected)
    assert_near(residual, total)


@pytest.mark.parametrize("act", Act)
@pytest.mark.parametrize("width", [1, 24, 1024, 1500])
def test_activations(place: Place, width: int, act: Act) -> None:
    gate_up = place.randn(3, 2 * width)
    assert_near(gate(gate_up, act), activation.gate(gate_up.float(), act))
    assert_near(activate(gate_up, act), activation.activate(gate_up.float(), act))


@pytest.mark.parametrize(("tokens", "width"), [(16, 8), (3, 80), (64, 128)])
def test_copy_blocks(place: Place, tokens: int, width: int) -> None:
    """Whole blocks of every layer, keys and values and head; the others stay as they are."""
    cache = place.randn(2, 2, 3, 7, tokens, width)
    source, target = (torch.tensor(b, device=place.device) for b in ([5, 1, 5], [2, 6, 4]))
    expected = cache.clone()
    expected[:, :, :, [2, 6, 4]] = cache[:, :, :, [5, 1, 5]]
    reference = cache.clone()
    TorchDevice((), tokens).copy_blocks(reference, source, target)
    copy_blocks(cache, source, target)
    assert torch.equal(cache, expected) and torch.equal(reference, expected)


def needs_half_or_interpreter(place: Place) -> None:
    if place == ("cuda", torch.float32):
        pytest.skip("products in float32 are left to cuBLAS")


@pytest.mark.parametrize("rows", [1, 3, 17, 64, 70])
@pytest.mark.parametrize("tile", [Tile(32, 64, 4, 2), Tile(128, 128, 4, 3)], ids=str)
def test_linear(place: Place, rows: int, tile: Tile) -> None:
    needs_half_or_interpreter(place)
    x, weight = place.randn(rows, 256), place.randn(256, 256) / 16
    out = torch.full((rows, 256), torch.nan, device=place.device, dtype=place.dtype)
    linear(x, Weight(weight), out, tile)
    assert_near(out, x.float() @ weight.float().T)


@pytest.mark.parametrize("rows", [1, 5, 33])
def test_linear_of_strided_rows(place: Place, rows: int) -> None:
    needs_half_or_interpreter(place)
    x, weight = place.randn(rows, 300)[:, :256], place.randn(64, 256) / 16
    out = torch.full((rows, 64), torch.nan, device=place.device, dtype=place.dtype)
    linear(x, Weight(weight), out, Tile(32, 64, 4, 2))
    assert_near(out, x.float() @ weight.float().T)


@pytest.mark.parametrize("rows", [1, 3, 17])
def test_gated_linear(place: Place, rows: int) -> None:
    needs_half_or_interpreter(place)
    x, weight = place.randn(rows, 256), place.randn(192, 256) / 16
    out = torch.full((rows, 96), torch.nan, device=place.device, dtype=place.dtype)
    linear(x, Weight(weight), out, Tile(32, 64, 4, 2), gated=True)
    assert_near(out, activation.gate(x.float() @ weight.float().T, Act.SILU))


@pytest.mark.parametrize("kind", ["dense", "biased", "fp8", "blocks"])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("depth", [128, 384])
def test_linear_of_one_row(place: Place, gated: bool, depth: int, kind: str) -> None:
    x, weight = place.randn(1, depth), weight_of(place, 56, depth, kind)
    expected = exact(x, weight, gated)
    out = torch.full(expected.shape, torch.nan, device=place.device, dtype=place.dtype)
    linear_one_row(x, weight, out, Tile(4, 128, 4, 2), gated=gated)
    assert_near(out, expected)


@pytest.mark.parametrize("kind", ["biased", "fp8", "blocks"])
@pytest.mark.parametrize("gated", [False, True])
def test_linear_of_other_weights(place: Place, gated: bool, kind: str) -> None:
    needs_half_or_interpreter(place)
    x, weight = place.randn(17, 256), weight_of(place, 192, 256, kind)
    expected = exact(x, weight, gated)
    out = torch.full(expected.shape, torch.nan, device=place.device, dtype=place.dtype)
    linear(x, weight, out, Tile(32, 64, 4, 2), gated=gated)
    assert_near(out, expected)


def weight_of(place: Place, n: int, k: int, kind: str) -> Weight:
    bias = None if kind == "dense" else place.randn(n)
    weight = Weight(place.randn(n, k) / 16, bias)
    if kind in ("dense", "biased"):
        return weight
    quantised = fp8(weight, lambda largest: largest)
    if kind == "fp8":
        return quantised
    scale = torch.rand(-(-n // 48), -(-k // 64), device=place.device) / 100
    return replace(
        quantised, layout=Layout.FP8_BLOCKS, scale=scale, scale_rows=48, scale_columns=64
    )


@pytest.mark.parametrize("kind", ["fp8", "blocks"])
@pytest.mark.parametrize("depth", [40, 128, 1344])
def test_weights_are_widened(place: Place, kind: str, depth: int) -> None:
    """Every number where it belongs, and rounded once."""
    weight = weight_of(place, 100, depth, kind)
    found = widened(weight, place.dtype)
    assert torch.equal(found, weight.dequantised().to(place.dtype))


def coded(place: Place, n: int, k: int, kind: str, bias: Tensor | None = None) -> Weight:
    """Random codes, as a format has them."""
    codes = torch.randint(0, 16, (n, k), device=place.device).to(torch.uint8)
    random = torch.rand(n, k // 16, device=place.device).add_(0.1)
    if kind == "nvfp4":
        scale = random.to(torch.float8_e4m3fn)
        part = Coded(codes, "e2m1", scale=scale, group=16, outer=random[:, 0] / k**0.5)
    elif kind == "tables":
        part = Coded(codes, table=torch.randn(n, 16, device=place.device) / k**0.5)
    else:
        group = math.gcd(k, 64)
        part = Coded(codes, "nf4", scale=random[:, : k // group] / k**0.5, group=group)
    return packed([part], bias)


@pytest.mark.parametrize("splits", [1, 3])
def test_parts_are_summed(place: Place, splits: int) -> None:
    parts = torch.randn(splits, 7, 200, device=place.device)
    assert_near(summed(parts, place.dtype), parts.sum(0))


CODED = ["nf4", "nvfp4", "tables"]


@pytest.mark.parametrize("kind", CODED)
@pytest.mark.parametrize("k", [48, 128, 1344])
def test_codes_are_looked_up(place: Place, kind: str, k: int) -> None:
    """Every number where it belongs, and rounded once."""
    weight = coded(place, 20, k, kind)
    found = looked_up(weight, place.dtype)
    torch.testing.assert_close(found, weight.dequantised().to(place.dtype), rtol=2**-8, atol=0)


@pytest.mark.parametrize("kind", CODED)
@pytest.mark.parametrize(("rows", "gated"), [(1, False), (17, True), (3, True)])
def test_linear_of_codes(place: Place, kind: str, rows: int, gated: bool) -> None:
    needs_half_or_interpreter(place)
    x, bias = place.randn(rows, 300)[:, :256], place.randn(64) if rows > 1 else None
    weight = coded(place, 64, 256, kind, bias)
    expected = exact(x, weight, gated)
    out = torch.full(expected.shape, torch.nan, device=place.device, dtype=place.dtype)
    lut_linear(x, weight, out, Tile(32, 128, 4, 2), gated=gated)
    assert_near(out, expected)


def exact(x: Tensor, weight: Weight, gated: bool) -> Tensor:
    product = x.float() @ weight.dequantised().float().T
    if weight.bias is not None:
        product += weight.bias.float()
    return activation.gate(product, Act.SILU) if gated else product


@pytest.mark.parametrize(
    ("width", "layout"),
    [(16, Layout.FP8), (300, Layout.FP8), (4096, Layout.FP8), (48, Layout.INT4)],
)
def test_rows_in_fp8(place: Place, width: int, layout: Layout) -> None:
    """As the reference rounds them, but where a division on a GPU rounds otherwise."""
    x = place.randn(5, 2 * width)[:, :width] * 7
    x[2] = 0
    q, scale = quantise_rows(x, layout=layout)
    order = int4.interleave if layout is Layout.INT4 else interleave
    expected = scale_of(x.float().abs().amax(1, keepdim=True))
    torch.testing.assert_close(scale, expected)
    found, theirs = q.float(), order(quantise(x, scale)).float()
    if place.device == "cpu":  # its interpreter loses the carry of what rounds to a power of 2
        kept = theirs.abs().frexp().mantissa != 0.5
        found, theirs = found[kept], theirs[kept]
    assert (found != theirs).float().mean() < 0.01
    assert_near(found, theirs)
    assert not q[2].float().any()


@pytest.mark.parametrize(
    ("width", "layout"),
    [(16, Layout.FP8), (300, Layout.FP8), (1024, Layout.FP8), (48, Layout.INT4)],
)
@pytest.mark.parametrize("what", ["norm", "parts", "gate", "activation"])
def test_rows_in_fp8_by_what_makes_them(
    place: Place, what: str, width: int, layout: Layout
) -> None:
    """The bits of a launch of their own, and the rows are what they are without."""
    x, gain = place.randn(5, 2 * width), Norm(place.randn(width), 1e-5)
    parts, residual = place.randn(3, 5, width).float(), place.randn(5, width)

    def made(room: Room | None) -> Tensor:
        if what == "norm":
            return normalise(x[:, :width], gain, room=room)
        if what == "parts":
            return add_norm(parts, residual.clone(), gain, room=room)
        if what == "gate":
            return gate(x, Act.SILU, room=room)
        return activate(x[:, :width].contiguous(), Act.GELU, room=room)

    room = room_for(x, width, layout)
    rows = made(room)
    q, scale = quantise_rows(rows, layout=layout)
    assert torch.equal(rows, made(None))
    assert torch.equal(room.rows.view(torch.uint8), q.view(torch.uint8))
    assert torch.equal(room.scale, scale)


@pytest.mark.parametrize(
    ("window", "normalised", "stored"), [(None, False, None), (20, True, None), (20, False, FP8[0])]
)
def test_devices_agree_on_a_mixed_step(
    place: Place, window: int | None, normalised: bool, stored: torch.dtype | None
) -> None:
    """Decode rows and chunks in one step, through the interface that models use."""
    shape = Shape(4, 2, 24, 8)
    case = case_of([(30, 1), (77, 1), (0, 1), (12, 140), (0, 9)], shape, place)
    if stored is not None:
        case = case.in_fp8(stored)
    spec = AttentionSpec(*shape[:3], scale=24**-0.5, window=window, cache=case.stored)
    angle = torch.rand(160, 12, device=place.device) * 6.28
    ropes = (torch.stack((angle.cos(), angle.sin()), dim=1),)
    x = Activation(place.randn(len(case.slot), 32))
    weight, norms = Weight(place.randn(8 * 24, 32) / 6), None
    if normalised:
        weight = Weight(weight.data, place.randn(8 * 24))
        norms = QKNorm(*(Norm(place.randn(24), 1e-6) for _ in range(2)))
    batch, cache = batch_of(case, decode_rows=3), case.cache.clone()
    theirs = TorchDevice(ropes, shape.page).step(batch)
    ours = TritonDevice([spec], ropes, 8).step(batch)
    expected = theirs.attend(theirs.qkv(x, weight, spec, case.cache, norms), spec, case.cache)
    found = ours.attend(ours.qkv(x, weight, spec, cache, norms), spec, cache)
    if stored is None:
        assert_near(found.x, expected.x)
        assert_near(cache, case.cache)
    else:  # a sum that is rounded otherwise may be the next number in FP8
        assert difference(found.x, expected.x) < 1e-4
        assert difference(cache.float(), case.cache.float()) < 1e-5
