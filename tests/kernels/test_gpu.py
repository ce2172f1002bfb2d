"""The Triton kernels in half precision, on a real GPU, against float32 on the same inputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytestmark = pytest.mark.gpu

HALF = [torch.bfloat16, torch.float16]


def difference(x: Tensor, reference: Tensor) -> float:
    """1 - 2 xy / (xx + yy): free of scale, 0 where equal."""
    a, b = x.double().flatten(), reference.double().flatten()
    return float(1 - 2 * (a @ b) / (a @ a + b @ b))


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("rows", [1, 2, 7, 16, 33, 64])
@pytest.mark.parametrize(("n", "k"), [(6144, 4096), (4096, 14336), (128256, 2048), (2048, 2048)])
def test_skinny_linear(rows: int, n: int, k: int, dtype: torch.dtype) -> None:
    from penstock_kernels.gpu.dispatch import skinny_linear

    x = torch.randn(rows, k, device="cuda", dtype=dtype)
    weight = torch.randn(n, k, device="cuda", dtype=dtype) * k**-0.5
    assert difference(skinny_linear(x, weight), x.float() @ weight.float().T) < 1e-5


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("rows", [1, 3, 16, 40, 64, 200, 1100])
@pytest.mark.parametrize(("n", "k"), [(14336, 4096), (8192, 2048)])
def test_skinny_gated_linear(rows: int, n: int, k: int, dtype: torch.dtype) -> None:
    from penstock_kernels.gpu.dispatch import skinny_gated_linear

    x = torch.randn(rows, k, device="cuda", dtype=dtype)
    weight = torch.randn(2 * n, k, device="cuda", dtype=dtype) * k**-0.5
    gate, up = (x.float() @ weight.float().T).chunk(2, dim=1)
    expected = torch.nn.functional.silu(gate) * up
    assert difference(skinny_gated_linear(x, weight), expected) < 2e-5


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("rows", [1, 64, 127, 129, 300, 2085])
@pytest.mark.parametrize(("n", "k"), [(128, 64), (384, 320), (1408, 1024)])
def test_gated_linear_on_hopper(rows: int, n: int, k: int, dtype: torch.dtype) -> None:
    """Bands that are not full, tiles beyond the last row, fewer tiles than programs, many turns."""
    from penstock_kernels.gpu.hopper_gated import hopper_gated_linear

    if torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("not a Hopper GPU")
    x = torch.randn(rows, k, device="cuda", dtype=dtype)
    weight = torch.randn(2 * n, k, device="cuda", dtype=dtype) * k**-0.5
    gate, up = (x.float() @ weight.float().T).chunk(2, dim=1)
    found = hopper_gated_linear(x, weight)
    assert difference(found, torch.nn.functional.silu(gate) * up) < 1e-5
