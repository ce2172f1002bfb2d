"""The plans of decode attention, number for number those of a few lines of Python.

On a GPU they are the same numbers: what the other tests ask of a plan in the interpreter holds
there too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from triton import knobs

from penstock_kernels.gpu.attention import decode_plan, hopper_plan
from penstock_kernels.gpu.launch.dependent import supports_dependent_launch
from penstock_kernels.ops import Sharing

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning:triton")
PAGE = 64


class Span(NamedTuple):
    """Tokens begin .. end - 1, which `members` rows from `row` on read."""

    row: int
    members: int
    begin: int
    end: int
    shared: bool


class Case(NamedTuple):
    """Rows of random lengths, of which the first share blocks, `tile` together at most."""

    rows: int
    most: int  # tokens
    groups: list[tuple[int, int]]  # rows and blocks that they share
    tile: int = 4
    live: int | None = None


CASES = [
    Case(1, 1, []),
    Case(1, 9000, []),
    Case(2, 300, []),
    Case(1, 340, []),  # as many tiles as programs: three
    Case(7, 3000, [(2, 3)]),
    Case(33, 70, []),
    Case(33, 700, [(9, 20), (5, 1), (4, 2)]),
    Case(40, 500, [(16, 30)], 16, live=17),
    Case(64, 1100, [], live=0),
    Case(64, 100, [(64, 15)], 16),
    Case(256, 900, [(100, 7), (3, 60)], 16),
    Case(256, 600, [], live=201),
]


@pytest.fixture(
    params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)], ids=["interpreter", "cuda"]
)
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cpu" and not knobs.runtime.interpret:
        pytest.skip("with a GPU the kernels are compiled: run -m gpu")
    return torch.device(request.param)


def spans_of(case: Case, lengths: list[int], window: int = 0) -> list[Span]:
    """Tiles first, then what each row that counts has of its own."""
    shared: dict[int, int] = {}
    tiles, first = [], 0
    for rows, blocks in case.groups:
        for row in range(first, first + rows, case.tile):
            members = min(case.tile, first + rows - row)
            if members > 1:
                tiles.append(Span(row, members, 0, blocks * PAGE, True))
                shared |= dict.fromkeys(range(row, row + members), blocks * PAGE)
        first += rows
    alive = case.rows if case.live is None else case.live
    own = []
    for row, length in enumerate(lengths[:alive]):
        begin = shared.get(row, 0)
        if window:
            begin = max(length - window, 0) // decode_plan.TILE * decode_plan.TILE
        own.append(Span(row, 1, begin, length, False))
    return ([] if window else tiles) + own


def lengths_of(case: Case) -> list[int]:
    """Each has a token of its own at least."""
    lengths = np.random.default_rng(case.rows).integers(1, case.most + 1, case.rows)
    first = 0
    for rows, blocks in case.groups:
        lengths[first : first + rows] += blocks * PAGE
        first += rows
    return [int(length) for length in lengths]


def on_device(case: Case, spans: list[Span], device: torch.device) -> Sharing | None:
    """Tiles as the shard uploads them: a power of two of them, a half of the rows at most."""
    if case.rows < 2:
        return None
    tile_of_row = torch.full((case.rows,), -1, dtype=torch.int32)
    tiles = torch.zeros(1 << max(0, (case.rows - 1).bit_length() - 1), 3, dtype=torch.int32)
    for index, span in enumerate(span for span in spans if span.shared):
        tile_of_row[span.row : span.row + span.members] = index
        tiles[index] = torch.tensor([span.row, span.members, span.end])
    return Sharing(tile_of_row.to(device), tiles.to(device))


def partials(rows: int, spans: list[Span], pieces: list[int]) -> list[list[int]]:
    """First partial result of each row, those of its own span, all of them."""
    own, whole = [0] * rows, [0] * rows
    for span, count in zip(spans, pieces, strict=True):
        for row in range(span.row, span.row + span.members):
            whole[row] += count
            if not span.shared:
                own[row] = count
    first = np.cumsum([0, *whole])[:-1].tolist()
    return [list(numbers) for numbers in zip(first, own, whole, strict=True)]


def live_of(case: Case, device: torch.device) -> Tensor | None:
    return None if case.live is None else torch.tensor([case.live], dtype=torch.int32).to(device)


@pytest.mark.parametrize("programs", [3, 33])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_plan_on_hopper(device: torch.device, case: Case, programs: int) -> None:
    """Spans and their gaps on a line, which programs take equal shares of."""
    lengths, keys = lengths_of(case), 64
    spans = spans_of(case, lengths)
    steps = [-(-(span.end - span.begin) // keys) for span in spans]
    gap = int(sum(steps) > programs)
    share = max(1, -(-(sum(steps) + gap * len(spans)) // programs))
    slots = torch.randperm(case.rows, generator=torch.Generator().manual_seed(0))
    items, taken, pieces, at = [], [], [], 0
    for span, count in zip(spans, steps, strict=True):
        at += gap
        first, last = at // share, (at + count - 1) // share
        for program in range(first, last + 1):
            begin = span.begin + max(0, program * share - at) * keys
            end = min(span.end, span.begin + ((program + 1) * share - at) * keys)
            piece = 2 * (program - first) + span.shared
            items.append([span.row, span.members, begin, end, piece, int(slots[span.row]), 0])
            taken.append(program)
        pieces.append(last + 1 - first)
        at += count
    bounds = [sum(number < program for number in taken) for program in range(programs + 1)]
    plan = hopper_plan.empty_plan(case.rows + 3, case.rows, programs, device)
    for tensor in (plan.items, plan.bounds, plan.spans):
        tensor.fill_(-7)  # what stood there before does not count
    hopper_plan.plan_hopper(
        plan, torch.tensor(lengths, device=device) - 1, slots.to(device), keys,
        live_of(case, device), on_device(case, spans, device),
        dependent=supports_dependent_launch(device),
    )  # fmt: skip
    assert plan.bounds.tolist() == bounds
    assert plan.items[: len(items)].tolist() == items
    assert plan.spans[: case.rows].tolist() == partials(case.rows, spans, pieces)


@pytest.mark.parametrize("window", [0, 100])
@pytest.mark.parametrize("kv_heads", [1, 8])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_portable_plan(device: torch.device, case: Case, kv_heads: int, window: int) -> None:
    """Spans in pieces of one length, which depends on how many programs there would be."""
    lengths, tile = lengths_of(case), decode_plan.TILE
    shared = spans_of(case, lengths)
    spans = spans_of(case, lengths, window)
    total = sum(span.end - span.begin for span in spans)
    piece = -(-total * kv_heads // decode_plan.TARGET)
    if len(spans) * kv_heads >= decode_plan.ENOUGH:
        piece = max(piece, total * 3 // (2 * len(spans)))
    piece = max(1, -(-piece // tile)) * tile
    items = [
        [span.row, span.members, begin, min(begin + piece, span.end), 2 * number + span.shared]
        for span in spans
        for number, begin in enumerate(range(span.begin, span.end, piece))
    ]
    pieces = [-(-(span.end - span.begin) // piece) for span in spans]
    sharing = on_device(case, shared, device)
    most = decode_plan.most_items(case.rows, len(sharing.tiles) if sharing else 0, kv_heads)
    plan = decode_plan.DecodePlan(
        torch.full((most, decode_plan.ITEM), 7, dtype=torch.int32, device=device),
        torch.full((case.rows, decode_plan.SPAN), -7, dtype=torch.int32, device=device),
    )
    decode_plan.plan_decode(
        plan, torch.tensor(lengths, device=device) - 1, kv_heads, live_of(case, device),
        sharing, window or None, supports_dependent_launch(device),
    )  # fmt: skip
    assert plan.items[: len(items)].tolist() == items
    assert not plan.items[len(items) :, 1].any()
    assert plan.spans.tolist() == partials(case.rows, spans, pieces)
