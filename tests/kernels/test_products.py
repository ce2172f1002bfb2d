"""The table of products: every row computes what its epilogue says, and no layout lacks a way."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from penstock_kernels.ops import Act, Activation
from penstock_kernels.reference.activation import gate
from penstock_kernels.weight import Layout
from support.weights import weight_of

pytest.importorskip("triton")
HALF = [torch.bfloat16, torch.float16]
SHAPES = [(6144, 4096), (4096, 14336), (28672, 4096), (2048, 2048), (192, 640), (100, 72)]
ROWS = [1, 2, 7, 16, 33, 64, 65, 128, 200, 1100]


def difference(x: Tensor, reference: Tensor) -> float:
    """1 - 2 xy / (xx + yy): free of scale, 0 where equal."""
    a, b = x.double().flatten(), reference.double().flatten()
    return float(1 - 2 * (a @ b) / (a @ a + b @ b))


def problem(layout: Layout, rows: int, n: int, k: int, dtype: torch.dtype, **more: Any) -> Any:
    from penstock_kernels.gpu.products.problem import Problem

    fields = {"biased": False, "dense": True, "device": torch.device("cpu")} | more
    return Problem(rows=rows, n=n, k=k, dtype=dtype, layout=layout, **fields)


def layouts() -> list[Layout]:
    from penstock_kernels.gpu.products.table import PRODUCTS

    return sorted({product.layout for product in PRODUCTS}, key=lambda layout: layout.value)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("rows", ROWS)
def test_every_layout_has_a_way_without_an_epilogue(rows: int, biased: bool) -> None:
    from penstock_kernels.gpu.products.problem import Epilogue
    from penstock_kernels.gpu.products.table import PRODUCTS

    for layout in layouts():
        ways = [p for p in PRODUCTS if (p.layout, p.epilogue) == (layout, Epilogue.NONE)]
        for n, k in SHAPES:
            for dtype in (*HALF, torch.float32):
                given = problem(layout, rows, n, k, dtype, biased=biased)
                found = [way for way in ways if rows in way.rows and n < 32768]
                assert any(way.config(given) is not None for way in found)


def test_a_row_is_found_by_its_numbers() -> None:
    """One row of a weight whose shape has a tile takes the kernel without tensor cores; float32 and
    many rows are left to cuBLAS."""
    from penstock_kernels.gpu.products import dense
    from penstock_kernels.gpu.products.problem import Epilogue
    from penstock_kernels.gpu.products.table import FASTEST

    one = problem(Layout.DENSE, 1, 4096, 4096, torch.bfloat16)
    launch = FASTEST.of(Epilogue.NONE, one)
    assert launch is not None and launch.func is dense.launch_tile  # type: ignore[attr-defined]
    for other in (
        problem(Layout.DENSE, 1, 4096, 4096, torch.float32),
        problem(Layout.DENSE, 300, 4096, 4096, torch.bfloat16),
    ):
        launch = FASTEST.of(Epilogue.NONE, other)
        assert launch is not None
        assert launch.func is dense._launch_cublas  # type: ignore[attr-defined]
        assert FASTEST.of(Epilogue.ROTATE, other) is None


@pytest.mark.parametrize("hopper", [False, True])
def test_rows_in_fp8_leave_no_way_in_half_precision(
    hopper: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the epilogue, where there are enough of them; few take the ways of other weights."""
    from penstock_kernels.gpu.products import int4
    from penstock_kernels.gpu.products.problem import Epilogue
    from penstock_kernels.gpu.products.table import PRODUCTS, ProductTable, quantises

    monkeypatch.setattr(int4, "is_hopper", lambda device: hopper)
    monkeypatch.setattr(int4, "multiprocessors", lambda device: 132)
    table = ProductTable(PRODUCTS, quantises)
    in_fp8 = (int4._launch_w4a8, int4._launch_portable_w4a8, int4._launch_gated_w4a8)
    for rows, (n, k), epilogue in itertools.product(ROWS, SHAPES[:5], Epilogue):
        more = {"scale_columns": 128, "raw": rows == 1}
        plain = table.of(epilogue, problem(Layout.INT4, rows, n, k, HALF[0], **more))
        flagged = problem(Layout.INT4, rows, n, k, HALF[0], fp8_rows=True, **more)
        found = table.of(epilogue, flagged)
        if rows > 32:
            assert found is None or found.func in in_fp8  # type: ignore[attr-defined]
            assert found is not None or epilogue is not Epilogue.NONE
        else:
            assert getattr(found, "func", None) is getattr(plain, "func", None)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(
    ("layout", "fp8_rows"), [*((layout, False) for layout in Layout), (Layout.INT4, True)]
)
def test_every_row_computes_its_epilogue(
    layout: Layout, fp8_rows: bool, n: int, k: int, biased: bool, dtype: torch.dtype
) -> None:
    """Against float32, for every number of rows that a row of the table takes."""
    from penstock_kernels.gpu.products.problem import Epilogue, Problem
    from penstock_kernels.gpu.products.table import PRODUCTS, quantises

    if fp8_rows and k % 16:
        pytest.skip("such a weight is refused")

    tried = set()
    for rows in ROWS:
        x = Activation(torch.randn(rows, k, device="cuda", dtype=dtype))
        bias = torch.randn(n, device="cuda", dtype=dtype) if biased else None
        weight = replace(weight_of(layout, n, k, dtype, bias), fp8_rows=fp8_rows)
        exact = x.x.float() @ weight.dequantised().float().T
        exact = exact if bias is None else exact + bias.float()
        # Rows that are quantised themselves lose more.
        limit = 1e-3 if quantises(rows, weight) else 2e-5
        for product in PRODUCTS:
            config = product.config(Problem.of(x.x, weight)) if rows in product.rows else None
            if config is None or product.layout is not weight.layout:
                continue
            tried.add(product.epilogue)
            for dependent in (False, True):
                if product.epilogue is Epilogue.RESIDUAL:
                    residual = torch.randn(rows, n, device="cuda", dtype=dtype)
                    expected = exact + residual.float()
                    product.launch(config, x, weight, dependent, residual)
                    assert difference(residual, expected) < limit
                elif product.epilogue is Epilogue.GATED:
                    found = product.launch(config, x, weight, dependent)
                    assert difference(found, gate(exact, Act.SILU)) < limit
                elif product.epilogue is not Epilogue.ROTATE:  # `test_gpu` holds that one
                    found = product.launch(config, x, weight, dependent)
                    found = found.sum(0) if found.dim() == 3 else found
                    assert difference(found, exact) < limit
    assert Epilogue.NONE in tried
