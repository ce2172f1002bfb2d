"""Kernels that go over rows, in half precision at the sizes of models, against float32.

Scale-free: a result of these kernels has been rounded once to three times. A GPU runs them launched
dependently too. Without one they run in Triton's interpreter, which cannot add bfloat16.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from triton import knobs

from penstock_kernels.gpu.attention.decode_merge import merge
from penstock_kernels.gpu.launch.dependent import supports_dependent_launch
from penstock_kernels.gpu.step.activation import gate
from penstock_kernels.gpu.step.norm import add_norm, normalise
from penstock_kernels.gpu.step.rope import RowPlacement, rope_and_write
from penstock_kernels.ops import Act, AttentionSpec, Norm, QKNorm
from penstock_kernels.reference import activation, norm, rope
from support.paged import difference
from support.sampled import crossed

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning:triton")
EPS = 1e-5


@pytest.fixture(
    params=[
        pytest.param(("cpu", torch.float16), id="interpreter"),
        pytest.param(("cuda", torch.float16), id="float16", marks=pytest.mark.gpu),
        pytest.param(("cuda", torch.bfloat16), id="bfloat16", marks=pytest.mark.gpu),
    ]
)
def where(request: pytest.FixtureRequest) -> tuple[str, torch.dtype]:
    chosen: tuple[str, torch.dtype] = request.param
    if chosen[0] == "cpu" and not knobs.runtime.interpret:
        pytest.skip("with a GPU the kernels are compiled: run -m gpu")
    torch.manual_seed(0)
    return chosen


def ways(device: str) -> tuple[bool, ...]:
    """Launched one by one, and dependently where the card can."""
    return (False, True) if supports_dependent_launch(torch.device(device)) else (False,)


def rows_on(device: str) -> tuple[int, ...]:
    return (1, 7, 300) if device == "cuda" else (1, 3)


def assert_rounded(x: Tensor, reference: Tensor) -> None:
    """`x` was written as a whole, and is the reference but for its rounding."""
    found = difference(x, reference)  # NaN where anything was left as it was
    bound = (
        torch.finfo(x.dtype).eps ** 2 / 5
    )  # 1.2e-5 of bfloat16, 1.9e-7 of float16: twice what is found
    assert found < bound, f"difference {found:.2e}"


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("d", [2048, 4096, 5000])
def test_norms(where: tuple[str, torch.dtype], d: int, parts: int) -> None:
    """Also of a sum of parts in float32, which is rounded before it is added."""
    device, dtype = where
    for rows in rows_on(device):
        x = torch.randn(parts, rows, d, device=device, dtype=torch.float32 if parts > 1 else dtype)
        weight, before = torch.randn(d, device=device).to(dtype), torch.randn(rows, d).to(dtype)
        total = before.float().to(device)
        expected = norm.add_norm(x.float().sum(0), total, Norm(weight.float(), EPS))
        alone = norm.rms_norm(x[0].float(), weight.float(), EPS)
        for dependent in ways(device):
            residual = before.to(device, copy=True)
            out = torch.full_like(residual, torch.nan)
            add_norm(x if parts > 1 else x[0], residual, Norm(weight, EPS), dependent, out)
            assert_rounded(out, expected)
            assert_rounded(residual, total)
            if parts == 1:
                out.fill_(torch.nan)
                assert_rounded(normalise(x[0], Norm(weight, EPS), dependent, out), alone)


@pytest.mark.parametrize("d", [8192, 14336, 1001])
def test_gate(where: tuple[str, torch.dtype], d: int) -> None:
    device, dtype = where
    for rows in rows_on(device):
        gate_up = torch.randn(rows, 2 * d, device=device).to(dtype) * 3
        expected = activation.gate(gate_up.float(), Act.SILU)
        for dependent in ways(device):
            out = torch.full((rows, d), torch.nan, device=device, dtype=dtype)
            assert_rounded(gate(gate_up, Act.SILU, dependent, out), expected)


@pytest.mark.parametrize(
    ("shape", "normed"),
    crossed(
        [(32, 8, 128, 64), (32, 8, 64, 16), (7, 1, 80, 64)],
        [False, True],
        sample=lambda shape, normed: normed == (shape[2] > 64),
    ),
)
def test_rope_and_write(
    where: tuple[str, torch.dtype], shape: tuple[int, int, int, int], normed: bool
) -> None:
    """Rotated queries, and what stands in the cache; the rest of it stays NaN."""
    device, dtype = where
    heads, kv_heads, width, page = shape
    columns, slots, total = 5, 300, heads + 2 * kv_heads
    angle = torch.rand(columns * page, width // 2, device=device) * 6.28
    angles = torch.stack((angle.cos(), angle.sin()), dim=1)
    table = torch.randperm(slots * columns, device=device).int().view(slots, columns)
    norms = [torch.randn(width, device=device).to(dtype) for _ in range(2)]
    qk_norm = QKNorm(*(Norm(weight, EPS) for weight in norms)) if normed else None
    for rows in rows_on(device):
        slot = torch.randperm(slots, device=device)[:rows]
        position = torch.randint(0, columns * page, (rows,), device=device)
        position[-1], position[0] = columns * page - 1, page - 1  # last ones of their pages
        before = torch.randn(rows, total, width, device=device).to(dtype)
        wide = before.float()
        if normed:
            both = zip(wide.split((heads, kv_heads, kv_heads), dim=1), norms, strict=False)
            for part, weight in both:
                part.copy_(norm.rms_norm(part, weight.float(), EPS))
        rope.rotate_(wide[:, : heads + kv_heads], *rope.rotation(angles, position))
        place = table[slot, position // page].long() * page + position % page
        for dependent in ways(device):
            shape = (2, kv_heads, slots * columns, page, width)
            cache = torch.full(shape, torch.nan, device=device, dtype=dtype)
            qkv = before.clone()
            placement = RowPlacement(slot, position, table, angles)
            spec = AttentionSpec(heads, kv_heads, width, 1.0)
            rope_and_write(qkv.view(rows, -1), cache, placement, spec, qk_norm, dependent)
            assert_rounded(qkv[:, :heads], wide[:, :heads])
            written = cache.view(2 * kv_heads, -1, width)[:, place].transpose(0, 1)
            assert_rounded(written, wide[:, heads:])
            assert int(cache.isfinite().sum()) == written.numel()


@pytest.mark.parametrize(("rows", "most"), [(1, 70), (5, 70), (20, 5)])
@pytest.mark.parametrize(("heads", "width"), [(32, 128), (5, 80), (7, 64)])
def test_portable_merge(
    where: tuple[str, torch.dtype], heads: int, width: int, rows: int, most: int
) -> None:
    """More parts than are loaded at once, and rows that stand there already."""
    device, dtype = where
    parts = torch.randint(0, most, (rows,), dtype=torch.int32)
    parts[:2] = torch.tensor([most, 1])[:rows]
    spans = torch.stack((parts.cumsum(0) - parts, parts, parts), 1).int()
    partial, lse = torch.randn(int(parts.sum()), heads, width), torch.randn(int(parts.sum()), heads)
    for dependent in ways(device):
        out = torch.full((rows, heads * width), torch.nan, device=device, dtype=dtype)
        on = [x.to(device).contiguous() for x in (partial, lse * 8, spans)]
        merge(*on, out, rows, width, dependent)
        for row, (at, _, count) in enumerate(spans.tolist()):
            if count < 2:
                assert bool(out[row].isnan().all())
                continue
            weights = (lse[at : at + count] * 8 * 0.6931471805599453).softmax(0)
            expected = (weights[:, :, None] * partial[at : at + count]).sum(0)
            assert_rounded(out[row], expected.flatten())
