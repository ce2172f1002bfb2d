"""Tokens drawn by kernels are those of the reference, whatever the cuts, the type and the batch."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from penstock_kernels.draw import SamplingBatch
from penstock_kernels.draw import draw as reference
from penstock_kernels.gpu.sampling.draw import draw
from penstock_kernels.gpu.sampling.penalties import penalise
from penstock_kernels.noise import seed_keys
from penstock_kernels.penalties import Penalties
from penstock_kernels.penalties import penalise as penalised
from penstock_kernels.sampler import NO_TOKEN
from support.logit_places import LOGIT_PLACES
from support.sampled import crossed

pytestmark = pytest.mark.filterwarnings(
    "ignore::RuntimeWarning:triton", "ignore::DeprecationWarning"
)
SLOTS = 13
# temperature, top_k, top_p, min_p
WANTED = [
    (0.0, 0, 1.0, 0.0),
    (1.0, 0, 1.0, 0.0),
    (0.7, 0, 0.9, 0.0),
    (1.0, 50, 1.0, 0.0),
    (1.3, 7, 0.5, 0.0),
    (1.0, 0, 1.0, 0.1),
    (0.2, 3, 0.99, 0.3),
    (2.0, 0, 0.95, 0.02),
    (100.0, 0, 0.6, 0.0),
    (1e-5, 0, 0.9, 0.0),
    (1.0, 1, 1.0, 0.0),
    (1.0, 1_000_000, 0.9999999, 0.0),
    (0.0, 5, 0.5, 0.5),
]

KEYS = torch.tensor([seed_keys(77 * slot) for slot in range(SLOTS)], dtype=torch.int32)


def draws_of(
    device: str,
    slots: list[int],
    *,
    any_filter: bool = True,
    generated: int = 0,
    rows: Tensor | None = None,
) -> SamplingBatch:
    """What WANTED says of these slots. The columns lie among others, as in a sampling state."""
    random = [WANTED[slot] for slot in slots if WANTED[slot][0] > 0]
    table = torch.rand(SLOTS, 5)
    for column, place in ((0, 0), (2, 1), (3, 3)):
        table[:, place] = torch.tensor([wanted[column] for wanted in WANTED])
    table = table.to(device)
    return SamplingBatch(
        slots=torch.tensor(slots, device=device),
        rows=torch.arange(len(slots), device=device) if rows is None else rows.to(device),
        temperature=table[:, 0],
        top_k=torch.tensor([wanted[1] for wanted in WANTED], device=device),
        top_p=table[:, 1],
        min_p=table[:, 3],
        keys=torch.tensor([seed_keys(77 * slot) for slot in range(SLOTS)], dtype=torch.int32).to(
            device
        ),
        generated=torch.arange(generated, generated + SLOTS, device=device),
        any_top_k=any_filter and any(top_k > 0 for _, top_k, _, _ in random),
        any_top_p=any_filter and any(top_p < 1 for _, _, top_p, _ in random),
        any_filter=any_filter,
    )


@pytest.fixture(params=LOGIT_PLACES)
def place(request: pytest.FixtureRequest) -> tuple[str, torch.dtype]:
    return request.param  # type: ignore[no-any-return]


def logits_of(place: tuple[str, torch.dtype], rows: int, width: int, spread: float) -> Tensor:
    """Rows of a wider tensor, as a padded vocabulary leaves them."""
    device, dtype = place
    return (torch.randn(rows, width + 5) * spread).to(device, dtype)[:, :width]


@pytest.mark.parametrize(
    ("spread", "width"),
    crossed(
        [0.3, 4.0],
        [1, 40, 4096, 10_001],
        sample=lambda spread, width: (spread < 1) == (width in (40, 10_001)),
    ),
)
def test_each_token_is_the_references(
    place: tuple[str, torch.dtype], width: int, spread: float
) -> None:
    """Float16 and bfloat16 have many equal logits, at the cuts too."""
    torch.manual_seed(width)
    for generated in (0, 100) if width == 40 else (0,):
        logits = logits_of(place, 20, width, spread)
        rows = torch.randperm(20)[:SLOTS]
        slots = torch.randperm(SLOTS).tolist()
        for any_filter in (True, False):
            draws = draws_of(place[0], slots, any_filter=any_filter, generated=generated, rows=rows)
            before = logits.clone()
            assert draw(logits, draws).tolist() == reference(logits, draws).tolist()
            assert torch.equal(logits, before)


def test_a_row_is_drawn_alike_in_any_batch(place: tuple[str, torch.dtype]) -> None:
    logits = logits_of(place, SLOTS, 5000, 2.0)
    together = draw(logits, draws_of(place[0], list(range(SLOTS)))).tolist()
    for slot in range(1, SLOTS, 2):
        alone = draws_of(place[0], [slot], rows=torch.tensor([slot]))
        assert draw(logits, alone).tolist() == [together[slot]]


def test_what_lies_at_the_cut_is_kept(place: tuple[str, torch.dtype]) -> None:
    """Of equal logits all or none: k = 3 keeps five, a nucleus of 0.55 keeps two."""
    logits = torch.full((1, 300), -5.0)
    logits[0, [3, 200]] = 2.0
    logits[0, [7, 8, 299]] = 1.0
    logits = logits.to(*place)

    def batch(k: int, p: float, generated: list[int]) -> SamplingBatch:
        """Slots that differ in nothing but the tokens they have."""
        count, device = len(generated), place[0]
        return SamplingBatch(
            slots=torch.arange(count, device=device),
            rows=torch.zeros(count, dtype=torch.int64, device=device),
            temperature=torch.ones(count, device=device),
            top_k=torch.full((count,), k, device=device),
            top_p=torch.full((count,), p, device=device),
            min_p=torch.zeros(count, device=device),
            keys=KEYS[:1].repeat(count, 1).to(device),
            generated=torch.tensor(generated, device=device),
            any_top_k=True,
            any_top_p=True,
            any_filter=True,
        )

    def drawn(k: int, p: float) -> set[int]:
        """Where the reference draws each of what it keeps, and where it would draw three others
        without the cut."""
        many = list(range(400))
        kept = {token: i for i, token in enumerate(reference(logits, batch(k, p, many)).tolist())}
        uncut = reference(logits, batch(0, 1.0, many)).tolist()
        others = [i for i in many if uncut[i] not in kept][:3]
        assert len(others) == 3
        return set(draw(logits, batch(k, p, [*kept.values(), *others])).tolist())

    assert drawn(3, 1.0) == {3, 7, 8, 200, 299}
    # 2 e^2 of 2 e^2 + 3 e + 295 e^-5 is 0.58
    assert drawn(0, 0.55) == {3, 200}


@pytest.mark.parametrize(
    ("any_filter", "broken"),
    crossed(
        [True, False],
        [math.nan, math.inf, -math.inf],
        sample=lambda any_filter, broken: any_filter == (broken != math.inf),
    ),
)
def test_a_row_without_a_finite_largest_logit_has_no_token(
    place: tuple[str, torch.dtype], broken: float, any_filter: bool
) -> None:
    """Whatever is asked for, from the kernels and from the reference; the rows between are as they
    would be without it."""
    slots = list(range(0, SLOTS, 2))
    logits = logits_of(place, len(slots), 5000, 1.0).clone()
    draws = draws_of(place[0], slots, any_filter=any_filter)
    expected = draw(logits, draws)
    rows = torch.arange(len(slots), device=place[0]) % 3 > 0
    if broken == -math.inf:
        logits[rows] = broken
    else:
        logits[rows, 4097] = broken
    for found in (draw(logits, draws), reference(logits, draws)):
        assert found.tolist() == torch.where(rows, NO_TOKEN, expected).tolist()


def test_the_only_finite_logit_is_drawn(place: tuple[str, torch.dtype]) -> None:
    logits = logits_of(place, SLOTS, 5000, 1.0).fill_(-math.inf)
    logits[:, 17] = 1.0
    assert draw(logits, draws_of(place[0], list(range(SLOTS)))).tolist() == [17] * SLOTS


@pytest.mark.parametrize("width", [1, 4097])
def test_penalties_are_the_references(place: tuple[str, torch.dtype], width: int) -> None:
    device = place[0]
    logits = logits_of(place, 9, width, 3.0)
    table = torch.rand(SLOTS, 4)
    table[:, 1] += 0.5  # repetition
    table[:, 2:] = table[:, 2:] * 4 - 2
    table[3] = torch.tensor([0.0, 1.0, 0.0, 0.0])  # nothing
    table = table.to(device)
    counts = torch.randint(0, 7, (SLOTS, width), dtype=torch.int32).clamp_(min=2).sub_(2).to(device)
    penalties = Penalties(
        slots=torch.tensor([3, 12, 0, 7, 5], device=device),
        rows=torch.tensor([8, 0, 3, 4, 1], device=device),
        counts=counts,
        repetition=table[:, 1],
        frequency=table[:, 2],
        presence=table[:, 3],
    )
    found, expected = penalise(logits, penalties), penalised(logits, penalties)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=2e-6)
    assert torch.equal(found[0], logits[8].float())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_draws_of_a_whole_vocabulary(dtype: torch.dtype) -> None:
    """At the size of a model. A sum in another order may move a cut by one token of 10^5, and
    noise is another by less than 1e-5: a few of thousands of tokens may differ, each between two
    that were as likely."""
    torch.manual_seed(3)
    slots = (list(range(SLOTS)) * 20)[:256]
    different = Counter[int]()
    for generated in range(0, 40, 2):
        logits = (torch.randn(256, 128_256, device="cuda") * 3).to(dtype)
        draws = draws_of("cuda", slots, generated=generated)
        found, expected = draw(logits, draws), reference(logits, draws)
        assert torch.equal(found, draw(logits, draws)), "not the same the second time"
        for row in (found != expected).nonzero().flatten().tolist():
            different[slots[row]] += 1
    assert different.total() <= 10, different
