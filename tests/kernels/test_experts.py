"""Experts: the grouped products against one expert after the other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from penstock_kernels.experts import Experts
from penstock_kernels.experts import choose as chosen_by_torch
from penstock_kernels.gpu.products import expert_groups
from penstock_kernels.gpu.products import experts as experts_module
from penstock_kernels.gpu.products.expert_groups import choose, group, tile_rows
from penstock_kernels.gpu.products.experts import mix
from penstock_kernels.ops import Act
from penstock_kernels.reference.experts import mix as reference
from penstock_kernels.stacked import Stacked, stack
from support.logit_places import LOGIT_PLACES
from support.stacks import KINDS, on, stack_of, weight_of, with_bias

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
    if act is Act.CLAMPED_SWIGLU:  # and some of its sums are clamped
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
        (100, 5, 4, 40, 136, Act.SILU),
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
    largest = max(1.0, float(expected.abs().max()))  # sums of large numbers may be small
    torch.testing.assert_close(found, expected, rtol=near, atol=near * largest)


def test_a_row_has_the_same_result_among_others() -> None:
    """In tiles of one size: what else is in a tile, and which rows, changes nothing."""
    torch.manual_seed(0)
    experts = experts_of(("cpu", torch.float32), 4, 2, 64, 48, Act.SILU)
    x, logits = torch.randn(6, 64), torch.randn(6, 4)
    together, order = mix(x, logits, experts), torch.randperm(6)
    assert torch.equal(mix(x[order], logits[order], experts), together[order])
    assert torch.equal(mix(x[:1], logits[:1], experts), together[:1])


def assert_rounded(found: torch.Tensor, x: torch.Tensor, logits: torch.Tensor, ex: Experts) -> None:
    """What `mix` found is the exact result but for rounding. Some ten roundings on the way, each of
    up to half a last place, move a result by parts of what is added up for its row; those of nf4's
    numbers and scales go together, and were twelve halves in the worst of many cases."""
    exact = reference(x.float(), logits.float(), ex)
    size = torch.maximum(exact.abs(), exact.square().mean(1, keepdim=True).sqrt())
    near = 2e-5 if x.dtype == torch.float32 else 12 * torch.finfo(x.dtype).eps / 2
    assert found.dtype == x.dtype
    assert float(((found.float() - exact).abs() / size).max()) < near


PAIRS = [(kind, kind) for kind in KINDS] + [("int4", "fp8"), ("mxfp4", "dense"), ("dense", "int8")]
WHOLE, PARTIAL = (3, 128, 64), (9, 192, 96)  # sizes that fill tiles, and some that do not
ONE = (1, *WHOLE[1:])
INTERPRETED = ((torch.float32, PARTIAL), (torch.float16, WHOLE), (torch.float32, ONE))


@pytest.mark.parametrize("place", LOGIT_PLACES)
@pytest.mark.parametrize("sizes", [WHOLE, PARTIAL, ONE], ids=["whole", "partial", "one row"])
@pytest.mark.parametrize(("kind", "other"), PAIRS)
def test_layouts_are_read_as_they_are(
    place: tuple[str, torch.dtype], sizes: tuple[int, int, int], kind: str, other: str
) -> None:
    """One kind above the other."""
    device, dtype = place
    torch.manual_seed(0)
    if device == "cpu" and (dtype, sizes) not in INTERPRETED:
        pytest.skip("the interpreter is slow")
    rows, hidden, inner = sizes
    up = on(stack_of(kind, 4, 2 * inner, hidden), device, dtype)
    down = on(stack_of(other, 4, hidden, inner), device, dtype)
    experts = Experts(up, down, Act.SILU, 2, True)
    x = torch.randn(rows, hidden).to(device, dtype)
    logits = torch.randn(rows, 4).to(device, dtype)
    assert_rounded(mix(x, logits, experts), x, logits, experts)


@pytest.mark.parametrize("place", LOGIT_PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_few_rows_without_tiles(
    place: tuple[str, torch.dtype], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of which take the same experts."""
    device, dtype = place
    if device == "cpu" and (dtype != torch.float32 or kind not in ("dense", "int4", "mxfp4")):
        pytest.skip("the interpreter is slow")
    torch.manual_seed(0)
    up, down = (on(stack_of(kind, 3, n, k), device, dtype) for n, k in ((384, 64), (64, 192)))
    monkeypatch.setattr(experts_module, "MOST_ROWS", 3)
    monkeypatch.setattr(experts_module, "grouped", None)
    experts = Experts(up, down, Act.SILU, 2, True)
    x, logits = torch.randn(3, 64).to(device, dtype), torch.randn(3, 3).to(device, dtype)
    assert_rounded(mix(x, logits, experts), x, logits, experts)


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [1, 20, 900])
@pytest.mark.parametrize("kind", ["dense", "fp8", "int8", "int4", "mxfp4"])
def test_experts_of_gpt_oss_sizes(kind: str, rows: int) -> None:
    """Sizes that fill no tile of 128, biases, and tiles of few and of many pairs."""
    torch.manual_seed(rows)
    up, down = (stack_of(kind, 4, n, 2880) for n in (2 * 2880, 2880))
    up, down = (with_bias(each, torch.randn(4, each.n)) for each in (up, down))
    up, down = (on(each, "cuda", torch.bfloat16) for each in (up, down))
    experts = Experts(up, down, Act.CLAMPED_SWIGLU, 2, True)
    x, logits = (torch.randn(rows, n).to("cuda", torch.bfloat16) for n in (2880, 4))
    found, expected = mix(x, logits, experts), reference(x, logits, experts)
    near = 2e-2 * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=near)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["dense", "fp8", "int8", "int4", "nf4", "mxfp4"])
