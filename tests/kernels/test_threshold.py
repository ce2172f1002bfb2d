"""What the cuts leave of a row, against sorted rows in float64; and that the turns are enough."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from penstock_kernels.draw import SamplingBatch
from penstock_kernels.gpu.sampling import threshold as kernels
from penstock_kernels.gpu.sampling.threshold import PARTS, SPARE_BITS, filter_threshold, turns_of
from support.logit_places import LOGIT_PLACES

Floats = NDArray[np.float64]
PIECE = 64  # small, so that rows have many pieces
CUTS = [  # temperature, top_k, top_p, min_p
    (1.0, 1, 1.0, 0.0),
    (1.0, 7, 1.0, 0.0),
    (1.0, 100_000, 1.0, 0.0),
    (1.0, 0, 0.5, 0.0),
    (0.7, 0, 0.95, 0.0),
    (5.0, 0, 0.999, 0.0),
    (0.01, 0, 0.9, 0.0),
    (100.0, 0, 0.3, 0.0),
    (1.0, 20, 0.8, 0.0),
    (1.0, 0, 1.0, 0.05),
    (2.0, 30, 0.9, 0.3),
    (0.0, 3, 0.5, 0.5),
]
pytestmark = pytest.mark.filterwarnings(
    "ignore::RuntimeWarning:triton", "ignore::DeprecationWarning"
)


@pytest.fixture(params=LOGIT_PLACES)
def place(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, torch.dtype]:
    """Where, and the type of the logits."""
    if request.param[0] == "cpu":
        monkeypatch.setattr(kernels, "PIECE", PIECE)
    found: tuple[str, torch.dtype] = request.param
    return found


def rows_of(width: int, dtype: torch.dtype) -> Iterator[Tensor]:
    """Rows that a search has trouble with."""
    yield torch.randn(width) * 3
    deep = torch.full((width,), -4.9)  # of many, which a nucleus of 0.95 at 0.7 needs
    deep[0] = 0.0
    yield deep
    yield torch.randn(width) * 0.01
    yield torch.randn(width) * 0.1 + 1000
    yield torch.randn(width) * 0.1 - 1000
    yield torch.full((width,), -3.25)
    yield torch.where(torch.rand(width) < 0.5, torch.randn(width) * 4, torch.tensor(-math.inf))
    outlier = torch.full((width,), -2.0)
    outlier[width // 2] = 40.0
    yield outlier
    yield torch.randn(width).sign() * torch.exp(torch.randn(width) * 4)  # many places apart
    yield torch.randn(width).sign() * torch.finfo(dtype).max


def draws_of(cuts: list[tuple[float, int, float, float]], device: str) -> SamplingBatch:
    """The same row once for each of the cuts."""
    temperature, top_k, top_p, min_p = (
        torch.tensor([wanted[column] for wanted in cuts], device=device) for column in range(4)
    )
    slots = torch.arange(len(cuts), device=device)
    random = [wanted for wanted in cuts if wanted[0] > 0]
    return SamplingBatch(
        slots=slots,
        rows=torch.zeros_like(slots),
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        keys=torch.zeros(len(cuts), 2, dtype=torch.int32, device=device),
        generated=torch.zeros_like(slots),
        any_top_k=any(wanted[1] > 0 for wanted in random),
        any_top_p=any(wanted[2] < 1 for wanted in random),
        any_filter=True,
    )


def least_left(row: Floats, wanted: tuple[float, int, float, float], slack: float) -> float:
    """The smallest logit that is left, when a nucleus needs `slack` times its share."""
    temperature, k, p, min_p = wanted
    ranked = np.sort(row[np.isfinite(row)])[::-1]
    if 0 < k < len(ranked):
        ranked = ranked[ranked >= ranked[k - 1]]
    if p < 1:
        weights = np.exp((ranked - ranked[0]) / temperature)
        enough = np.flatnonzero(weights.cumsum() >= min(p * slack, 1 - 1e-12) * weights.sum())
        ranked = ranked[ranked >= ranked[enough[0]]]
    if min_p > 0:
        ranked = ranked[ranked >= ranked[0] + temperature * math.log(min_p)]
    return float(ranked[-1])


@pytest.mark.parametrize("width", [1, pytest.param(130, marks=pytest.mark.full)])
def test_cuts_are_those_of_sorted_rows(place: tuple[str, torch.dtype], width: int) -> None:
    """Float32 sums are right to some 1e-5, so the cut lies between two that are as near."""
    torch.manual_seed(width)
    device, dtype = place
    for i, row in enumerate(rows_of(width, dtype)):
        row = row.to(dtype)
        if not row.isfinite().any():
            continue
        cuts = CUTS[i % 3 :: 3] if device == "cpu" else CUTS  # 10 ms a program in the interpreter
        found = filter_threshold(row.unsqueeze(0).to(device), draws_of(cuts, device)).tolist()
        plain = row.double().numpy()
        for least, wanted in zip(found, cuts, strict=True):
            if wanted[0] == 0:
                assert least == -math.inf
                continue
            left = float(plain[plain >= least].min())
            bounds = [least_left(plain, wanted, slack) for slack in (1 + 3e-5, 1 - 3e-5)]
            assert bounds[0] <= left <= bounds[1], (wanted, plain)


def test_a_cut_is_the_same_beside_others(place: tuple[str, torch.dtype]) -> None:
    """Also where no other row wants what this one does not, and turns are left out."""
    torch.manual_seed(1)
    logits = (torch.randn(1, 130) * 3).to(place[1]).to(place[0])
    cuts = [(1.0, 7, 1.0, 0.0), (0.7, 0, 0.95, 0.0), (1.0, 20, 0.8, 0.0), (1.0, 0, 1.0, 0.05)]
    together = filter_threshold(logits, draws_of(cuts, place[0]))
    for found, wanted in zip(together.tolist(), cuts, strict=True):
        assert filter_threshold(logits, draws_of([wanted], place[0])).tolist() == [found]


@triton.jit
def _parts_kernel(
    lows, highs, turn, out, n, SPARE: tl.constexpr, PARTS: tl.constexpr, BLOCK: tl.constexpr
):  # type: ignore[no-untyped-def]
    """Where the parts of many intervals begin, and the last one ends."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    low, high = tl.load(lows + i, mask=i < n, other=0), tl.load(highs + i, mask=i < n, other=0)
    for part in range(PARTS + 1):
        begin = kernels._between(low, high, turn, part, SPARE, PARTS)
        tl.store(out + part * n + i, begin, mask=i < n)


