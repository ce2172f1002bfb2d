"""The Triton kernels against the torch references and the formula.

Without a GPU they run in Triton's interpreter, in float32 only: it cannot multiply bfloat16
matrices. The tests marked `gpu` run the same functions compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from triton import knobs

from penstock_kernels import activation, norm, rope
from penstock_kernels.backend import Heads, Rows, TorchBackend
from penstock_kernels.gpu import backend as gpu_backend
from penstock_kernels.gpu import decode_attention as decode
from penstock_kernels.gpu.activation import silu_mul
from penstock_kernels.gpu.linear import Tile, linear, linear_one_row
from penstock_kernels.gpu.norm import add_rms_norm, rms_norm
from penstock_kernels.gpu.rope import rope_and_write
from support.paged import PagedCase, assert_near, naive_attention, paged_case

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning:triton")
SCALE = 0.21


class Place(NamedTuple):
    """Where a kernel runs and in what."""

    device: str
    dtype: torch.dtype

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(*shape).to(self.device, self.dtype)


@pytest.fixture(
    params=[
        pytest.param(Place("cpu", torch.float32), id="interpreter"),
        pytest.param(Place("cuda", torch.float32), id="float32", marks=pytest.mark.gpu),
        pytest.param(Place("cuda", torch.bfloat16), id="bfloat16", marks=pytest.mark.gpu),
    ]
)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    chosen: Place = request.param
    if chosen.device == "cpu" and not knobs.runtime.interpret:
        pytest.skip("with a GPU the kernels are compiled: run -m gpu")
    torch.manual_seed(0)
    with np.errstate(invalid="ignore"):  # rows of padding are 0 / 0 and never stored
        yield chosen


class Shape(NamedTuple):
    heads: int
    kv_heads: int
    head_dim: int
    page: int


SHAPES = [
    Shape(2, 2, 64, 16),
    Shape(4, 2, 24, 8),
    Shape(4, 1, 128, 64),
    Shape(8, 1, 64, 8),
    Shape(3, 1, 80, 16),
]


def case_of(spans: list[tuple[int, int]], shape: Shape, place: Place) -> PagedCase:
    return paged_case(spans, *shape).to(place.device, place.dtype)


def run_decode(case: PagedCase, window: int | None, splits: int | None) -> Tensor:
    rows, heads, width = case.query.shape
    kv_heads = case.cache.shape[1]
    device = case.query.device
    # Queries stand among keys and values, as the decoder has them.
    qkv = torch.randn(rows, heads + 2 * kv_heads, width, device=device).to(case.query.dtype)
    qkv[:, :heads] = case.query
    out = torch.full((rows, heads * width), torch.nan, device=device, dtype=case.query.dtype)
    workspace = decode.DecodeWorkspace(512, heads, kv_heads, width, device)
    workspace.partial.fill_(torch.nan)  # what no split wrote must not be read
    workspace.lse.fill_(torch.nan)
    decode.decode_attention(
        qkv[:, :heads], case.cache, case.table, case.slot.int(), case.position, out, workspace,
        SCALE, window, splits,
    )  # fmt: skip
    return out


@pytest.mark.parametrize("splits", [1, 3, 7, 64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_decode_attention(place: Place, shape: Shape, splits: int) -> None:
    case = case_of([(0, 1), (299, 1), (63, 1), (64, 1), (130, 1)], shape, place)
    assert_near(run_decode(case, None, splits), naive_attention(case, SCALE, None))


@pytest.mark.parametrize(
    ("window", "splits"),
    [(1, 1), (1, 3), (17, None), (64, 1), (64, 3), (200, None), (200, 2), (1000, 1), (1000, 5)],
)
def test_decode_attention_in_a_window(place: Place, window: int, splits: int | None) -> None:
    spans = [(0, 1), (250, 1), (191, 1), (16, 1), (64, 1)]
    for shape in (Shape(4, 2, 24, 8), Shape(2, 1, 64, 64)):
        case = case_of(spans, shape, place)
        assert_near(run_decode(case, window, splits), naive_attention(case, SCALE, window))


def test_decode_attention_of_every_length(place: Place) -> None:
    """Around each tile and page boundary, in as many splits as the launch would take."""
    for first in (0, 61, 125):
        case = case_of([(first + i, 1) for i in range(5)], Shape(2, 1, 16, 16), place)
        assert_near(run_decode(case, None, None), naive_attention(case, SCALE, None))


def test_more_splits_than_the_workspace_holds_are_refused(place: Place) -> None:
    case = case_of([(9, 1)] * 5, Shape(4, 2, 16, 16), place)
    out = torch.empty_like(case.query).flatten(1)
    workspace = decode.DecodeWorkspace(1, 4, 2, 16, case.query.device)
    with pytest.raises(ValueError, match="5 rows in 64 splits"):
        decode.decode_attention(
            case.query, case.cache, case.table, case.slot.int(), case.position, out, workspace,
            SCALE, splits=64,
        )  # fmt: skip


def test_splits_fill_the_card_and_fit_the_workspace() -> None:
    for kv_heads in (1, 2, 8):
        cells = decode.DecodeWorkspace(300, 8, kv_heads, 16, torch.device("cpu")).lse.numel()
        for rows in range(1, 301):
            splits = decode.splits_for(rows, kv_heads)
            assert 1 <= splits <= decode.MAX_SPLITS
            assert rows * splits * kv_heads * 16 <= cells
            programs = rows * kv_heads * splits
            enough = programs >= decode.TARGET_PROGRAMS // 2 or splits == decode.MAX_SPLITS
            assert enough and (splits == 1 or programs <= 2 * decode.TARGET_PROGRAMS)


def rows_of(case: PagedCase, decode_rows: int = 0) -> Rows:
    slots = torch.arange(len(case.queries), device=case.slot.device)
    return Rows(
        case.slot, case.position, case.table, slots, decode_rows, case.context, case.queries
    )


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rope_and_write(place: Place, shape: Shape, normalised: bool) -> None:
    heads, kv_heads, width, page = shape
    case = case_of([(0, 1), (41, 1), (3, 6), (15, 2)], shape, place)
    rows, total = len(case.slot), heads + 2 * kv_heads
    angle = torch.rand(64, width // 2, device=place.device) * 6.28
    angles = torch.stack((angle.cos(), angle.sin()), dim=1)
    norms = (place.randn(width), place.randn(width)) if normalised else None
    qkv, cache = place.randn(rows, total * width), case.cache.clone()
    expected, expected_cache = qkv.clone().view(rows, total, width), case.cache.clone()
    qk = expected[:, : heads + kv_heads]
    if norms is not None:
        both = torch.cat((norms[0].expand(heads, -1), norms[1].expand(kv_heads, -1)))
        qk.copy_(norm.rms_norm(qk, both, 1e-6))
    rope.rotate_(qk, *rope.rotation(angles, case.position))
    column = (case.position // page).unsqueeze(1)
    block = case.table[case.slot].gather(1, column).squeeze(1).long()
    rope.write_kv(expected_cache, expected[:, heads:], block * page + case.position % page)
    rope_and_write(
        qkv, cache, case.table, case.slot.int(), case.position, angles, heads, norms, 1e-6
    )
    assert_near(qkv.view(rows, total, width)[:, :heads], expected[:, :heads])
    assert_near(cache, expected_cache)
    untouched = expected_cache == case.cache
    assert torch.equal(cache[untouched], case.cache[untouched])


@pytest.mark.parametrize("width", [1, 24, 300, 1025])
def test_norms(place: Place, width: int) -> None:
    wide = place.randn(3, 2 * width)
    for x in (wide[:, :width], wide[:, width:], wide[:, :width].contiguous()):
        weight, residual = place.randn(width), place.randn(3, width)
        assert_near(rms_norm(x, weight, 1e-5), norm.rms_norm(x, weight, 1e-5))
        total = residual.clone()
        expected = norm.add_rms_norm(x, total, weight, 1e-5)
        assert_near(add_rms_norm(x, residual, weight, 1e-5), expected)
        assert torch.equal(residual, total)


@pytest.mark.parametrize("width", [1, 24, 1024, 1500])
def test_silu_mul(place: Place, width: int) -> None:
    gate_up = place.randn(3, 2 * width)
    assert_near(silu_mul(gate_up), activation.silu_mul(gate_up))


def needs_half_or_interpreter(place: Place) -> None:
    if place == ("cuda", torch.float32):
        pytest.skip("products in float32 are left to cuBLAS")


@pytest.mark.parametrize("rows", [1, 3, 17, 64, 70])
@pytest.mark.parametrize("tile", [Tile(32, 64, 1, 4, 2), Tile(128, 128, 1, 4, 3)], ids=str)
def test_linear(place: Place, rows: int, tile: Tile) -> None:
    needs_half_or_interpreter(place)
    x, weight = place.randn(rows, 256), place.randn(256, 256) / 16
    out = torch.full((rows, 256), torch.nan, device=place.device, dtype=place.dtype)
    linear(x, weight, out, tile)
    assert_near(out, x.float() @ weight.float().T)


@pytest.mark.parametrize("rows", [1, 5, 33])
def test_linear_of_strided_rows(place: Place, rows: int) -> None:
    needs_half_or_interpreter(place)
    x, weight = place.randn(rows, 300)[:, :256], place.randn(64, 256) / 16
    out = torch.full((rows, 64), torch.nan, device=place.device, dtype=place.dtype)
    linear(x, weight, out, Tile(32, 64, 1, 4, 2))
    assert_near(out, x.float() @ weight.float().T)


@pytest.mark.parametrize("rows", [1, 3, 17])
@pytest.mark.parametrize("splits", [2, 4])
def test_linear_split_along_k(place: Place, rows: int, splits: int) -> None:
    """The partial sums are float32 whatever the input is."""
    needs_half_or_interpreter(place)
    x, weight = place.randn(rows, 512), place.randn(96, 512) / 16
    out = torch.full((splits, rows, 96), torch.nan, device=place.device)
    linear(x, weight, out, Tile(32, 64, splits, 4, 2))
    parts = [
        a.float() @ b.float().T
        for a, b in zip(x.chunk(splits, 1), weight.chunk(splits, 1), strict=True)
    ]
    for part, expected in zip(out, parts, strict=True):
        assert_near(part.to(place.dtype), expected)


@pytest.mark.parametrize("rows", [1, 3, 17])
def test_gated_linear(place: Place, rows: int) -> None:
    needs_half_or_interpreter(place)
    x, weight = place.randn(rows, 256), place.randn(192, 256) / 16
    out = torch.full((rows, 96), torch.nan, device=place.device, dtype=place.dtype)
    linear(x, weight, out, Tile(32, 64, 1, 4, 2), gated=True)
    assert_near(out, activation.silu_mul(x.float() @ weight.float().T))


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("depth", [128, 384])
def test_linear_of_one_row(place: Place, gated: bool, depth: int) -> None:
    x, weight = place.randn(1, depth), place.randn(56, depth) / 16
    expected = x.float() @ weight.float().T
    if gated:
        expected = activation.silu_mul(expected)
    out = torch.full(expected.shape, torch.nan, device=place.device, dtype=place.dtype)
    linear_one_row(x, weight, out, Tile(4, 128, 1, 4, 2), gated=gated)
    assert_near(out, expected)


@pytest.mark.parametrize(("window", "normalised"), [(None, False), (20, True)])
def test_backends_agree_on_a_mixed_step(place: Place, window: int | None, normalised: bool) -> None:
    """Decode rows and chunks in one step, through the interface that the decoder uses."""
    shape = Shape(4, 2, 24, 8)
    heads = Heads(*shape[:3])
    case = case_of([(30, 1), (77, 1), (0, 1), (12, 140), (0, 9)], shape, place)
    angle = torch.rand(160, 12, device=place.device) * 6.28
    angles = torch.stack((angle.cos(), angle.sin()), dim=1)
    qkv = place.randn(len(case.slot), 8 * 24)
    qk_norm = None
    if normalised:
        qk_norm = torch.cat((place.randn(24).expand(4, -1), place.randn(24).expand(2, -1)))
    rows, cache = rows_of(case, decode_rows=3), case.cache.clone()
    theirs = TorchBackend(heads, angles, 1e-6, shape.page).attention(rows)
    ours = gpu_backend.TritonBackend(heads, angles, 1e-6, 8).attention(rows)
    expected = theirs(qkv.clone(), case.cache, qk_norm, window)
    assert_near(ours(qkv, cache, qk_norm, window), expected)
    assert_near(cache, case.cache)
