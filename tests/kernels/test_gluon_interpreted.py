"""The kernels in Gluon on the CPU, over odd shapes, against float32.

Not modelled: time, registers, layouts and swizzles, and the order of memory between programs, which
run one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from triton import knobs

from penstock_kernels import int4
from penstock_kernels.fp8 import bits, quantise, saturated, scale_of
from penstock_kernels.gpu.attention import hopper_decode, hopper_merge, hopper_prefill
from penstock_kernels.gpu.attention.hopper_decode import HopperDecode
from penstock_kernels.gpu.attention.prefill_attention import prefill_tiles, query_tile
from penstock_kernels.gpu.products import (
    hopper_gated,
    hopper_int4,
    hopper_int4_many,
    hopper_int4_raw,
    hopper_int4_row,
    hopper_linear,
    hopper_lut,
    hopper_qkv,
    hopper_w4a8,
    hopper_w4a8_gated,
)
from penstock_kernels.gpu.products.hopper_codes import lookup
from penstock_kernels.gpu.products.hopper_int4 import Int4Config
from penstock_kernels.gpu.products.hopper_linear import (
    LinearConfig,
    linear_config,
    widened_linear_config,
)
from penstock_kernels.gpu.step.rope import RowPlacement
from penstock_kernels.lut import TABLES
from penstock_kernels.ops import CacheSpec, Norm, NormKind
from penstock_kernels.reference import norm as reference_norm
from penstock_kernels.reference import rope
from penstock_kernels.weight import Weight
from penstock_quantization.lut import Coded, packed
from penstock_quantization.online import fp8
from penstock_shard.steps.sharing import SharingTensors
from support import ptx
from support.gluon_interpreter import Interpreted, Late
from support.paged import PagedCase, assert_near, naive_attention, paged_case, sinks_of
from support.whole_numbers import rounded

HALF = [torch.bfloat16, torch.float16]
FP8 = [torch.float8_e4m3fn, torch.float8_e5m2]
MULTIPROCESSORS = 3  # so few that programs take several turns
Interpret = Callable[..., None]
by_the_interpreter = pytest.mark.skipif(not knobs.runtime.interpret, reason="its plan is Triton's")
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning:triton")


@pytest.fixture(params=[False, True], ids=["consumers-first", "loader-first"])
def interpret(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Interpret:
    """Has a module's kernel interpreted; late: tensors that the launch before it writes."""
    torch.manual_seed(0)
    kernels: dict[ModuleType, object] = {}

    def replace(module: ModuleType, *late: Late) -> None:
        kernel = kernels.setdefault(module, module._kernel)
        monkeypatch.setattr(module, "_kernel", Interpreted(kernel, request.param, late))
        if hasattr(module, "multiprocessors"):
            monkeypatch.setattr(module, "multiprocessors", lambda device: MULTIPROCESSORS)

    return replace