@pytest.mark.parametrize("dtype", SPARE_BITS, ids=str)
def test_the_turns_are_enough(dtype: torch.dtype) -> None:
    """Parts follow one another, and none is longer than the turns that are left can search."""
    spare, turns = SPARE_BITS[dtype], turns_of(dtype)
    largest = np.array(3.4028234663852886e38, np.float32).view(np.int32) >> spare
    longest = 2 * int(largest) + 2  # places of finite floats, and the end
    generator = np.random.default_rng(0)
    for turn in (0, 1, turns - 1):
        most = min(longest, PARTS ** (turns - turn))
        widths = np.unique(np.clip(generator.integers(1, most + 1, 30_000), 1, most))
        if most < 100_000:
            widths = np.arange(1, most + 1)
        ends = [(4096 << (16 - spare)) + i for i in range(-2, 3)] + [most - 1, most]
        widths = np.union1d(widths, [width for width in ends if 0 < width <= most])
        lows = torch.from_numpy(-(widths // 2))
        highs = lows + torch.from_numpy(widths)
        if spare:
            lows, highs = lows.int(), highs.int()
        out = torch.empty(PARTS + 1, len(widths), dtype=lows.dtype)
        _parts_kernel[(triton.cdiv(len(widths), 4096),)](
            lows, highs, turn, out, len(widths), SPARE=spare, PARTS=PARTS, BLOCK=4096
        )
        assert torch.equal(out[0], lows) and torch.equal(out[-1], highs)
        parts = out.diff(dim=0)
        assert parts.min() >= 0
        assert parts.max() <= PARTS ** (turns - turn - 1)


def test_the_reference_is_right() -> None:
    """By hand: weights 4, 2, 1, 1 of 8."""
    row = np.log(np.array([4.0, 1.0, 2.0, 1.0]))
    for k, p, min_p, weight in (
        (0, 0.499, 0.0, 4), (0, 0.51, 0.0, 2), (0, 0.76, 0.0, 1),
        (2, 1.0, 0.0, 2), (2, 0.6, 0.0, 4), (0, 1.0, 0.3, 2),
    ):  # fmt: skip
        assert np.exp(least_left(row, (1.0, k, p, min_p), 1.0)) == pytest.approx(weight)
