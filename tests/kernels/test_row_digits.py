"""Products of one row as digits: the assembly, both kernels in Gluon on the CPU, and on a GPU what
the table of products takes."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from triton import knobs

from penstock_kernels.gpu.launch.dependent import supports_dependent_launch
from penstock_kernels.gpu.products import hopper_row, hopper_row_ring
from penstock_kernels.gpu.products.hopper_digits import DIGITS, NEGATIVES, row_bytes
from penstock_kernels.gpu.products.hopper_row import RowConfig
from penstock_kernels.gpu.products.hopper_row_ring import RingConfig
from penstock_kernels.gpu.products.hopper_row_stage import step_bytes
from penstock_kernels.gpu.products.hopper_row_table import digits_of, lookup, words_of
from penstock_kernels.gpu.products.one_row import Config, config_for, multiply
from penstock_kernels.gpu.products.problem import Epilogue
from penstock_kernels.gpu.products.table import find
from penstock_kernels.gpu.step.rows import TritonRows
from penstock_kernels.lut import TABLES
from penstock_kernels.ops import Act, Activation, Norm, NormKind
from penstock_kernels.reference.activation import gate
from penstock_kernels.reference.norm import normalise
from penstock_kernels.weight import Layout, Weight
from penstock_quantization.lut import Coded, packed
from penstock_quantization.online import ONLINE
from support import ptx
from support.gluon_interpreter import Interpreted, Late

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning:triton")
by_the_interpreter = pytest.mark.skipif(not knobs.runtime.interpret, reason="run -m gpu")
WORD = 0xFFFFFFFF
OFF = 0.005  # of a product, by numbers of a table that are looked up in 7 bits


def signed(words: Tensor) -> Tensor:
    """The four bytes of words, along a new last dimension."""
    return (
        (words[..., None] >> torch.arange(0, 32, 8) & 255).to(torch.uint8).view(torch.int8).long()
    )


@pytest.mark.parametrize("code", list(TABLES))
def test_the_assembly_looks_digits_up(code: str) -> None:
    """Every code at each of the eight places of a word; a half's digits are 0 for the other's."""
    codes = (torch.arange(16)[:, None] + 3 * torch.arange(8)) % 16
    words = (codes << 4 * torch.arange(8)).sum(1)
    digits = digits_of(code)
    table = [word.expand(16) for word in words_of(digits, torch.device("cpu"))[:, 0].long() & WORD]
    registers = [words, *(register for word in table for register in [word] * 4)]
    found = [signed(word) for word in ptx.run(lookup(digits), registers, 4)]
    plus, minus = torch.cat(found[:2], dim=1), torch.cat(found[2:], dim=1)
    assert not (plus * minus).any()
    exact = torch.tensor(TABLES[code], dtype=torch.float64)
    off = (plus - minus * digits.ratio) * digits.unit - exact[codes]
    unit = digits.unit * max(1, digits.ratio)
    assert off.abs().max() <= unit * 0.501
    assert off.square().mean().sqrt() <= exact.square().mean().sqrt() * 0.0025


def test_the_assembly_finds_the_digits_of_numbers() -> None:
    numbers = torch.cat((torch.rand(4, 500) * 2 - 1, torch.tensor([[-1.0, 1, 0, 0.5]] * 4)), dim=1)
    numbers *= 127 * 256
    words = list(numbers.view(torch.int32).long() & WORD)
    for assembly, sign in ((DIGITS, 1), (NEGATIVES, -1)):
        high, low = map(signed, ptx.run(assembly.value, words, 2))
        assert torch.equal(high * 256 + low, sign * numbers.T.round().long())
        assert high.abs().max() <= 127


class Case(NamedTuple):
    kind: str
    n: int
    k: int
    config: Config
    gated: bool = False
    normed: NormKind | None = None
    adds: bool = False
    biased: bool = False


CASES = [
    Case("int8", 64, 2560, RowConfig(8, 2, 255), adds=True),  # a row that fills no power of two
    Case("int8", 32, 512, RowConfig(4, 1, 168), normed=NormKind.RMS_ONE, biased=True),
    Case("int8", 96, 1024, RowConfig(8, 1, 168), gated=True),
    Case("nf4", 96, 1024, RingConfig(8, 2, 2, 1, 168), gated=True, normed=NormKind.RMS),  # turns
    Case(
        "fp4", 64, 1536, RingConfig(8, 1, 2, 1, 168), gated=True, normed=NormKind.RMS_ONE,
        biased=True,
    ),
    Case("e2m1", 64, 2560, RingConfig(8, 1, 2, 1, 168), adds=True),
    Case("nf4", 80, 1536, RingConfig(4, 1, 2, 2, 128), normed=NormKind.RMS_ONE, biased=True),
    Case("fp4", 96, 2560, RingConfig(8, 1, 3, 1, 168), adds=True, biased=True),
    Case("int8", 128, 1024, RingConfig(8, 1, 2, 1, 80), gated=True, normed=NormKind.RMS),
    Case("int8", 48, 2048, RingConfig(4, 2, 1, 1, 128), adds=True),
    Case("fp8", 32, 1536, RowConfig(4, 2, 168), normed=NormKind.RMS, biased=True),
    Case("fp8", 96, 1024, RingConfig(8, 1, 2, 1, 80), gated=True, normed=NormKind.RMS_ONE),
    Case("fp8", 64, 2560, RingConfig(8, 1, 2, 1, 168), adds=True),
]  # fmt: skip
ONLINE_NAMES = {"int8": "eetq", "fp8": "fp8"}


def weight_of(case: Case, dtype: torch.dtype) -> Weight:
    bias = torch.randn(case.n).div(4).to(dtype) if case.biased else None
    if case.kind in ONLINE_NAMES:
        dense = Weight((torch.randn(case.n, case.k) * case.k**-0.5).to(dtype), bias)
        return ONLINE[ONLINE_NAMES[case.kind]](dense, lambda largest: largest, None)
    codes = torch.randint(0, 16, (case.n, case.k)).to(torch.uint8)
    scale = torch.rand(case.n, case.k // 64).add(0.5).div(case.k**0.5)
    return packed([Coded(codes, case.kind, scale=scale, group=64)], bias)


def run(
    case: Case, x: Tensor, weight: Weight, norm: Norm | None, before: Tensor,
    monkeypatch: pytest.MonkeyPatch, loader_first: bool = False,
) -> Tensor:  # fmt: skip
    module: ModuleType = hopper_row if isinstance(case.config, RowConfig) else hopper_row_ring
    out = before.clone() if case.adds else torch.full_like(before, torch.nan)
    late = [Late(x), *([Late(out)] if case.adds else [])]
    monkeypatch.setattr(module, "_kernel", Interpreted(module._kernel, loader_first, late))
    monkeypatch.setattr(hopper_row_ring, "multiprocessors", lambda device: 2)
    multiply(case.config, x, weight, out, True, norm, case.gated, case.adds)
    return out


def off(found: Tensor, exact: Tensor) -> float:
    """How far results are from exact ones, of those."""
    return float((found.float() - exact).norm() / exact.norm())


def as_looked_up(weight: Weight) -> Weight:
    """With the table that kernels have of it: whole numbers times a unit."""
    if not weight.code:
        return weight
    digits = digits_of(weight.code)
    plus = torch.tensor(digits.halves[0]) * digits.unit
    minus = torch.tensor(digits.halves[1]) * -digits.unit * digits.ratio
    low, high = (plus, minus) if digits.first else (minus, plus)
    table = torch.cat((low, high.flip(0)))[None].float()
    return replace(weight, table=table.to(weight.data.device))


@by_the_interpreter
@pytest.mark.parametrize("loader_first", [False, True], ids=["consumers-first", "loader-first"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_row(case: Case, loader_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each warp's piece with its own digits; what comes before the product and behind. A number
    that is larger than all others costs its own piece alone precision."""
    if loader_first and isinstance(case.config, RowConfig):
        pytest.skip("nothing is loaded beside")
    torch.manual_seed(0)
    dtype = torch.float16 if case.k == 1536 else torch.bfloat16
    x, weight = torch.randn(1, case.k).to(dtype), weight_of(case, dtype)
    x[0, 200] = 100
    norm = Norm(torch.randn(case.k).to(dtype) + 1, 1e-5, case.normed) if case.normed else None
    before = torch.randn(1, case.n // 2 if case.gated else case.n).to(dtype)
    found = run(case, x, weight, norm, before, monkeypatch, loader_first)
    row = x if norm is None else normalise(x, norm)
    numbers = as_looked_up(weight).dequantised()
    assert off(row.float() @ numbers.T, row.float() @ weight.dequantised().T) < OFF
    expected = row.float() @ numbers.T
    if weight.bias is not None:
        expected += weight.bias.float()
    if case.gated:
        expected = gate(expected, Act.SILU)
    if case.adds:
        expected = expected.to(dtype).float() + before.float()
    step = torch.finfo(dtype).eps
    scale = float(expected.abs().max()) * 1e-4
    torch.testing.assert_close(found.float(), expected, rtol=2 * step, atol=step + scale)


@by_the_interpreter
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("fp8", RowConfig(4, 1, 168)),
        ("fp8", RingConfig(4, 1, 2, 1, 128)),
        ("nf4", RingConfig(4, 1, 2, 1, 128)),
    ],
)
def test_what_is_no_number_stays_none_and_zeros_stay(
    kind: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(kind, 32, 512, config)
    weight, before = weight_of(case, torch.bfloat16), torch.zeros(1, 32).bfloat16()
    x = torch.randn(1, 512).bfloat16()
    x[0, 300] = torch.nan
    assert run(case, x, weight, None, before, monkeypatch).isnan().all()
    monkeypatch.undo()
    assert not run(case, torch.zeros_like(x), weight, None, before, monkeypatch).any()


@pytest.mark.parametrize(
    ("layout", "rings"),
    [(Layout.LUT, {"qkv", "o", "gate_up", "down"}), (Layout.INT8, {"gate_up", "down"})],
)
def test_which_kernel_has_a_product(layout: Layout, rings: set[str]) -> None:
    """Of Llama-3.1-8B; and a ring always fits beside the row."""
    of = {
        name: config_for(n, k, layout, name == "gate_up", 132)
        for name, (n, k) in {
            "qkv": (6144, 4096), "o": (4096, 4096), "gate_up": (28672, 4096),
            "down": (4096, 14336), "odd": (4096, 1000), "long": (4096, 20480), "few": (48, 4096),
        }.items()
    }  # fmt: skip
    ring = {name for name, config in of.items() if isinstance(config, RingConfig)}
    assert ring == rings
    assert {name for name, config in of.items() if config is None} == {"odd", "long", "few"}


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("layout", [Layout.LUT, Layout.INT8, Layout.FP8])
def test_rings_fit_into_shared_memory(layout: Layout, gated: bool) -> None:
    for k in range(512, 16385, 512):
        config = config_for(28672, k, layout, gated, 132)
        if isinstance(config, RingConfig):
            assert config.stages >= 2
            steps = config.stages * config.depths * step_bytes(layout, config.warps)
            held = row_bytes(k, layout) + steps + 16 * config.stages + 1024
            assert config.residents * held <= 228 << 10


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", ["bitsandbytes-nf4", "bitsandbytes-fp4", "eetq"])
@pytest.mark.parametrize(("n", "k"), [(6144, 4096), (28672, 4096), (4096, 14336), (3072, 2048)])
def test_on_a_gpu(n: int, k: int, form: str, dtype: torch.dtype) -> None:
    """With the norm, the gate or the sum that belongs to them; of codes with the numbers that they
    look up, which are not quite the table's."""
    torch.manual_seed(0)
    device = torch.device("cuda", 0)
    dense = Weight(torch.randn(n, k, device=device, dtype=dtype) * k**-0.5)
    weight = ONLINE[form](dense, lambda largest: largest, None)
    bias = torch.randn(n, device=device, dtype=dtype)
    weight = replace(weight, bias=bias)
    step = TritonRows(supports_dependent_launch(device))
    x, before = (torch.randn(1, size, device=device, dtype=dtype) for size in (k, n))
    x[0, 200] = 100
    norm = Norm(torch.randn_like(x[0]) + 1, 1e-5)
    if find(Epilogue.NONE, Activation(x, norm=norm), weight) is None:
        pytest.skip("no kernel of this card normalises what it reads")
    matrix, exact = as_looked_up(weight).dequantised(), weight.dequantised()
    alone, behind = (row.float() @ matrix.T + bias.float() for row in (x, normalise(x, norm)))
    near = {"rtol": 2e-2, "atol": 2e-2 * float(alone.std())}
    late = step.norm(x, norm, weight)
    assert late.norm is norm
    found = step.linear(Activation(x), weight)
    assert off(found - bias, x.float() @ exact.T) < OFF + 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(found.float(), alone, **near)
    torch.testing.assert_close(step.linear(late, weight).float(), behind, **near)
    found = step.gated(late, weight, Act.SILU).x.float()
    torch.testing.assert_close(found, gate(behind, Act.SILU), **near)
    residual = before.clone()
    step.linear_add_norm(Activation(x), weight, residual, None)
    torch.testing.assert_close(residual.float(), alone + before.float(), **near)
