"""What a step takes from the slots of its rows, and what it leaves there: one launch each.

A slot is a sequence's seat: its last token and how many of its tokens stand in the cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.launch.dependent import launch, wait

BLOCK = 128  # rows of a program


@triton.jit(do_not_specialize=["rows"], do_not_specialize_on_alignment=["slots", "given", "places"])
def _read_slots_kernel(
    slots, last_tokens, lengths, given, places, tokens, positions, rows,
    GIVEN: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    wait(PDL)
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = row < rows
    slot = tl.load(slots + row, mask=inside, other=0)
    # Of a row that found NO_TOKEN nothing is read any more, but it must be computed.
    token = tl.maximum(tl.load(last_tokens + slot, mask=inside, other=0), 0)
    position = tl.load(lengths + slot, mask=inside, other=0)
    if GIVEN:
        fixed = tl.load(given + row, mask=inside, other=0)
        decodes = fixed < 0
        token = tl.where(decodes, token, fixed)
        position = tl.where(decodes, position, tl.load(places + row, mask=inside, other=0))
    tl.store(tokens + row, token, mask=inside)
    tl.store(positions + row, position, mask=inside)


def read_slots(
    slots: Tensor,
    last_tokens: Tensor,
    lengths: Tensor,
    given: tuple[Tensor, Tensor] | None = None,
    dependent: bool = False,
) -> tuple[Tensor, Tensor]:
    """Token and position of each row: its slot's, or where a token (not -1) is given, the given.
    A slot with NO_TOKEN gives token 0.

    slots, and given tokens and positions: [rows] int64; last_tokens, lengths: [slots] int64.
    Returns two [rows] int64.
    """
    rows = len(slots)
    tokens, positions = torch.empty_like(slots), torch.empty_like(slots)
    fixed, places = given or (slots, slots)
    _read_slots_kernel[(triton.cdiv(rows, BLOCK),)](
        slots, last_tokens, lengths, fixed, places, tokens, positions, rows,
        GIVEN=given is not None, BLOCK=BLOCK, num_warps=4, **launch(dependent),
    )  # fmt: skip
    return tokens, positions


@triton.jit(
    do_not_specialize=["count", "scratch"],
    do_not_specialize_on_alignment=["slots", "positions", "ends", "tokens"],
)
def _advance_slots_kernel(
    slots, positions, ends, tokens, last_tokens, lengths, count, scratch,
    ENDS: tl.constexpr, TOKENS: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    wait(PDL)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < count
    row = index
    if ENDS:
        row = tl.load(ends + index, mask=inside, other=0)
        # Equal rows may have got different tokens, where a product rounds by the place of a row.
        inside &= row != tl.load(ends + index - 1, mask=inside & (index > 0), other=-1)
    slot = tl.load(slots + row, mask=inside, other=0)
    length = tl.load(positions + row, mask=inside, other=0) + 1
    tl.store(lengths + slot, tl.where(slot == scratch, 0, length), mask=inside)
    if TOKENS:
        tl.store(last_tokens + slot, tl.load(tokens + index, mask=inside, other=0), mask=inside)


def advance_slots(
    slots: Tensor,
    positions: Tensor,
    ends: Tensor | None,
    tokens: Tensor | None,
    last_tokens: Tensor,
    lengths: Tensor,
    dependent: bool = False,
) -> None:
    """Move slots on: their lengths to behind these rows, their last tokens to those chosen.

    slots, positions: [rows] int64; ends: [count] int64, the rows that count (None: all); where one
    comes again right away, the first counts; tokens: [count] int64, None: not chosen here;
    last_tokens, lengths: [slots] int64, written; the last slot is that of padding and keeps length
    0.
    """
    count = len(slots) if ends is None else len(ends)
    _advance_slots_kernel[(triton.cdiv(count, BLOCK),)](
        slots, positions, slots if ends is None else ends, slots if tokens is None else tokens,
        last_tokens, lengths, count, len(lengths) - 1,
        ENDS=ends is not None, TOKENS=tokens is not None, BLOCK=BLOCK, num_warps=4,
        **launch(dependent),
    )  # fmt: skip
