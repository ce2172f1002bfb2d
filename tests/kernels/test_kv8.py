"""Numbers of a cache in FP8, by the kernels as by torch, bit for bit."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

from penstock_kernels.fp8 import bits, saturated
from penstock_kernels.gpu.attention import kv8

TYPES = [torch.float8_e4m3fn, torch.float8_e5m2]
BLOCK = 1024
narrowed, widened = kv8.narrowed, kv8.widened
pytestmark = pytest.mark.filterwarnings(
    "ignore:overflow encountered:RuntimeWarning", "ignore:invalid value:RuntimeWarning"
)


@triton.jit
def _narrow_kernel(x, out, n, FP8: tl.constexpr, CONVERTS: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, narrowed(tl.load(x + at, at < n), FP8, CONVERTS), at < n)


@triton.jit
def _widen_kernel(x, out, n, FP8: tl.constexpr, CONVERTS: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    wide = widened(tl.load(x + at, at < n), out.dtype.element_ty, FP8, CONVERTS)
    tl.store(out + at, wide, at < n)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cpu" and not knobs.runtime.interpret:
        pytest.skip("with a GPU the kernels are compiled: run -m gpu")
    return torch.device(request.param)


def ways(device: torch.device) -> set[bool]:
    """By the bits, and by instructions where the card has them."""
    return {False, kv8.card.converts_fp8(device)}


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_numbers_are_rounded_as_torch_rounds_them(device: torch.device, dtype: torch.dtype) -> None:
    """Every number of bfloat16 and of float16, and some between: ties, what is too large or too
    small, infinity and NaN."""
    halves = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16)
    torch.manual_seed(0)
    x = torch.cat(
        (
            halves.view(torch.bfloat16).float(),
            halves.view(torch.float16).float(),
            torch.randn(50_000) * 100,
            torch.randn(50_000) * 1e-2,
        )
    ).to(device)
    expected = saturated(x, dtype)
    for converts in ways(device):
        out = torch.empty(len(x), dtype=torch.uint8, device=device)
        grid = (triton.cdiv(len(x), BLOCK),)
        _narrow_kernel[grid](x, out, len(x), kv8.exponent_bits(expected), converts, BLOCK)
        assert_same(out.view(dtype).float(), expected.float())


@pytest.mark.parametrize("wide", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_number_is_widened_exactly(
    device: torch.device, dtype: torch.dtype, wide: torch.dtype
) -> None:
    x = torch.arange(256, dtype=torch.int32, device=device).to(torch.uint8).view(dtype)
    for converts in ways(device):
        out = torch.empty(256, dtype=wide, device=device)
        _widen_kernel[(1,)](bits(x), out, 256, kv8.exponent_bits(x), converts, BLOCK)
        assert_same(out, x.to(wide))


def assert_same(x: Tensor, y: Tensor) -> None:
    assert torch.equal(x.isnan(), y.isnan())
    assert torch.equal(x[~x.isnan()], y[~y.isnan()])
