"""Norms, rotation, cache writes and the gated activation against their formulas."""

from __future__ import annotations

import pytest
import torch

from penstock_kernels.ops import Act, Norm, NormKind
from penstock_kernels.reference.activation import activate, gate
from penstock_kernels.reference.norm import add_norm, normalise, rms_norm
from penstock_kernels.reference.rope import rotate_, rotation, write_kv
from support.paged import difference

HALF = [torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (5, 4, 24), (2, 300)])
@pytest.mark.parametrize("eps", [1e-6, 1e-2])
def test_rms_norm(shape: tuple[int, ...], eps: float) -> None:
    x, weight = torch.randn(shape) * 3, torch.randn(shape[-1])
    wide = x.double()
    expected = wide / (wide.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()
    torch.testing.assert_close(rms_norm(x, weight, eps).double(), expected, atol=1e-6, rtol=1e-5)


def test_rms_norm_of_zeros_is_zero() -> None:
    assert not rms_norm(torch.zeros(2, 8), torch.ones(8), 1e-6).any()


@pytest.mark.parametrize("dtype", HALF)
def test_rms_norm_rounds_before_the_weight(dtype: torch.dtype) -> None:
    """As transformers does: bits, not only numbers, must agree."""
    x, weight = torch.randn(4, 64).to(dtype), torch.randn(64).to(dtype)
    wide = x.float()
    scaled = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)).to(dtype)
    ours, theirs = rms_norm(x, weight, 1e-6), weight * scaled
    assert ours.dtype == dtype
    assert (ours != theirs).float().mean() < 0.02  # a sum in another order may round differently
    assert difference(ours, theirs) < 1e-6


def test_add_norm_adds_in_place() -> None:
    x, residual, weight = torch.randn(3, 16), torch.randn(3, 16), torch.randn(16)
    total = x + residual
    kept = x.clone()
    out = add_norm(x, residual, Norm(weight, 1e-5))
    assert torch.equal(residual, total) and torch.equal(x, kept)
    assert torch.equal(out, rms_norm(total, weight, 1e-5))


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_norms_of_other_kinds(dtype: torch.dtype) -> None:
    """By their formulas in double precision."""
    x, weight, bias = (torch.randn(*shape).to(dtype) for shape in ((5, 24), (24,), (24,)))
    wide, gain = x.double(), weight.double()
    one = normalise(x, Norm(weight, 1e-3, NormKind.RMS_ONE))
    scaled = wide / (wide.square().mean(-1, keepdim=True) + 1e-3).sqrt()
    centred = wide - wide.mean(-1, keepdim=True)
    layer = normalise(x, Norm(weight, 1e-3, NormKind.LAYER, bias))
    deviation = (centred.square().mean(-1, keepdim=True) + 1e-3).sqrt()
    limit = 1e-12 if dtype == torch.float32 else 1e-5
    assert one.dtype == layer.dtype == dtype
    assert difference(one, scaled * (1 + gain)) < limit
    assert difference(layer, centred / deviation * gain + bias.double()) < limit


@pytest.mark.parametrize("width", [2, 16, 24, 128])
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_rotation_is_a_complex_product(width: int, dtype: torch.dtype) -> None:
    half = width // 2
    angle = torch.rand(50, half) * 6.28
    table = torch.stack((angle.cos(), angle.sin()), dim=1)
    positions = torch.tensor([0, 49, 7, 7])
    x = torch.randn(4, 3, width).to(dtype)
    number = torch.complex(x[..., :half].double(), x[..., half:].double())
    turned = number * torch.polar(
        torch.ones(4, 1, half).double(), angle[positions][:, None].double()
    )
    expected = torch.cat((turned.real, turned.imag), dim=-1)
    rotate_(x, *rotation(table, positions))
    assert difference(x, expected) < (1e-12 if dtype == torch.float32 else 1e-5)


def test_rotation_of_a_view_leaves_the_rest() -> None:
    """Queries and keys are rotated inside the fused rows; values stay."""
    angle = torch.rand(9, 4)
    qkv = torch.randn(3, 5, 8)
    before = qkv.clone()
    cos, sin = rotation(torch.stack((angle.cos(), angle.sin()), dim=1), torch.tensor([1, 2, 8]))
    rotate_(qkv[:, :4], cos, sin)
    alone = before[:, :4].contiguous()
    rotate_(alone, cos, sin)
    assert torch.equal(qkv[:, :4], alone) and torch.equal(qkv[:, 4], before[:, 4])


def test_write_kv_writes_its_tokens_and_nothing_else() -> None:
    cache = torch.randn(2, 3, 5, 4, 6)
    expected, kv = cache.clone(), torch.randn(4, 6, 6)
    places = [(4, 3), (1, 0), (1, 1), (2, 2)]
    for row, (block, offset) in enumerate(places):
        for head in range(3):
            expected[0, head, block, offset] = kv[row, head]
            expected[1, head, block, offset] = kv[row, 3 + head]
    write_kv(cache, kv, torch.tensor([block * 4 + offset for block, offset in places]))
    assert torch.equal(cache, expected)


ACTS = {
    Act.SILU: lambda x: x * torch.sigmoid(x),
    Act.GELU: lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2,
    Act.GELU_TANH: lambda x: (
        x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2
    ),
    Act.RELU: torch.relu,
    Act.RELU2: lambda x: torch.relu(x).square(),
    Act.CLAMPED_SWIGLU: lambda x: x.clamp(max=7) * torch.sigmoid(1.702 * x.clamp(max=7)),
}


@pytest.mark.parametrize("act", Act)
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_activations(dtype: torch.dtype, act: Act) -> None:
    x = (torch.randn(3, 26) * 4).to(dtype)
    first, up = x[:, :13].double(), x[:, 13:].double()
    gated, plain = gate(x, act), activate(x.clone(), act)
    limit = 1e-11 if dtype == torch.float32 else 1e-5
    assert gated.shape == (3, 13) and gated.dtype == plain.dtype == dtype
    if act is Act.CLAMPED_SWIGLU:
        up = up.clamp(-7, 7) + 1
    assert difference(gated, ACTS[act](first) * up) < limit
    assert difference(plain, ACTS[act](x.double())) < limit
