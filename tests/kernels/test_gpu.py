"""The Triton kernels in half precision, on a real GPU, against float32 on the same inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
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
@pytest.mark.parametrize("rows", [2, 8, 9, 31, 64])
@pytest.mark.parametrize(("n", "k"), [(64, 128), (192, 640), (2048, 8192), (17024, 256)])
def test_linear_on_hopper(rows: int, n: int, k: int, dtype: torch.dtype) -> None:
    """One tile, fewer depths than stages, splits of unequal depth, more tiles than programs."""
    from penstock_kernels.gpu.hopper_linear import hopper_linear, stream_for

    if torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("not a Hopper GPU")
    x = torch.randn(rows, k, device="cuda", dtype=dtype)
    weight = torch.randn(n, k, device="cuda", dtype=dtype) * k**-0.5
    stream = stream_for(rows, n, k, False, 132)
    assert stream is not None
    out = torch.full((stream.splits, rows, n), torch.nan, device="cuda")
    if stream.splits == 1:
        out = out[0].to(dtype)
    for dependent in (False, True):
        hopper_linear(x, weight, out.fill_(torch.nan), stream, False, dependent)
        found = out.sum(0) if stream.splits > 1 else out
        assert difference(found, x.float() @ weight.float().T) < 1e-5


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("rows", [2, 16, 33, 64, 65, 128])
@pytest.mark.parametrize(("n", "k"), [(64, 128), (14336, 512), (8192, 2048)])
def test_gated_stream_on_hopper(rows: int, n: int, k: int, dtype: torch.dtype) -> None:
    """Two programs a multiprocessor up to 64 rows, more turns than one above."""
    from penstock_kernels.gpu.hopper_linear import hopper_linear, stream_for

    if torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("not a Hopper GPU")
    x = torch.randn(rows, k, device="cuda", dtype=dtype)
    weight = torch.randn(2 * n, k, device="cuda", dtype=dtype) * k**-0.5
    gate, up = (x.float() @ weight.float().T).chunk(2, dim=1)
    stream = stream_for(rows, 2 * n, k, True, 132)
    assert stream is not None
    out = torch.full((rows, n), torch.nan, device="cuda", dtype=dtype)
    hopper_linear(x, weight, out, stream, True, True)
    assert difference(out, torch.nn.functional.silu(gate) * up) < 2e-5


@pytest.mark.parametrize("rows", [1, 5, 32, 64])
def test_dependent_launch_changes_no_bit_under_stress(rows: int) -> None:
    """A graph of layers whose kernels all depend on the one before, a thousand times over.

    Each replay reads other inputs; whoever reads too early finds those of the last replay.
    """
    from penstock_kernels.backend import Heads, Rows
    from penstock_kernels.gpu.backend import TritonBackend

    torch.manual_seed(0)
    hidden, wide, page, layers, most = 1024, 9216, 64, 6, 64
    heads = Heads(16, 4, 64)

    def weight(n: int, k: int) -> torch.Tensor:
        return torch.randn(n, k, device="cuda", dtype=torch.bfloat16) * k**-0.5

    parameters = [
        (
            weight(24 * 64, hidden),
            weight(hidden, 1024),
            weight(2 * wide, hidden),
            weight(hidden, wide),
        )
        for _ in range(layers)
    ]
    gain = torch.ones(hidden, device="cuda", dtype=torch.bfloat16)
    head = weight(32768, hidden)
    angle = torch.rand(1024, 32, device="cuda") * 6.28
    angles = torch.stack((angle.cos(), angle.sin()), dim=1)
    table = torch.randperm(most * 16, device="cuda").int().view(most, 16) + 1
    slot = torch.arange(rows, device="cuda")
    position = torch.randint(0, 900, (rows,), device="cuda")
    inputs = torch.empty(rows, hidden, device="cuda", dtype=torch.bfloat16)
    none = np.empty(0, np.int64)
    cache = torch.zeros(2, 4, most * 16 + 1, page, 64, device="cuda", dtype=torch.bfloat16)
    cache.normal_()

    def capture(dependent: bool) -> tuple[Any, ...]:
        backend = TritonBackend(heads, angles, 1e-5, most, dependent)
        caches = [cache.clone() for _ in range(layers)]
        kept = torch.empty(rows, 32768, device="cuda", dtype=torch.bfloat16)
        token = torch.empty(rows, device="cuda", dtype=torch.int64)

        def step() -> None:
            attend = backend.attention(Rows(slot, position, table, slot, rows, none, none))
            residual = inputs.clone()
            x = backend.rms_norm(residual, gain, 1e-5)
            for layer, (qkv, out, up, down) in enumerate(parameters):
                x = attend(backend.linear(x, qkv, None), caches[layer], None, None)
                x = backend.linear_add_rms_norm(x, out, residual, gain, 1e-5)
                x = backend.gated_linear(x, up, None)
                x = backend.linear_add_rms_norm(x, down, residual, gain, 1e-5)
            backend.choose(backend.linear(x, head, None), kept, token)

        step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        # The graph writes to the memory of all of these.
        return graph, kept, token, backend, caches

    plain, dependent = capture(False), capture(True)
    differing = torch.zeros((), device="cuda", dtype=torch.int64)
    for _ in range(1000):
        inputs.normal_()
        plain[0].replay()
        dependent[0].replay()
        differing += (plain[1] != dependent[1]).sum() + (plain[2] != dependent[2]).sum()
    assert int(differing) == 0


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
    found = torch.full((rows, n), torch.nan, device="cuda", dtype=dtype)
    hopper_gated_linear(x, weight, found)
    assert difference(found, torch.nn.functional.silu(gate) * up) < 1e-5