def product(rows: int, n: int, k: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x: [rows, k]; weight: [n, k]."""
    return torch.randn(rows, k).to(dtype), (torch.randn(n, k) * k**-0.5).to(dtype)


def assert_rounded(x: Tensor, reference: Tensor) -> None:
    """As `assert_near`, and each number of half precision within a few roundings of one about 1."""
    assert_near(x, reference)
    if x.dtype != torch.float32:
        step = torch.finfo(x.dtype).eps
        torch.testing.assert_close(x.double(), reference.double(), rtol=2 * step, atol=step)


@pytest.mark.parametrize("dependent", [False, True])
@pytest.mark.parametrize(
    ("rows", "n", "k", "config"),
    [
        (2, 64, 128, LinearConfig(1, 1, 1)),  # one tile
        (7, 320, 384, LinearConfig(1, 2, 1)),  # turns of two lengths, a ring that wraps
        (9, 192, 640, LinearConfig(2, 3, 1)),  # splits of unequal depth
        (33, 128, 640, LinearConfig(5, 1, 2)),
        (64, 256, 256, LinearConfig(1, 2, 1)),
    ],
)
def test_linear(
    rows: int, n: int, k: int, config: LinearConfig, dependent: bool, interpret: Interpret
) -> None:
    x, weight = product(rows, n, k, HALF[rows % 2])
    interpret(hopper_linear, *([Late(x)] if dependent else []))
    out = torch.full((config.splits, rows, n), torch.nan)
    if config.splits == 1:
        out = out[0].to(x.dtype)
    hopper_linear.hopper_linear(x, Weight(weight), out, config, False, dependent)
    assert_rounded(out if config.splits == 1 else out.sum(0), x.float() @ weight.float().T)


@pytest.mark.parametrize(
    ("rows", "k", "gated", "split"),
    [
        (2, 640, False, True),
        (7, 1280, False, False),
        (16, 128, False, True),
        (33, 384, False, False),
        (64, 256, False, True),
        (2, 640, True, False),
        (16, 128, True, False),
        (33, 384, True, False),
        (100, 768, True, False),
    ],
)
def test_linear_as_it_is_launched(
    rows: int, k: int, gated: bool, split: bool, interpret: Interpret
) -> None:
    """Splits and rings that are chosen: many stages, rings that one turn does not fill."""
    n = 384
    config = linear_config(rows, n, k, gated, split, MULTIPROCESSORS)
    assert config is not None and (config.splits > 1) == (split and k > 128)
    x, weight = product(rows, n, k, HALF[k // 128 % 2])
    interpret(hopper_linear, Late(x))
    out = torch.full((rows, n // 2 if gated else n), torch.nan, dtype=x.dtype)
    if config.splits > 1:
        out = torch.full((config.splits, rows, n), torch.nan)
    hopper_linear.hopper_linear(x, Weight(weight), out, config, gated, True)
    expected = x.float() @ weight.float().T
    if gated:
        gate, up = expected.chunk(2, dim=1)
        expected = torch.nn.functional.silu(gate) * up
    assert_rounded(out.sum(0).to(x.dtype) if config.splits > 1 else out, expected)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("rows", "n", "k"), [(2, 128, 640), (9, 384, 256), (64, 128, 1280)])
def test_linear_of_weights_in_fp8(
    rows: int, n: int, k: int, gated: bool, biased: bool, interpret: Interpret
) -> None:
    """Widened on the way to the product, scaled and shifted behind it."""
    x, dense = product(rows, n, k, HALF[rows % 2])
    bias = torch.randn(n).div(4).to(x.dtype) if biased else None
    weight = fp8(Weight(dense, bias), lambda largest: largest)
    interpret(hopper_linear, Late(x))
    split = not (gated or biased)
    config = widened_linear_config(rows, n, k, gated, split, MULTIPROCESSORS)
    assert config is not None and (config.splits > 1) == (split and n == 128)
    out = torch.full((rows, n // 2 if gated else n), torch.nan, dtype=x.dtype)
    if config.splits > 1:
        out = torch.full((config.splits, rows, n), torch.nan)
    hopper_linear.hopper_linear(x, weight, out, config, gated, True)
    out = out.sum(0).to(x.dtype) if config.splits > 1 else out
    expected = x.float() @ weight.dequantised().T + (0 if bias is None else bias.float())
    if gated:
        gate, up = expected.chunk(2, dim=1)
        expected = torch.nn.functional.silu(gate) * up
    assert_rounded(out, expected)


def coded(n: int, k: int, kind: str, bias: Tensor | None = None) -> Weight:
    """Random codes with the scales of a format."""
    codes = torch.randint(0, 16, (n, k)).to(torch.uint8)
    code, group, dtype = {
        "nf4": ("nf4", 64, torch.float32),
        "mxfp4": ("e2m1", 32, torch.bfloat16),
        "nvfp4": ("e2m1", 16, torch.float8_e4m3fn),
    }[kind]
    scale = torch.rand(n, k // group).add(0.5).div(k**0.5).to(dtype)
    outer = None
    if kind == "nvfp4":
        scale, outer = torch.rand(n, k // group).add(0.5).to(dtype), torch.rand(n).div(k**0.5)
    return packed([Coded(codes, code, scale=scale, group=group, outer=outer)], bias)


@pytest.mark.parametrize("kind", ["nf4", "mxfp4", "nvfp4"])
@pytest.mark.parametrize(
    ("rows", "n", "k", "gated", "split", "biased"),
    [
        (1, 128, 640, False, True, False),
        (9, 384, 256, True, False, True),
        (64, 128, 1280, False, False, True),
    ],
)
def test_linear_of_codes(
    rows: int, n: int, k: int, gated: bool, split: bool, biased: bool, kind: str,
    interpret: Interpret,
) -> None:  # fmt: skip
    """Looked up and scaled on the way to the product."""
    x = torch.randn(rows, k).to(HALF[rows // 9 % 2])
    weight = coded(n, k, kind, torch.randn(n).div(4).to(x.dtype) if biased else None)
    interpret(hopper_lut, Late(x))
    config = hopper_lut.lut_config(rows, n, k, gated, split, MULTIPROCESSORS)
    assert config is not None and (config.splits > 1) == split
    out = torch.full((rows, n // 2 if gated else n), torch.nan, dtype=x.dtype)
    if split:
        out = torch.full((config.splits, rows, n), torch.nan)
    hopper_lut.hopper_lut(x, weight, out, config, gated, True)
    out = out.sum(0).to(x.dtype) if split else out
    bias = 0 if weight.bias is None else weight.bias.float()
    expected = x.float() @ weight.dequantised().T + bias
    if gated:
        gate, up = expected.chunk(2, dim=1)
        expected = torch.nn.functional.silu(gate) * up
    assert_near(out, expected)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("code", list(TABLES))
def test_the_assembly_looks_codes_up(code: str, dtype: torch.dtype) -> None:
    """Every code at each of the eight places of a word."""
    codes = (torch.arange(16)[:, None] + 3 * torch.arange(8)) % 16
    words = (codes << 4 * torch.arange(8)).sum(1)
    found = torch.stack(ptx.run(lookup(code, dtype), [words], 4), dim=1)
    halves = torch.stack((found & 0xFFFF, found >> 16), dim=2).flatten(1)
    expected = torch.tensor(TABLES[code]).to(dtype)[codes].view(torch.int16).long() & 0xFFFF
    assert torch.equal(halves, expected)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(
    ("rows", "n", "k", "group", "kind", "config"),
    [
        (1, 128, 512, 128, "plain", Int4Config(1, 1, 2, 1, True)),  # a ring that wraps
        (5, 640, 256, 64, "zeros", Int4Config(1, 2, 3, 1, True)),  # turns; stages of two tiles
        (16, 256, 768, 128, "plain", Int4Config(3, 2, 1, 2, True)),
        (8, 384, 256, 128, "biased", Int4Config(2, 1, 2, 1, True)),
        (33, 128, 640, 128, "zeros", Int4Config(5, 1, 2, 1, False)),
        (64, 384, 256, 64, "biased", Int4Config(1, 1, 2, 2, False)),
    ],
)
def test_linear_of_weights_in_4_bits(
    rows: int, n: int, k: int, group: int, kind: str, config: Int4Config, gated: bool,
    interpret: Interpret,
) -> None:  # fmt: skip
    """Every number where it belongs, centred by zeros, scaled by groups; in parts or gated."""
    if gated or kind == "biased":
        config = replace(config, splits=1)
    x, dense = product(rows, n, k, HALF[rows % 2])
    bias = torch.randn(n).div(4).to(x.dtype) if kind == "biased" else None
    weight = rounded(Weight(dense, bias), 4, group, zeros=kind == "zeros")
    interpret(hopper_int4, Late(x))
    out = torch.full((rows, n // 2 if gated else n), torch.nan, dtype=x.dtype)
    if config.splits > 1:
        out = torch.full((config.splits, rows, n), torch.nan)
    hopper_int4.hopper_int4(x, weight, out, config, gated, True)
    out = out.sum(0).to(x.dtype) if config.splits > 1 else out
    expected = x.float() @ weight.dequantised().T + (0 if bias is None else bias.float())
    if gated:
        gate, up = expected.chunk(2, dim=1)
        expected = torch.nn.functional.silu(gate) * up
    assert_rounded(out, expected)


@pytest.mark.parametrize(
    ("n", "k", "group", "kind", "normed", "adds"),
    [
        (64, 1024, 128, "zeros", NormKind.RMS, False),
        (128, 2048, 64, "biased", NormKind.RMS_ONE, False),
        (192, 2048, 64, "zeros", None, True),
        (64, 5120, 128, "biased", NormKind.RMS, True),  # more steps than are read ahead
    ],
)
def test_one_row_of_weights_in_4_bits(
    n: int, k: int, group: int, kind: str, normed: NormKind | None, adds: bool,
    interpret: Interpret,
) -> None:  # fmt: skip
    """Each warp's piece of the row with its own tile; what comes before the product and behind."""
    x, dense = product(1, n, k, HALF[k // 1024 % 2])
    bias = torch.randn(n).div(4).to(x.dtype) if kind == "biased" else None
    weight = rounded(Weight(dense, bias), 4, group, zeros=kind == "zeros")
    ahead = hopper_int4_row.steps_ahead(n, k, group, MULTIPROCESSORS)
    assert ahead is not None
    norm = Norm(torch.randn(k).to(x.dtype) + 1, 1e-5, normed) if normed else None
    out = torch.full((1, n), torch.nan, dtype=x.dtype)
    before = torch.randn(1, n).to(x.dtype) if adds else None
    if before is not None:
        out.copy_(before)
    interpret(hopper_int4_row, Late(x), *([Late(out)] if adds else []))
    hopper_int4_row.hopper_int4_row(x, weight, out, ahead, True, norm, adds)
    row = x if norm is None else reference_norm.normalise(x, norm)
    expected = row.float() @ weight.dequantised().T + (0 if bias is None else bias.float())
    assert_rounded(out, expected if before is None else expected + before.float())


@pytest.mark.parametrize(
    ("n", "k", "group", "kind", "normed"),
    [
        (128, 1024, 128, "zeros", NormKind.RMS),
        (640, 2048, 64, "plain", NormKind.RMS_ONE),  # turns
        (256, 3072, 128, "biased", NormKind.RMS),  # a ring that wraps
    ],
)
def test_one_gated_row_of_weights_in_4_bits(
    n: int, k: int, group: int, kind: str, normed: NormKind, interpret: Interpret
) -> None:
    """Each tile with its own piece of the row, from whichever depth a program begins."""
    x, dense = product(1, n, k, HALF[k // 1024 % 2])
    bias = torch.randn(n).div(4).to(x.dtype) if kind == "biased" else None
    weight = rounded(Weight(dense, bias), 4, group, zeros=kind == "zeros")
    config = hopper_int4_raw.raw_config(n, k, group, kind == "zeros")
    assert config is not None
    norm = Norm(torch.randn(k).to(x.dtype) + 1, 1e-5, normed)
    out = torch.full((1, n // 2), torch.nan, dtype=x.dtype)
    interpret(hopper_int4_raw, Late(x))
    hopper_int4_raw.hopper_int4_raw(x, norm, weight, out, config, True)
    row = reference_norm.normalise(x, norm).float()
    expected = row @ weight.dequantised().T + (0 if bias is None else bias.float())
    gate, up = expected.chunk(2, dim=1)
    assert_rounded(out, torch.nn.functional.silu(gate) * up)


@pytest.mark.parametrize(
    ("rows", "n", "k", "group", "splits", "kind"),
    [
        (20, 256, 640, 128, 2, "zeros"),
        (64, 384, 256, 64, 1, "plain"),
        (70, 128, 128, 128, 1, "biased"),
        (129, 512, 768, 64, 1, "zeros"),
        (300, 256, 384, 128, 2, "plain"),
    ],
)
def test_linear_of_many_rows_of_weights_in_4_bits(
    rows: int, n: int, k: int, group: int, splits: int, kind: str, interpret: Interpret
) -> None:
    """A last tile of few rows, turns, a ring that wraps."""
    x, dense = product(rows, n, k, HALF[rows % 2])
    bias = torch.randn(n).div(4).to(x.dtype) if kind == "biased" else None
    weight = rounded(Weight(dense, bias), 4, group, zeros=kind == "zeros")
    interpret(hopper_int4_many, Late(x))
    out = torch.full((rows, n), torch.nan, dtype=x.dtype)
    if splits > 1:
        out = torch.full((splits, rows, n), torch.nan)
    hopper_int4_many.hopper_int4_many(x, weight, out, splits, True)
    out = out.sum(0).to(x.dtype) if splits > 1 else out
    expected = x.float() @ weight.dequantised().T + (0 if bias is None else bias.float())
    assert_rounded(out, expected)


@pytest.mark.parametrize(
    ("rows", "n", "k", "group", "splits", "kind", "tile"),
    [
        (20, 256, 1408, 128, 2, "zeros", 64),
        (64, 384, 256, 64, 1, "plain", 64),
        (70, 80, 144, 128, 1, "biased", 128),  # parts of tiles
        (129, 512, 1280, 64, 1, "zeros", 128),
        (300, 256, 768, 128, 1, "plain", 256),
    ],
)
def test_linear_in_fp8_of_weights_in_4_bits(
    rows: int, n: int, k: int, group: int, splits: int, kind: str, tile: int,
    interpret: Interpret,
) -> None:  # fmt: skip
    """Numbers less their zeros are exact in FP8; a last tile of few rows, turns, a ring that
    wraps."""
    x, dense = product(rows, n, k, HALF[rows % 2])
    bias = torch.randn(n).div(4).to(x.dtype) if kind == "biased" else None
    weight = rounded(Weight(dense, bias), 4, group, zeros=kind == "zeros")
    scale = scale_of(x.float().abs().amax(1, keepdim=True))
    q = quantise(x, scale)
    interpret(hopper_w4a8, Late(q), Late(scale))
    out = torch.full((rows, n), torch.nan, dtype=x.dtype)
    if splits > 1:
        out = torch.full((splits, rows, n), torch.nan)
    config = hopper_w4a8.W4A8Config(tile, splits)
    hopper_w4a8.hopper_w4a8(int4.interleave(q), scale, weight, out, config, True)
    out = out.sum(0).to(x.dtype) if splits > 1 else out
    expected = (q.float() * scale) @ weight.dequantised().T
    assert_rounded(out, expected + (0 if bias is None else bias.float()))


@pytest.mark.parametrize(
    ("rows", "n", "k", "group", "kind", "tile"),
    [
        (50, 64, 144, 128, "biased", 64),
        (129, 320, 1152, 64, "zeros", 128),  # turns, a ring that wraps
        (300, 256, 256, 128, "plain", 256),
    ],
)
def test_gated_in_fp8_of_weights_in_4_bits(
    rows: int, n: int, k: int, group: int, kind: str, tile: int, interpret: Interpret
) -> None:
    """Each turn with the other half's results of the same turn."""
    x, dense = product(rows, 2 * n, k, HALF[rows % 2])
    bias = torch.randn(2 * n).div(4).to(x.dtype) if kind == "biased" else None
    weight = rounded(Weight(dense, bias), 4, group, zeros=kind == "zeros")
    scale = scale_of(x.float().abs().amax(1, keepdim=True))
    q = quantise(x, scale)
    interpret(hopper_w4a8_gated, Late(q), Late(scale))
    out = torch.full((rows, n), torch.nan, dtype=x.dtype)
    hopper_w4a8_gated.hopper_w4a8_gated(int4.interleave(q), scale, weight, out, tile, True)
    expected = (q.float() * scale) @ weight.dequantised().T
    gate, up = (expected + (0 if bias is None else bias.float())).chunk(2, dim=1)
    assert_rounded(out, torch.nn.functional.silu(gate) * up)


@pytest.mark.parametrize(
    ("rows", "n", "k"),
    [(1, 128, 64), (64, 128, 128), (127, 256, 320), (129, 128, 576), (300, 384, 192)],
)
def test_gated_linear(rows: int, n: int, k: int, interpret: Interpret) -> None:
    """Fewer depths than stages and more, a last tile of few rows, bands, turns."""
    x, weight = product(rows, 2 * n, k, HALF[rows % 2])
    interpret(hopper_gated)
    out = torch.full((rows, n), torch.nan, dtype=x.dtype)
    hopper_gated.hopper_gated_linear(x, weight, out)
    gate, up = (x.float() @ weight.float().T).chunk(2, dim=1)
    assert_rounded(out, torch.nn.functional.silu(gate) * up)


def test_gated_linear_in_bands(interpret: Interpret, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands of two tiles of rows, the last of one."""
    monkeypatch.setattr(hopper_gated, "BAND", 2)
    test_gated_linear(520, 256, 64, interpret)


@pytest.mark.parametrize("kind", ["dense", "biased", "fp8", "to fp8"])
@pytest.mark.parametrize("dependent", [False, True])
@pytest.mark.parametrize(
    ("rows", "heads", "kv_heads", "width", "page"),
    [(2, 2, 1, 64, 16), (7, 3, 3, 64, 64), (16, 5, 1, 128, 16), (33, 2, 2, 128, 64)],
)
def test_qkv(
    rows: int, heads: int, kv_heads: int, width: int, page: int, dependent: bool, kind: str,
    interpret: Interpret,
) -> None:  # fmt: skip
    """Queries rotated, keys and values in the cache, and no other number of it touched."""
    k, columns, slots = 384, 3, rows + 2
    x, dense = product(rows, (heads + 2 * kv_heads) * width, k, HALF[rows % 2])
    bias = None if kind == "dense" else torch.randn(len(dense)).div(4).to(x.dtype)
    weight = Weight(dense, bias)
    if kind == "fp8":
        weight = fp8(weight, lambda largest: largest)
    interpret(hopper_qkv, *([Late(x)] if dependent else []))
    angle = torch.rand(columns * page, width // 2) * 6.28
    angles = torch.stack((angle.cos(), angle.sin()), dim=1)
    blocks = slots * columns + 5
    table = torch.randperm(blocks)[: slots * columns].int().view(slots, columns)
    slot, position = torch.randperm(slots)[:rows], torch.randint(0, columns * page, (rows,))
    position[:2] = torch.tensor([0, columns * page - 1])
    cache = torch.randn(2, kv_heads, blocks, page, width).to(x.dtype)
    stored = CacheSpec()
    if kind == "to fp8":
        stored = CacheSpec(torch.float8_e4m3fn, 0.25, 0.02)
        cache = saturated(cache, torch.float8_e4m3fn)
    before, expected = cache.clone(), cache if kind == "to fp8" else cache.float()
    expected = expected.clone()
    query = torch.full((rows, heads * width), torch.nan, dtype=x.dtype)
    config = linear_config(rows, weight.n, k, False, False, MULTIPROCESSORS)
    assert config is not None
    placement = RowPlacement(slot, position, table, angles, stored.inverses)
    hopper_qkv.hopper_qkv(x, weight, query, cache, placement, config, dependent)
    qkv = x.float() @ weight.dequantised().float().T + (0 if bias is None else bias.float())
    qkv = qkv.view(rows, -1, width)
    rope.rotate_(qkv[:, : heads + kv_heads], *rope.rotation(angles, position))
    location = table[slot, position // page].long() * page + position % page
    kv = qkv[:, heads:]
    rope.write_kv(expected, kv.to(x.dtype) if kind == "to fp8" else kv, location, stored)
    assert_rounded(query, qkv[:, :heads].reshape(rows, -1))
    if kind == "to fp8":  # a sum that is rounded otherwise may be the next number
        assert (cache.float() != expected.float()).float().mean() < 1e-3
    else:
        assert_rounded(cache, expected)
    cache, before = bits(cache), bits(before)
    untouched = torch.ones(blocks * page, dtype=torch.bool)
    untouched[location] = False
    shape = (2 * kv_heads, blocks * page, width)
    assert torch.equal(cache.view(shape)[:, untouched], before.view(shape)[:, untouched])


@pytest.mark.parametrize(("rows", "known"), [(1, [33]), (1, [1]), (5, [1, 2, 0, 17]), (64, [0])])
@pytest.mark.parametrize(("heads", "width"), [(4, 64), (7, 64), (5, 128), (16, 128)])
def test_merge(rows: int, known: list[int], heads: int, width: int, interpret: Interpret) -> None:
    """More parts than are loaded at once, one, and none."""
    parts = torch.randint(0, 6, (rows,), dtype=torch.int32)
    parts[: len(known)] = torch.tensor(known)
    first = parts.cumsum(0) - parts
    spans = torch.stack((first, parts, parts), 1).int().contiguous()
    partial = torch.randn(int(parts.sum()), heads, width)
    lse = torch.randn(int(parts.sum()), heads) * 8
    interpret(hopper_merge, Late(partial), Late(lse))
    out = torch.full((rows, heads * width), torch.nan)
    hopper_merge.merge(partial, lse, spans, out, rows, width, True)
    for row, (at, _, count) in enumerate(spans.tolist()):
        if count < 2:  # written by decode attention
            assert bool(out[row].isnan().all())
            continue
        weights = lse[at : at + count].mul(0.6931471805599453).softmax(0)
        expected = (weights[:, :, None] * partial[at : at + count]).sum(0).flatten()
        assert_rounded(out[row], expected)


class Decode(NamedTuple):
    """Sizes of decode attention, rows that share blocks, and tokens of each row of its own."""

    heads: int
    kv_heads: int
    width: int
    page: int
    groups: list[tuple[int, int]]  # rows and shared blocks of each
    own: list[int]  # of rows of groups first
    scale: float = 0.09


DECODES = [
    Decode(4, 1, 64, 64, [], [1]),
    Decode(4, 1, 64, 64, [], [127, 1, 129]),
    Decode(4, 2, 64, 16, [], [1, 15, 16, 17, 63, 128, 300]),
    Decode(8, 1, 128, 64, [(3, 2)], [1, 64, 65, 130, 7]),  # few queries together
    Decode(8, 1, 128, 32, [(8, 5)], [1, 3, 64, 9, 31, 32, 33, 2]),  # many
    Decode(7, 1, 64, 128, [(7, 3), (2, 1)], [1, 5, 64, 9, 128, 129, 2, 1, 3, 200]),
    Decode(5, 1, 128, 16, [(13, 9)], [*range(1, 14), 100]),  # two tiles of rows
    Decode(8, 1, 128, 64, [(9, 24)], [*range(60, 69)]),  # more tiles of a span than stages
    Decode(8, 2, 64, 64, [], [2900, 60]),
    Decode(64, 1, 128, 64, [], [70, 3]),  # a row is many
    Decode(4, 2, 64, 64, [(4, 4)], [1, 2, 3, 4, 260], 9.0),  # largest scores are far apart
]


def by_slot(case: Decode, dtype: torch.dtype, stored: torch.dtype | None = None) -> PagedCase:
    """Groups share blocks, slots are in any order; NaN wherever no sequence has a token."""
    spans, first = [(own - 1, 1) for own in case.own], 0
    for rows, blocks in case.groups:
        for row in range(first, first + rows):
            spans[row] = (blocks * case.page + case.own[row] - 1, 1)
        first += rows
    paged = paged_case(spans, case.heads, case.kv_heads, case.width, case.page).to("cpu", dtype)
    first = 0
    for rows, blocks in case.groups:
        paged.table[first : first + rows, :blocks] = paged.table[first, :blocks].clone()
        first += rows
    order = torch.randperm(len(spans))
    paged.slot.copy_(order)
    paged.table[order] = paged.table.clone()
    return forgotten(paged if stored is None else paged.in_fp8(stored))


def forgotten(case: PagedCase) -> PagedCase:
    """NaN wherever no sequence has a token."""
    nothing = ~written(case, range(len(case.position)))[:, :, None]
    bits(case.cache).masked_fill_(nothing, 0x7F if case.cache.dtype.itemsize == 1 else torch.nan)
    return case


def written(case: PagedCase, rows: Iterable[int], last_only: bool = False) -> Tensor:
    """[blocks, page]: the tokens of some rows' sequences, or their last ones."""
    blocks, page = case.cache.shape[2:4]
    flags = torch.zeros(blocks, page, dtype=torch.bool)
    for row in rows:
        last = int(case.position[row])
        token = torch.arange(last if last_only else 0, last + 1)
        flags[case.table[int(case.slot[row])].long()[token // page], token % page] = True
    return flags


def decoded(
    case: PagedCase,
    size: Decode,
    interpret: Interpret,
    live: int | None = None,
    window: int | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """By the plan of Triton's kernel, in Triton's interpreter."""
    rows, heads, width = case.query.shape
    last = written(case, range(rows), last_only=True)[None, None, :, :, None]
    late = Late(case.cache, last.expand(case.cache.shape))
    device = case.query.device
    # Queries stand a row's stride apart, as where keys and values stand behind them.
    query = torch.randn(rows, heads + 3, width).to(case.query.dtype)[:, :heads].copy_(case.query)
    interpret(hopper_decode, Late(query), late)
    plain = HopperDecode(rows, heads, size.kv_heads, width, device)
    sharing = None
    if size.groups:
        tensors = SharingTensors(max(2, rows), plain.tile_rows, device)
        counts, blocks = np.array(size.groups, np.int64).T
        tensors.load(counts, blocks, size.page)
        sharing = tensors.view(rows)
    alive = None if live is None else torch.tensor([live], dtype=torch.int32)
    plan = plain.plan(case.position, case.slot, alive, sharing, window)
    attend = HopperDecode(rows, heads, size.kv_heads, width, device, True)
    attend.partial.fill_(torch.nan)
    attend.lse.fill_(torch.nan)
    interpret(hopper_merge, Late(attend.partial), Late(attend.lse))
    out = torch.full((rows, heads * width), torch.nan, dtype=case.query.dtype)
    attend(query, case.cache, case.table, out, plan, size.scale, case.stored, sinks)
    return out


@by_the_interpreter
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("size", DECODES, ids=str)
def test_decode(size: Decode, dtype: torch.dtype, interpret: Interpret) -> None:
    case = by_slot(size, dtype)
    out = decoded(case, size, interpret)
    assert_rounded(out, naive_attention(case, size.scale, None))


@by_the_interpreter
@pytest.mark.parametrize("window", [None, 65])
@pytest.mark.parametrize("stored", FP8, ids=str)
@pytest.mark.parametrize("size", [DECODES[i] for i in (1, 3, 4, 5, 9)], ids=str)
def test_decode_of_a_cache_in_fp8(
    size: Decode, stored: torch.dtype, window: int | None, interpret: Interpret
) -> None:
    """Few queries and many, of heads of both widths."""
    case = by_slot(size, HALF[size.heads % 2], stored)
    out = decoded(case, size, interpret, window=window)
    assert_rounded(out, naive_attention(case, size.scale, window))


@by_the_interpreter
@pytest.mark.parametrize("window", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("size", [DECODES[2], DECODES[5], DECODES[9]], ids=str)
def test_decode_in_a_window(size: Decode, window: int, interpret: Interpret) -> None:
    """Windows that begin in and between tiles and pages; with one, nothing is shared."""
    case = by_slot(size, torch.bfloat16)
    out = decoded(case, size, interpret, window=window)
    assert_rounded(out, naive_attention(case, size.scale, window))


@by_the_interpreter
@pytest.mark.parametrize("stored", [None, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("window", [None, 65])
@pytest.mark.parametrize("size", [DECODES[i] for i in (3, 4, 5)], ids=str)
def test_decode_with_sinks(
    size: Decode, window: int | None, stored: torch.dtype | None, interpret: Interpret
) -> None:
    """Of rows that share tokens, of those of several pieces, and of those alone."""
    case = by_slot(size, torch.bfloat16, stored)
    sinks = sinks_of(size.heads)
    out = decoded(case, size, interpret, window=window, sinks=sinks)
    assert_rounded(out, naive_attention(case, size.scale, window, None, sinks))


@by_the_interpreter
@pytest.mark.parametrize("live", [0, 1, 3, 5])
def test_decode_rows_that_do_not_count(live: int, interpret: Interpret) -> None:
    size = Decode(4, 1, 64, 64, [(3, 2)] if live >= 3 else [], [1, 70, 3, 300, 9])
    case = by_slot(size, torch.bfloat16)
    out = decoded(case, size, interpret, live)
    assert bool(out[live:].isnan().all())
    if live:
        assert_rounded(out[:live], naive_attention(case, size.scale, None)[:live])


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "width", "page"),
    [(2, 2, 64, 64), (4, 1, 64, 128), (7, 1, 128, 64), (5, 1, 64, 64)],
)
def test_prefill(
    heads: int, kv_heads: int, width: int, page: int, dtype: torch.dtype, interpret: Interpret
) -> None:
    check_prefill(heads, kv_heads, width, page, dtype, None, interpret)


@pytest.mark.parametrize("window", [1, 64, 100])
@pytest.mark.parametrize(("heads", "width"), [(1, 64), (7, 128)])
def test_prefill_in_a_window(heads: int, width: int, window: int, interpret: Interpret) -> None:
    """Rows of a tile that see nothing of its first keys, and windows that begin between tiles."""
    check_prefill(heads, 1, width, 64, torch.bfloat16, window, interpret)


@pytest.mark.parametrize("window", [None, 100])
@pytest.mark.parametrize("stored", FP8, ids=str)
@pytest.mark.parametrize(("heads", "width"), [(4, 64), (7, 128)])
def test_prefill_of_a_cache_in_fp8(
    heads: int, width: int, stored: torch.dtype, window: int | None, interpret: Interpret
) -> None:
    check_prefill(heads, 1, width, 64, HALF[heads % 2], window, interpret, stored)


@pytest.mark.parametrize("stored", [None, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("window", [None, 100])
def test_prefill_with_sinks(
    window: int | None, stored: torch.dtype | None, interpret: Interpret
) -> None:
    check_prefill(8, 2, 64, 64, torch.bfloat16, window, interpret, stored, sinks_of(8))


def check_prefill(
    heads: int,
    kv_heads: int,
    width: int,
    page: int,
    dtype: torch.dtype,
    window: int | None,
    interpret: Interpret,
    stored: torch.dtype | None = None,
    sinks: Tensor | None = None,
) -> None:
    """Contexts that end in and between tiles of keys, rows that fill half a tile, unused tiles."""
    spans = [(5, 1), (70, 17), (0, 130), (64, 64), (255, 2), (0, 1), (600, 41)]
    case = paged_case(spans, heads, kv_heads, width, page).to("cpu", dtype)
    case = forgotten(case if stored is None else case.in_fp8(stored))
    interpret(hopper_prefill)
    count = len(case.query)
    qkv = torch.randn(count, heads + 2 * kv_heads, width).to(dtype)
    qkv[:, :heads] = case.query  # queries stand among keys and values, as the decoder has them
    pieces = prefill_tiles(case.queries, case.context, 0, query_tile(heads, kv_heads))
    pieces = np.concatenate((pieces, np.zeros((2, 2), np.int32)))
    out = torch.full((count, heads * width), torch.nan, dtype=dtype)
    hopper_prefill.hopper_prefill(
        qkv[:, :heads], case.cache, case.table, case.slot.int(), case.position,
        torch.from_numpy(pieces), out, 0.21, window, case.stored, sinks,
    )  # fmt: skip
    assert_rounded(out, naive_attention(case, 0.21, window, None, sinks))
