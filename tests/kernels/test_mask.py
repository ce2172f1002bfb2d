"""Tokens drawn under a mask: by the kernels as by the reference, and only what is allowed."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from kernels.test_draw import SLOTS, WANTED, draws_of, logits_of
from penstock_kernels.draw import draw as reference
from penstock_kernels.gpu.sampling.draw import draw
from penstock_kernels.mask import Mask, hide, words_of
from penstock_kernels.sampler import NO_TOKEN
from support.logit_places import LOGIT_PLACES

pytestmark = pytest.mark.filterwarnings(
    "ignore::RuntimeWarning:triton", "ignore::DeprecationWarning"
)


@pytest.fixture(params=LOGIT_PLACES)
def place(request: pytest.FixtureRequest) -> tuple[str, torch.dtype]:
    return request.param  # type: ignore[no-any-return]


def mask_of(allowed: Tensor, on: list[int]) -> Mask:
    """allowed: [slots, v] bool."""
    words = words_of(allowed.shape[1])
    padded = torch.zeros(len(allowed), words * 32, dtype=torch.int64, device=allowed.device)
    padded[:, : allowed.shape[1]] = allowed
    weights = 1 << torch.arange(32, dtype=torch.int64, device=allowed.device)
    bits = (padded.view(len(allowed), words, 32) * weights).sum(2)
    signed = torch.where(bits >= 1 << 31, bits - (1 << 32), bits).to(torch.int32)
    return Mask(signed, torch.tensor(on, dtype=torch.int32, device=allowed.device))


@pytest.mark.parametrize("width", [1, 31, 4097, pytest.param(10_001, marks=pytest.mark.full)])
def test_each_token_is_the_references_and_allowed(
    place: tuple[str, torch.dtype], width: int
) -> None:
    torch.manual_seed(width)
    logits = logits_of(place, SLOTS, width, 3.0)
    allowed = torch.rand(SLOTS, width) < 0.1
    allowed[:, width // 2] = True
    allowed[3] = False
    allowed[3, width - 1] = True
    on = [int(slot % 4 != 2) for slot in range(SLOTS)]
    slots = torch.randperm(SLOTS).tolist()
    for cuts in (True, False):
        plain = draws_of(place[0], slots, any_filter=cuts)
        draws = dataclasses.replace(plain, mask=mask_of(allowed.to(place[0]), on))
        found = draw(logits, draws).tolist()
        assert found == reference(logits, draws).tolist()
        free = reference(logits, plain).tolist()
        for row, slot in enumerate(slots):
            if on[slot]:
                assert allowed[slot, found[row]], (slot, WANTED[slot])
            else:
                assert found[row] == free[row]


def test_a_mask_of_everything_changes_nothing(place: tuple[str, torch.dtype]) -> None:
    logits = logits_of(place, SLOTS, 5000, 2.0)
    plain = draws_of(place[0], list(range(SLOTS)))
    everything = torch.ones(SLOTS, 5000, dtype=torch.bool, device=place[0])
    masked = dataclasses.replace(plain, mask=mask_of(everything, [1] * SLOTS))
    assert draw(logits, masked).tolist() == draw(logits, plain).tolist()


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_is_no_number_is_seen_behind_a_mask(
    place: tuple[str, torch.dtype], broken: float
) -> None:
    logits = logits_of(place, SLOTS, 5000, 1.0).clone()
    logits[1, 4097] = broken
    allowed = torch.zeros(SLOTS, 5000, dtype=torch.bool, device=place[0])
    allowed[:, 7] = True
    draws = draws_of(place[0], list(range(SLOTS)))
    draws = dataclasses.replace(draws, mask=mask_of(allowed, [1] * SLOTS))
    expected = [NO_TOKEN if row == 1 else 7 for row in range(SLOTS)]
    assert draw(logits, draws).tolist() == reference(logits, draws).tolist() == expected


def test_bits_are_read_from_the_lowest() -> None:
    allowed = torch.rand(3, 77) < 0.5
    hidden = hide(torch.zeros(3, 77), torch.tensor([2, 0, 1]), mask_of(allowed, [1, 1, 1]))
    assert torch.equal(hidden == 0, allowed[[2, 0, 1]])
