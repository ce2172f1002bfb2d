"""Experts: the grouped products against one expert after the other."""

from __future__ import annotations

import pytest
import torch

from penstock_kernels.experts import Experts, choose
from penstock_kernels.gpu.products.experts import group, mix, tile_rows
from penstock_kernels.ops import Act
from penstock_kernels.reference.experts import mix as reference
from penstock_kernels.stacked import Stacked
from support.logit_places import LOGIT_PLACES

pytestmark = pytest.mark.filterwarnings(
    "ignore::RuntimeWarning:triton", "ignore::DeprecationWarning"
)


def experts_of(
    place: tuple[str, torch.dtype], count: int, top: int, hidden: int, inner: int, act: Act
) -> Experts:
    device, dtype = place
    up = torch.randn(count, 2 * inner, hidden) * hidden**-0.5
    down = torch.randn(count, hidden, inner) * inner**-0.5
    biases: tuple[torch.Tensor | None, ...] = (None, None)
    if act is Act.CLAMPED_SWIGLU:
        biases = torch.randn(count, 2 * inner) * 5, torch.randn(count, hidden)
    up, down = (
        Stacked.dense(each.to(device, dtype), None if bias is None else bias.to(device, dtype))
        for each, bias in zip((up, down), biases, strict=True)
    )
    return Experts(up, down, act, top, top % 2 == 0)


@pytest.mark.parametrize("place", LOGIT_PLACES)
@pytest.mark.parametrize(
    ("rows", "count", "top", "hidden", "inner", "act"),
    [
        (1, 8, 2, 64, 96, Act.SILU),
        (5, 3, 3, 96, 40, Act.GELU),  # every expert, and an inner size that fills no tile
        (70, 4, 1, 64, 64, Act.GELU_TANH),
        (150, 5, 4, 40, 136, Act.SILU),
        (20, 6, 4, 64, 40, Act.CLAMPED_SWIGLU),
    ],
)
def test_what_the_kernels_add_up(
    place: tuple[str, torch.dtype],
    rows: int,
    count: int,
    top: int,
    hidden: int,
    inner: int,
    act: Act,
) -> None:
    torch.manual_seed(rows)
    device, dtype = place
    experts = experts_of(place, count, top, hidden, inner, act)
    x = torch.randn(rows, hidden).to(device, dtype)
    logits = torch.randn(rows, count).to(device, dtype)
    if count > top:
        logits[:, 1] = -30.0  # an expert that no row takes
    found, expected = mix(x, logits, experts), reference(x, logits, experts)
    assert found.dtype == dtype
    near = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found, expected, rtol=near, atol=near)


def test_a_row_has_the_same_result_among_others() -> None:
    """In tiles of one size: what else is in a tile, and which rows, changes nothing."""
    torch.manual_seed(0)
    experts = experts_of(("cpu", torch.float32), 4, 2, 64, 48, Act.SILU)
    x, logits = torch.randn(6, 64), torch.randn(6, 4)
    together, order = mix(x, logits, experts), torch.randperm(6)
    assert torch.equal(mix(x[order], logits[order], experts), together[order])
    assert torch.equal(mix(x[:1], logits[:1], experts), together[:1])


@pytest.mark.parametrize(("rows", "count", "top"), [(1, 8, 2), (33, 5, 3), (64, 128, 8), (9, 2, 2)])
def test_tiles_hold_each_pair_once(rows: int, count: int, top: int) -> None:
    torch.manual_seed(rows)
    experts = experts_of(("cpu", torch.float32), count, top, 8, 8, Act.SILU)
    _, chosen = choose(torch.randn(rows, count) * 3, experts)
    size = tile_rows(rows, experts)
    groups = group(chosen, count, size)
    pairs = groups.pair.view(-1, size)
    real = pairs < chosen.numel()
    assert sorted(pairs[real].tolist()) == list(range(chosen.numel()))
    for tile, owner in enumerate(groups.expert.tolist()):
        of_tile = pairs[tile][real[tile]].long()
        assert (chosen.flatten()[of_tile] == owner).all()
        assert owner >= 0 or not len(of_tile)
