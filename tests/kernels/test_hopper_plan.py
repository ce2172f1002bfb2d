"""The plan of Hopper's decode attention: every token once, in equal shares.

The kernel itself is in Gluon (`test_gluon_interpreted.py`); what its plan says can be done by the
portable kernel too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from triton import knobs

from penstock_kernels.gpu.attention import decode_attention as decode
from penstock_kernels.gpu.attention import hopper_plan
from penstock_kernels.gpu.attention.decode_plan import DecodePlan
from penstock_kernels.ops import Sharing
from penstock_shard.steps.sharing import SharingTensors
from support.paged import PagedCase, assert_near, naive_attention, paged_case

KEYS = 64
CPU = torch.device("cpu")
pytestmark = [
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning:triton"),
    pytest.mark.skipif(not knobs.runtime.interpret, reason="by the interpreter"),
]


def planned(
    lengths: list[int],
    programs: int,
    sharing: Sharing | None = None,
    live: int | None = None,
    window: int | None = None,
) -> hopper_plan.HopperPlan:
    """The plan of rows whose slots go backwards; stale numbers stand where it is written."""
    rows = len(lengths)
    plan = hopper_plan.empty_plan(rows + 3, max(1, rows), programs, CPU)
    for tensor in (plan.items, plan.bounds, plan.spans):
        tensor.fill_(-7)
    alive = None if live is None else torch.tensor([live], dtype=torch.int32)
    slots = torch.arange(rows).flip(0)
    hopper_plan.plan_hopper(plan, torch.tensor(lengths) - 1, slots, KEYS, alive, sharing, window)
    return plan


def sharing_of(groups: list[tuple[int, int]], rows: int, tile_rows: int) -> Sharing:
    """groups: rows and shared blocks of 64 tokens, from row 0 on, as the shard cuts them."""
    tensors = SharingTensors(rows, tile_rows, CPU)
    counts, blocks = np.array(groups, np.int64).reshape(-1, 2).T
    tensors.load(counts, blocks, 64)
    sharing = tensors.view(rows)
    assert sharing is not None
    return sharing


@pytest.mark.parametrize("rows", [1, 2, 17, 33])
def test_a_plan_without_sharing_is_that_of_nothing_shared(rows: int) -> None:
    """What stands where tiles would be is not read, whatever it is."""
    lengths, programs = torch.arange(1, rows + 1) * 77, 33
    nothing = Sharing(
        torch.full((rows,), -1, dtype=torch.int32), torch.zeros(rows, 3, dtype=torch.int32)
    )
    plans = []
    for sharing in (None, nothing):
        plan = hopper_plan.empty_plan(rows, rows, programs, CPU)
        plan.bounds.copy_(torch.arange(programs + 1) % 7)
        hopper_plan.plan_hopper(plan, lengths - 1, torch.arange(rows), KEYS, None, sharing)
        plans.append(plan)
    count = int(plans[0].bounds[-1])
    assert torch.equal(plans[0].bounds, plans[1].bounds)
    assert torch.equal(plans[0].items[:count], plans[1].items[:count])
    assert torch.equal(plans[0].spans, plans[1].spans)


@settings(max_examples=80, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 3000), min_size=2, max_size=70),
    programs=st.sampled_from([1, 5, 33, 264]),
    tile_rows=st.sampled_from([2, 7, 16]),
    share=st.lists(st.tuples(st.integers(2, 30), st.integers(1, 40)), max_size=3),
    live=st.floats(0, 1),
)
def test_a_plan_covers_every_token_once_in_equal_shares(
    lengths: list[int], programs: int, tile_rows: int, share: list[tuple[int, int]], live: float
) -> None:
    rows, first = len(lengths), 0
    alive, groups = max(0, round(live * rows)), []
    for count, blocks in share:
        if first + count <= alive:
            blocks = min(blocks, *((n - 1) // 64 for n in lengths[first : first + count]))
            groups.append((count, max(1, blocks)))
            lengths[first : first + count] = [max(n, 65) for n in lengths[first : first + count]]
            first += count
    plan = planned(lengths, programs, sharing_of(groups, rows, tile_rows), alive)
    bounds = plan.bounds.tolist()
    count = bounds[-1]
    assert bounds[0] == 0 and bounds == sorted(bounds)
    assert count <= hopper_plan.most_items(rows, max(1, rows), programs)
    seen = [np.zeros(length, np.int64) for length in lengths]
    partials = set()
    steps = np.zeros(count, np.int64)
    for index, item in enumerate(plan.items[:count].tolist()):
        leader, members, start, end, piece, slot, skip = item
        assert slot == rows - 1 - leader and start < end and skip == 0
        steps[index] = -(-(end - start) // KEYS)
        for row in range(leader, leader + members):
            seen[row][start:end] += 1
            at, own, parts = plan.spans[row].tolist()
            place = at + piece // 2 + (0 if piece % 2 else parts - own)
            assert at <= place < at + parts
            partials.add((row, place))
    assert all((tokens == (row < alive)).all() for row, tokens in enumerate(seen))
    assert len({place for _, place in partials}) == len(partials)
    assert len(partials) == int(plan.spans[:rows, 2].sum())
    most = hopper_plan.most_partials(rows, programs, tile_rows)
    assert max((place for _, place in partials), default=0) < most
    work = [steps[a:b].sum() for a, b in zip(bounds, bounds[1:], strict=False)]
    spans = alive + len({items[0] for items in plan.items[:count].tolist() if items[4] % 2})
    assert sum(work) == steps.sum()
    assert max(work) <= max(1, -(-(steps.sum() + spans) // programs))


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 3000), min_size=2, max_size=40),
    programs=st.sampled_from([1, 5, 33, 264]),
    window=st.integers(1, 2000),
)
def test_a_plan_in_a_window_covers_what_each_row_sees(
    lengths: list[int], programs: int, window: int
) -> None:
    """Spans begin where tiles do; rows that could share tokens read their own."""
    sharing = sharing_of([(2, 1)], len(lengths), 16)
    plan = planned(lengths, programs, sharing, None, window)
    seen = [np.zeros(length, np.int64) for length in lengths]
    for row, members, start, end, piece, _, skip in plan.items[: int(plan.bounds[-1])].tolist():
        assert members == 1 and piece % 2 == 0 and start % KEYS == 0 and 0 <= skip < KEYS
        seen[row][start + skip : end] += 1
    for length, tokens in zip(lengths, seen, strict=True):
        assert (tokens == (np.arange(length) >= length - window)).all()


def test_a_lone_row_is_cut_into_tiles() -> None:
    plan = planned([576], 33)
    assert plan.bounds.tolist() == [*range(9), *[9] * 25]
    assert plan.spans[0].tolist() == [0, 9, 9]


def shared_case(groups: list[tuple[int, int]], alone: int, tile_rows: int) -> tuple[Any, Sharing]:
    spans: list[tuple[int, int]] = []
    for index, (rows, blocks) in enumerate(groups):
        spans += [(blocks * 64 + 37 * i + index, 1) for i in range(rows)]
    case = paged_case(spans + [(90 + i, 1) for i in range(alone)], 4, 2, 16, 64)
    row = 0
    for rows, blocks in groups:
        case.table[row : row + rows, :blocks] = case.table[row, :blocks]
        row += rows
    return case, sharing_of(groups, len(case.slot), tile_rows)


@pytest.mark.parametrize("programs", [3, 33])
def test_the_portable_kernel_by_this_plan(programs: int) -> None:
    """Places of partial results, tiles of sixteen rows and cuts anywhere are right."""
    case, sharing = shared_case([(19, 5), (2, 1)], 3, 16)
    assert_near(run_by_plan(case, sharing, programs), naive_attention(case, 0.21, None))


def run_by_plan(case: PagedCase, sharing: Sharing, programs: int) -> Tensor:
    rows, heads, width = case.query.shape
    plan = hopper_plan.empty_plan(rows, rows, programs, CPU)
    hopper_plan.plan_hopper(plan, case.position, case.slot, KEYS, None, sharing)
    attend = decode.DecodeAttention(rows, heads, 2, width, CPU)
    attend._query_rows = 32
    cells = hopper_plan.most_partials(rows, programs, 16) * heads
    attend.partial = torch.full((cells * width,), torch.nan)
    attend.lse = torch.full((cells,), torch.nan)
    items = plan.items[: int(plan.bounds[-1]), :5].contiguous()
    out = torch.full((rows, heads * width), torch.nan)
    attend(
        case.query, case.cache, case.table, case.slot, case.position, out,
        DecodePlan(items, plan.spans), 0.21,
    )  # fmt: skip
    return out