def test_results_repeat_bit_for_bit(kind: str) -> None:
    """Of so many rows that products wait for one another: what is wrong now and then differs."""
    torch.manual_seed(0)
    up, down = (on(stack_of(kind, 8, n, 1472), "cuda", torch.bfloat16) for n in (2944, 1472))
    experts = Experts(up, down, Act.SILU, 4, True)
    x, logits = (torch.randn(4096, n).to("cuda", torch.bfloat16) for n in (1472, 8))
    first = mix(x, logits, experts)
    for _ in range(200):
        assert torch.equal(mix(x, logits, experts), first)


@pytest.mark.parametrize("place", LOGIT_PLACES)
@pytest.mark.parametrize("kind", ["int4 with zeros", "int8, groups"])
def test_inputs_in_another_order(place: tuple[str, torch.dtype], kind: str) -> None:
    """As act-order leaves them: each expert's own."""
    device, dtype = place
    torch.manual_seed(1)
    alone = [
        [replace(weight_of(kind, n, k, seed), order=torch.randperm(k)) for seed in range(3)]
        for n, k in ((256, 192), (192, 128))
    ]
    up, down = (on(stack(weights, 3), device, dtype) for weights in alone)
    experts = Experts(up, down, Act.SILU, 2, True)
    x, logits = torch.randn(9, 192).to(device, dtype), torch.randn(9, 3).to(device, dtype)
    near = 2e-5 if dtype == torch.float32 else 2e-2
    expected = reference(x, logits, experts)
    torch.testing.assert_close(mix(x, logits, experts), expected, rtol=near, atol=near)


@pytest.mark.parametrize("place", LOGIT_PLACES)
@pytest.mark.parametrize("kind", ["dense", "mxfp4", "int4"])
def test_biases(place: tuple[str, torch.dtype], kind: str) -> None:
    device, dtype = place
    torch.manual_seed(2)
    stacks = []
    for n, k in ((256, 64), (64, 128)):
        weights = (weight_of(kind, n, k, seed) for seed in range(3))
        stacks.append(stack((replace(one, bias=torch.randn(n)) for one in weights), 3))
    up, down = (on(stacked, device, dtype) for stacked in stacks)
    experts = Experts(up, down, Act.GELU, 2, False)
    x, logits = torch.randn(5, 64).to(device, dtype), torch.randn(5, 3).to(device, dtype)
    near = 2e-5 if dtype == torch.float32 else 3e-2
    expected = reference(x, logits, experts)
    torch.testing.assert_close(mix(x, logits, experts), expected, rtol=near, atol=near)


@pytest.mark.parametrize(("count", "top"), [(8, 2), (7, 7), (128, 8), (3, 1)])
@pytest.mark.parametrize("normalised", [False, True])
def test_rows_choose_as_torch_says(count: int, top: int, normalised: bool) -> None:
    torch.manual_seed(count)
    experts = replace(
        experts_of(("cpu", torch.float32), count, top, 8, 8, Act.SILU), normalised=normalised
    )
    logits = torch.randn(5, count) * 3
    share, chosen = choose(logits, top, normalised)
    expected_share, expected = chosen_by_torch(logits, experts)
    assert torch.equal(chosen.long(), expected)
    torch.testing.assert_close(share, expected_share)


@pytest.mark.parametrize(("rows", "count", "top"), [(1, 8, 2), (33, 5, 3), (6, 128, 8), (9, 2, 2)])
def test_tiles_hold_each_pair_once(
    rows: int, count: int, top: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at in several chunks."""
    monkeypatch.setattr(expert_groups, "CHUNK", 32)
    torch.manual_seed(rows)
    logits = torch.randn(rows, count) * 3
    if count > top:
        logits[:, 1] = -30.0
    _, chosen = choose(logits, top, True)
    size = tile_rows(logits, count, top)
    groups = group(chosen, count, size)
    pairs = groups.pair.view(-1, size)
    owned = [tile for tile, owner in enumerate(groups.expert.tolist()) if owner >= 0]
    found: list[int] = []
    for tile in owned:
        real = pairs[tile] < chosen.numel()
        of_tile = pairs[tile][real].long()
        assert len(of_tile) and (pairs[tile][~real] == chosen.numel()).all()
        assert (chosen.flatten()[of_tile] == groups.expert[tile]).all()
        found += of_tile.tolist()
    assert sorted(found) == list(range(chosen.numel()))
    assert owned == list(range(len(owned)))  # those left over stand behind
