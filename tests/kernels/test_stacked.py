"""Matrices behind one another mean what each meant alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from penstock_kernels import lut
from penstock_kernels.stacked import Stacked, UnlikeError, stack
from penstock_kernels.weight import Layout, Weight
from support.stacks import KINDS, weight_of

COUNT = 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "k"), [(64, 128), (40, 192), (96, 96)])
def test_each_means_what_it_meant(kind: str, n: int, k: int) -> None:
    torch.manual_seed(n)
    alone = [weight_of(kind, n, k, seed) for seed in range(COUNT)]
    stacked = stack(iter(alone), COUNT)
    assert (stacked.count, stacked.n, stacked.k) == (COUNT, n, k)
    assert stacked.layout is alone[0].layout
    for index, weight in enumerate(alone):
        assert torch.equal(stacked[index].dequantised(), weight.dequantised())


def test_powers_of_two_take_a_byte() -> None:
    weight = weight_of("mxfp4", 32, 128, 0)
    stacked = stack([weight, weight], 2)
    assert stacked.parts.scale is not None and stacked.parts.scale.dtype == torch.uint8
    assert sum(part.nbytes for part in stacked.tensors()) == 2 * 32 * 128 * 17 // 32 + 64


def test_biases_go_with_their_matrices() -> None:
    one, other = (replace(weight_of("fp8", 16, 64, i), bias=torch.randn(16)) for i in range(2))
    stacked = stack([one, other], 2)
    for found, expected in ((stacked[0].bias, one.bias), (stacked[1].bias, other.bias)):
        assert found is not None and expected is not None
        assert torch.equal(found, expected)


def test_one_without_zeros_among_others() -> None:
    plain, zeroed = weight_of("int4", 64, 128, 0), weight_of("int4 with zeros", 64, 128, 1)
    for order in ([plain, zeroed], [zeroed, plain]):
        stacked = stack(order, 2)
        for index, weight in enumerate(order):
            assert torch.equal(stacked[index].dequantised(), weight.dequantised())


def test_orders_that_are_filled_up_differently() -> None:
    """As cuts through act-order leave them."""
    few, many = (ordered(weight_of("int4", 64, columns, 0), 96) for columns in (128, 160))
    for order in ([few, many], [many, few]):
        stacked = stack(order, 2)
        for index, weight in enumerate(order):
            torch.testing.assert_close(stacked[index].dequantised(), weight.dequantised())


def ordered(weight: Weight, k: int) -> Weight:
    order = torch.randint(0, k, (weight.k,))
    return replace(weight, order=order, shape=(weight.n, k))


@pytest.mark.parametrize(("one", "other"), [("fp8", "dense"), ("int4", "int4, groups of 64")])
def test_layouts_that_differ(one: str, other: str) -> None:
    with pytest.raises(UnlikeError):
        stack([weight_of(one, 64, 128, 0), weight_of(other, 64, 128, 1)], 2)


def test_a_bias_that_some_lack() -> None:
    weight = weight_of("fp8", 16, 64, 0)
    for pair in ([weight, replace(weight, bias=torch.zeros(16))],
                 [replace(weight, bias=torch.zeros(16)), weight]):  # fmt: skip
        with pytest.raises(UnlikeError, match="with and without bias"):
            stack(pair, 2)


def test_tables_of_rows() -> None:
    def weight(seed: int) -> Weight:
        codes = torch.randint(0, 16, (8, 64), dtype=torch.uint8)
        return Weight(lut.pack(codes), layout=Layout.LUT, table=torch.randn(8, 16))

    alone = [weight(seed) for seed in range(2)]
    stacked = stack(alone, 2)
    assert stacked.has_tables
    for index, one in enumerate(alone):
        assert torch.equal(stacked[index].dequantised(), one.dequantised())


def test_half_precision_is_as_it_was() -> None:
    data: Tensor = torch.randn(2, 3, 4)
    stacked = Stacked.dense(data)
    assert (stacked.count, stacked.n, stacked.k) == (2, 3, 4)
    assert torch.equal(stacked[1].dequantised(), data[1])
