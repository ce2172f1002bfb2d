"""Products of one row that normalise what they read, and add to the residual.

Against the two launches that come to the same. On the CPU in Triton's interpreter, which cannot add
bfloat16.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from triton import knobs

from penstock_kernels.gpu.launch.dependent import supports_dependent_launch
from penstock_kernels.gpu.products import dense, raw_row
from penstock_kernels.gpu.products.linear import Tile
from penstock_kernels.gpu.products.problem import Epilogue, Problem
from penstock_kernels.gpu.products.raw_row import RawTile
from penstock_kernels.gpu.products.table import FASTEST, PRODUCTS, ProductTable
from penstock_kernels.gpu.step import rows
from penstock_kernels.gpu.step.rows import TritonRows
from penstock_kernels.ops import Act, Activation, Norm, NormKind
from penstock_kernels.reference import norm as reference
from penstock_kernels.reference.activation import gate
from penstock_kernels.weight import Layout, Weight
from support.weights import weight_of

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning:triton")
N, K = 64, 256
NORMS = [NormKind.RMS, NormKind.RMS_ONE]
LAYOUTS = [Layout.DENSE, Layout.FP8, Layout.FP8_BLOCKS, Layout.INT8]
by_the_interpreter = pytest.mark.skipif(not knobs.runtime.interpret, reason="run -m gpu")


@pytest.fixture
def few_multiprocessors(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few that programs take several tiles."""
    monkeypatch.setattr(raw_row, "multiprocessors", lambda device: 1)


def small(p: Problem) -> Tile | None:
    """Tiles of shapes that no model has."""
    return Tile(min(p.n & -p.n, 16), min(p.k & -p.k, 64), 1, 2)


def small_gated(p: Problem) -> Tile | None:
    return None if p.n % 2 else small(replace(p, n=p.n // 2))


def small_raw(p: Problem, gated: bool) -> RawTile | None:
    wide = p.n // 2 if gated else p.n
    return None if p.k & (p.k - 1) else RawTile(min(wide & -wide, 4), 1, 2)


def small_deferred(p: Problem, gated: bool) -> Tile | None:
    return small_gated(p) if gated else small(p)


TABLES = {
    name: ProductTable(
        [row for one in LAYOUTS for row in dense.one_row_products(one, small, small_gated, raw)],
        FASTEST.quantises,
    )
    for name, raw in (("standing", small_raw), ("deferred", small_deferred))
}
TABLE = TABLES["standing"]


def norm_of(kind: NormKind, k: int, like: Tensor) -> Norm:
    return Norm(torch.randn(k, device=like.device).to(like.dtype) + 1, 1e-5, kind)


def exact(x: Tensor, norm: Norm, weight: Weight, dtype: torch.dtype) -> Tensor:
    wide = Norm(norm.weight.float(), norm.eps, norm.kind)
    rows = reference.normalise(x.float(), wide).to(dtype).float()
    product = rows @ weight.dequantised().float().T
    return product if weight.bias is None else product + weight.bias.float()


@by_the_interpreter
@pytest.mark.usefixtures("few_multiprocessors")
@pytest.mark.parametrize("way", TABLES)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_product_normalises_its_row(
    layout: Layout, kind: NormKind, biased: bool, way: str
) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, K) * 3
    bias = torch.randn(N) if biased else None
    weight = weight_of(layout, N, K, x.dtype, bias, "cpu")
    step, norm = TritonRows(products=TABLES[way]), norm_of(kind, K, x)
    before = step.norm(x, norm, weight)
    assert before.x is x and before.norm is norm
    expected = exact(x, norm, weight, x.dtype)
    torch.testing.assert_close(step.linear(before, weight), expected, rtol=1e-4, atol=1e-4)
    found = step.gated(before, weight, Act.SILU).x
    torch.testing.assert_close(found, gate(expected, Act.SILU), rtol=1e-4, atol=1e-4)


@by_the_interpreter
@pytest.mark.usefixtures("few_multiprocessors")
@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_product_adds_to_the_residual(
    layout: Layout, kind: NormKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the same bits as the launch that adds and normalises; and without it."""
    torch.manual_seed(0)
    x, before = torch.randn(1, K).half(), torch.randn(1, N).half()
    weight, behind = (
        weight_of(layout, N, K, x.dtype, None, "cpu"),
        weight_of(layout, 64, N, x.dtype, None, "cpu"),
    )
    norm, residual, other = norm_of(kind, N, x), before.clone(), before.clone()
    step = TritonRows(products=TABLE)
    expected = step.add_norm(step.linear(Activation(x), weight), other, norm)
    monkeypatch.setattr(rows, "add_norm", None)
    monkeypatch.setattr(rows, "normalise", None)
    found = step.linear_add_norm(Activation(x), weight, residual, norm, behind)
    assert found.x is residual and torch.equal(residual, other)
    assert not torch.equal(residual, before)
    after = step.linear(found, behind)
    torch.testing.assert_close(after, step.linear(expected, behind), rtol=1e-2, atol=1e-2)


@by_the_interpreter
def test_whoever_cannot_normalises_first() -> None:
    """LayerNorm, several rows, and products of the table's other rows."""
    x = torch.randn(2, K)
    weight, step = weight_of(Layout.DENSE, N, K, x.dtype, None, "cpu"), TritonRows(products=TABLE)
    norm, layer = (norm_of(kind, K, x) for kind in (NormKind.RMS, NormKind.LAYER))
    assert step.norm(x, norm, weight).norm is None
    assert step.norm(x[:1], layer, weight).norm is None
    assert step.norm(x[:1], norm).norm is None
    assert TritonRows().norm(x[:1], norm, weight).norm is None  # in float32 cuBLAS multiplies
    raw = step.norm(x, norm, None)
    late = Activation(x, norm=norm)
    found = TritonRows().linear(late, weight)
    torch.testing.assert_close(found, TritonRows().linear(raw, weight))
    assert late.select(torch.tensor([1])).norm is norm


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("layout", list(Layout))
def test_every_row_that_normalises(layout: Layout, kind: NormKind, dtype: torch.dtype) -> None:
    """As the table has them, at sizes of models, against a norm in a launch of its own."""
    torch.manual_seed(0)
    tried = set()
    dependent = supports_dependent_launch(torch.device("cuda", 0))
    for n, k in [(6144, 4096), (28672, 4096), (4096, 14336), (3072, 2048)]:
        weight = weight_of(layout, n, k, dtype)
        residual = torch.randn(1, k, device="cuda", dtype=dtype)
        norm = norm_of(kind, k, residual)
        raw = Activation(residual, norm=norm)
        done = TritonRows().norm(residual, norm)
        before = torch.randn(1, n, device="cuda", dtype=dtype)
        for product in PRODUCTS:
            if product.layout is not layout or 1 not in product.rows:
                continue
            config = product.config(Problem.of(residual, weight))
            if config is None:
                continue
            if product.epilogue is Epilogue.RESIDUAL:
                added, alone = before.clone(), TritonRows().linear(done, weight)
                product.launch(config, done, weight, dependent, added)
                torch.testing.assert_close(added, alone + before, rtol=2e-2, atol=2e-2)
                tried.add(product.epilogue)
            elif product.raw:
                found = product.launch(config, raw, weight, dependent)
                gated = product.epilogue is Epilogue.GATED
                step = TritonRows()
                expected = (
                    step.gated(done, weight, Act.SILU).x if gated else step.linear(done, weight)
                )
                torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)
                tried.add(product.epilogue)
    assert layout is Layout.LUT or tried == {Epilogue.NONE, Epilogue.RESIDUAL, Epilogue.GATED}
