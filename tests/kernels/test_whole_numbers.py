"""Weights in whole numbers: their order in memory, and the portable kernels on them.

On a CPU by Triton's interpreter; the tests marked `gpu` run the same functions compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from triton import knobs

from penstock_kernels import int4
from penstock_kernels.fp8 import quantise, scale_of
from penstock_kernels.gpu.products import int4_linear
from penstock_kernels.gpu.products.linear import Tile, linear, linear_one_row
from penstock_kernels.gpu.products.problem import Epilogue
from penstock_kernels.gpu.products.quantise import quantise_rows
from penstock_kernels.gpu.products.table import FASTEST, find
from penstock_kernels.gpu.products.w4a8_linear import w4a8_linear
from penstock_kernels.gpu.products.widen import widened
from penstock_kernels.ops import Act, Activation
from penstock_kernels.reference import activation
from penstock_kernels.weight import Layout, Weight
from support.paged import assert_near
from support.whole_numbers import rounded

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning:triton")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "cpu" and not knobs.runtime.interpret:
        pytest.skip("with a GPU the kernels are compiled: run -m gpu")
    torch.manual_seed(0)
    with np.errstate(invalid="ignore"):
        yield request.param


def weight_of(
    device: str, n: int, k: int, bits: int, group: int | None, zeros: bool, biased: bool = False
) -> Weight:
    bias = torch.randn(n, device=device, dtype=torch.float16) if biased else None
    dense = torch.randn(n, k, device=device, dtype=torch.float16) * k**-0.5
    return rounded(Weight(dense, bias), bits, group, zeros)


def difference(x: Tensor, reference: Tensor) -> float:
    """1 - 2 xy / (xx + yy): free of scale, 0 where equal."""
    a, b = x.double().flatten(), reference.double().flatten()
    return float(1 - 2 * (a @ b) / (a @ a + b @ b))


def exact(x: Tensor, weight: Weight, gated: bool) -> Tensor:
    product = x.float() @ weight.dequantised().T
    if weight.bias is not None:
        product += weight.bias.float()
    return activation.gate(product, Act.SILU) if gated else product


@pytest.mark.parametrize(("n", "k"), [(64, 128), (192, 384), (100, 200), (1, 2)])
def test_packing_keeps_every_number(n: int, k: int) -> None:
    q = torch.randint(-8, 8, (n, k), dtype=torch.int8)
    data = int4.pack(q)
    assert data.shape == (-(-n // 64), -(-k // 128), 4096)
    found = int4.unpack(data)
    assert torch.equal(found[:n, :k], q)
    assert not found[n:].any() and not found[:, k:].any()


def test_a_word_is_what_a_thread_multiplies() -> None:
    """Rows g and g + 8, columns 2 t, 2 t + 1 and those 8 further on, of one product."""
    q = torch.zeros(64, 128, dtype=torch.int8)
    warp, g, t, product = 2, 3, 1, 5
    for number in range(8):
        neighbour, half, lower = number >> 2, number >> 1 & 1, number & 1
        q[16 * warp + g + 8 * lower, 16 * product + 2 * t + 8 * half + neighbour] = number - 8
    thread = warp * 32 + g * 4 + t
    vector, at = divmod(product, 4)
    start = vector * 2048 + thread * 16 + at * 4
    word = int4.pack(q)[0, 0, start : start + 4].view(torch.int32)
    assert [int(word) >> 4 * i & 15 for i in range(8)] == list(range(8))


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(
    ("n", "k", "group"), [(128, 256, 128), (100, 200, None), (64, 384, 64), (70, 96, 32)]
)
def test_4_bits_are_widened(device: str, n: int, k: int, group: int | None, zeros: bool) -> None:
    """Every number where it belongs, and rounded once."""
    weight = weight_of(device, n, k, 4, group, zeros)
    assert weight.layout is Layout.INT4
    found = int4_linear.widened(weight, torch.float16)
    assert torch.equal(found, weight.dequantised().half())


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(
    ("rows", "n", "k", "group", "zeros", "biased"),
    [
        (1, 128, 256, 128, False, False),
        (5, 256, 160, 32, True, True),
        (17, 128, 128, 16, False, True),
        (3, 100, 200, None, True, False),
    ],
)
def test_products_of_4_bits(
    device: str, rows: int, n: int, k: int, group: int | None, zeros: bool, biased: bool,
    gated: bool,
) -> None:  # fmt: skip
    if gated and n % 128:
        pytest.skip("whole tiles of either half")
    weight = weight_of(device, n, k, 4, group, zeros, biased)
    x = torch.randn(rows, k, device=device, dtype=torch.float16)
    expected = exact(x, weight, gated)
    out = torch.full(expected.shape, torch.nan, device=device, dtype=x.dtype)
    int4_linear.int4_linear(x, weight, out, gated)
    assert_near(out, expected)


def test_columns_are_in_the_order_of_words() -> None:
    """What a thread multiplies with a word's numbers of one row stands together in rows of FP8."""
    q, column = torch.zeros(64, 128, dtype=torch.int8), torch.arange(128)
    q[5] = column % 16 - 8
    word = int4.pack(q)[0, 0].view(2, 128, 4, 4)  # vector, thread, product, bytes
    in_rows = int4.interleave(q[5:6] + 8).view(8, 4, 4)  # product, thread of four
    for product in range(8):
        for thread in range(4):
            bytes_of = word[product // 4, 20 + thread, product % 4]
            assert torch.equal(bytes_of & 15, in_rows[product, thread].to(torch.uint8))


@pytest.mark.parametrize(
    ("rows", "n", "k", "group", "zeros", "biased"),
    [(70, 128, 256, 128, False, True), (130, 100, 176, 64, True, False)],
)
def test_products_in_fp8_of_4_bits(
    device: str, rows: int, n: int, k: int, group: int, zeros: bool, biased: bool
) -> None:
    """Numbers less their zeros are exact in FP8."""
    weight = weight_of(device, n, k, 4, group, zeros, biased)
    x = torch.randn(rows, k, device=device, dtype=torch.float16)
    scale = scale_of(x.float().abs().amax(1, keepdim=True))
    q = quantise(x, scale)
    out = torch.full((rows, n), torch.nan, device=device, dtype=x.dtype)
    w4a8_linear(int4.interleave(q), scale, weight, out)
    assert_near(out, exact(q.float() * scale, weight, False))


@pytest.mark.parametrize("ordered", [False, True])
def test_rows_in_fp8_where_a_weight_asks_for_them(device: str, ordered: bool) -> None:
    """By whoever makes the rows or by the product, which takes them in another order; few rows keep
    their precision."""
    plain = replace(weight_of(device, 128, 256, 4, 128, True, True), fp8_rows=True)
    order = torch.randperm(256, device=device) if ordered else torch.arange(256, device=device)
    weight = replace(plain, order=order) if ordered else plain
    in_order = int4.interleave(torch.arange(256, device=device)[None])[0].argsort()
    for rows in (32, 40):
        x = torch.randn(rows, 256, device=device, dtype=torch.float16)
        launch = find(Epilogue.NONE, Activation(x), weight)
        assert launch is not None
        q, scale = quantise_rows(x[:, order], layout=Layout.INT4)
        as_they_are = exact(x[:, order], plain, False)
        in_fp8 = exact(q.float()[:, in_order] * scale, plain, False)
        found = [launch(Activation(x), weight, False)]
        assert FASTEST.quantises(rows, weight) == (rows > 32 and not ordered)
        if FASTEST.quantises(rows, weight):
            found.append(launch(Activation(x, q, scale), weight, False))
        for out in found:
            assert_near(out, in_fp8 if rows > 32 else as_they_are)
        assert difference(in_fp8, as_they_are) > 1e-4


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("group", [None, 64])
@pytest.mark.parametrize("rows", [1, 17])
def test_products_of_8_bits(device: str, rows: int, group: int | None, gated: bool) -> None:
    weight = weight_of(device, 128, 256, 8, group, False, True)
    assert weight.layout is Layout.INT8 and weight.has_row_scales == (group is None)
    x = torch.randn(rows, 256, device=device, dtype=torch.float16)
    expected = exact(x, weight, gated)
    out = torch.full(expected.shape, torch.nan, device=device, dtype=x.dtype)
    if rows == 1:
        linear_one_row(x, weight, out, Tile(4, 128, 4, 2), gated)
    else:
        linear(x, weight, out, Tile(32, 64, 4, 2), gated)
    assert_near(out, expected)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(("k", "group"), [(256, None), (256, 64), (40, 20)])
def test_8_bits_are_widened(device: str, k: int, group: int | None, zeros: bool) -> None:
    weight = weight_of(device, 100, k, 8, group, zeros)
    found = widened(weight, torch.float16)
    assert torch.equal(found, weight.dequantised().half())


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("rows", [1, 70])
def test_inputs_in_another_order_are_gathered(device: str, bits: int, rows: int) -> None:
    """With columns that fill groups up, by the way that the table finds."""
    weight = weight_of(device, 64, 128, bits, 32, True)
    order = torch.randint(0, 96, (128,), device=device)
    weight = replace(weight, order=order, shape=(64, 96))
    x = torch.randn(rows, 96, device=device, dtype=torch.float16)
    launch = find(Epilogue.NONE, Activation(x), weight)
    assert launch is not None and find(Epilogue.GATED, Activation(x), weight) is None
    assert_near(launch(Activation(x), weight, False), x.float() @ weight.dequantised().T)
