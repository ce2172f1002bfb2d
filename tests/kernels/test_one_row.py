"""Rows that stay as they are until the product behind their norm reads them.

Which kernels do so depends on the card; here products in torch do. Kernels themselves:
`test_gluon_interpreted`, and on a GPU below.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from triton import knobs

from penstock_kernels.gpu.launch.dependent import supports_dependent_launch
from penstock_kernels.gpu.products.problem import Epilogue, Problem, Product
from penstock_kernels.gpu.products.table import FASTEST, PRODUCTS, ProductTable
from penstock_kernels.gpu.step import rows
from penstock_kernels.gpu.step.rows import TritonRows
from penstock_kernels.ops import Act, Activation, Norm, NormKind
from penstock_kernels.reference.activation import gate
from penstock_kernels.reference.device import linear
from penstock_kernels.reference.norm import normalise
from penstock_kernels.weight import Layout, Weight
from support.weights import weight_of

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning:triton")
N, K = 24, 192
by_the_interpreter = pytest.mark.skipif(not knobs.runtime.interpret, reason="run -m gpu")


def product(config: Any, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    return linear(x.x if x.norm is None else normalise(x.x, x.norm), weight)


def gated(config: Any, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    return gate(product(config, x, weight, dependent), Act.SILU)


def added(config: Any, x: Activation, weight: Weight, dependent: bool, residual: Tensor) -> None:
    residual.add_(product(config, x, weight, dependent))


def always(p: Problem) -> bool:
    return True


ONE = range(1, 2)
RAW = [
    row
    for layout in Layout
    for row in (
        Product(layout, Epilogue.NONE, ONE, always, product, True),
        Product(layout, Epilogue.RESIDUAL, ONE, always, added),
        Product(layout, Epilogue.GATED, ONE, always, gated, True),
    )
]
TABLE = ProductTable((*RAW, *PRODUCTS), FASTEST.quantises)


def norm_of(kind: NormKind, k: int, like: Tensor) -> Norm:
    gain = torch.randn(k, device=like.device).to(like.dtype) + 1
    return Norm(gain, 1e-5, kind, torch.zeros_like(gain))


@by_the_interpreter
@pytest.mark.parametrize("kind", [NormKind.RMS, NormKind.RMS_ONE])
def test_a_norm_waits_for_the_product_behind_it(
    kind: NormKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As rows from the residual, into which the product before was added; without a launch."""
    torch.manual_seed(0)
    x, residual = torch.randn(1, K), torch.randn(1, N)
    weight, behind = (
        weight_of(Layout.DENSE, n, k, x.dtype, None, "cpu") for n, k in ((N, K), (64, N))
    )
    norm, before = norm_of(kind, N, x), residual.clone()
    monkeypatch.setattr(rows, "add_norm", None)
    monkeypatch.setattr(rows, "normalise", None)
    step = TritonRows(products=TABLE)
    late = step.linear_add_norm(Activation(x), weight, residual, norm, behind)
    assert late.x is residual and late.norm is norm
    total = before + linear(x, weight)
    torch.testing.assert_close(residual, total)
    expected = linear(normalise(total, norm), behind)
    torch.testing.assert_close(step.linear(late, behind), expected)
    found = step.gated(late, behind, Act.SILU).x
    torch.testing.assert_close(found, gate(expected, Act.SILU))
    assert late.select(torch.tensor([0])).norm is norm


@by_the_interpreter
def test_whoever_cannot_wait_normalises_first() -> None:
    """LayerNorm, several rows, a table without such products, and nobody known behind it."""
    x = torch.randn(2, K)
    weight, step = weight_of(Layout.DENSE, N, K, x.dtype, None, "cpu"), TritonRows(products=TABLE)
    norm, layer = (norm_of(kind, K, x) for kind in (NormKind.RMS, NormKind.LAYER))
    assert step.norm(x[:1], norm, weight).norm is norm
    assert step.norm(x, norm, weight).norm is None
    assert step.norm(x[:1], layer, weight).norm is None
    assert step.norm(x[:1], norm).norm is None
    plain = TritonRows()
    assert plain.norm(x[:1], norm, weight).norm is None
    late, done = Activation(x, norm=norm), plain.norm(x, norm)
    torch.testing.assert_close(plain.linear(late, weight), plain.linear(done, weight))
    found, expected = (plain.gated(each, weight, Act.GELU).x for each in (late, done))
    torch.testing.assert_close(found, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", [NormKind.RMS, NormKind.RMS_ONE])
@pytest.mark.parametrize(("n", "k"), [(6144, 4096), (28672, 4096), (4096, 14336), (3072, 2048)])
def test_products_of_4_bits_that_normalise(
    n: int, k: int, kind: NormKind, dtype: torch.dtype
) -> None:
    """As the table has them, against norm and product, and product and sum, as two launches."""
    torch.manual_seed(0)
    dependent = supports_dependent_launch(torch.device("cuda", 0))
    weight, step = weight_of(Layout.INT4, n, k, dtype), TritonRows(dependent)
    x, before = (torch.randn(1, size, device="cuda", dtype=dtype) for size in (k, n))
    norm = norm_of(kind, k, x)
    late, done = step.norm(x, norm, weight), step.norm(x, norm)
    if late.norm is None:
        pytest.skip("no kernel of this card normalises what it reads")
    alone = step.linear(done, weight)
    torch.testing.assert_close(step.linear(late, weight), alone, rtol=2e-2, atol=2e-2)
    found, expected = (step.gated(each, weight, Act.SILU).x for each in (late, done))
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)
    residual = before.clone()
    step.linear_add_norm(done, weight, residual, None)
    torch.testing.assert_close(residual, alone + before, rtol=2e-2, atol=2e-2)
