"""Products in which a row's result does not depend on the rows beside it.

Every output is summed over k by one program, from the first column to the last: no split of k, and
blocks of k one after the other into the same sum. What is left to differ is the order within an
instruction of the tensor cores, which their shape might change, and so the shape of a tile. So the
tiles for few and for many rows are tried on the card before they are used; where they do not come
to the same bits, there is one tile.

Layouts of 8 bits are widened in registers. Others are widened in memory, then they are dense.

Reference: `penstock_kernels.reference.device.linear`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.fp8 import GROUP
from penstock_kernels.gpu.launch.card import has_fp8, has_tensor_cores, shared_bytes
from penstock_kernels.gpu.launch.dependent import launch, release, wait
from penstock_kernels.gpu.products import int4_linear, lut_linear, widen
from penstock_kernels.gpu.products.operands import block_sizes, kinds, mixed, operands
from penstock_kernels.gpu.products.operands import column as column_of
from penstock_kernels.gpu.products.problem import MANY, Epilogue, Problem, Product
from penstock_kernels.gpu.products.table import ProductTable
from penstock_kernels.ops import Activation
from penstock_kernels.weight import Layout, Weight

FEW = 64  # rows up to which the weight's bytes are what a product costs
TOGETHER = 8  # tiles of rows that read the same tiles of the weight while these are in the cache


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows of the weight, rows of activations, depth, warps and pipeline stages of a program."""

    n: int
    rows: int
    k: int
    warps: int
    stages: int


@dataclass(frozen=True, slots=True)
class Tiles:
    """Those for up to FEW rows and beyond, which come to the same bits."""

    few: Tile
    many: Tile

    def of(self, rows: int) -> Tile:
        return self.few if rows <= FEW else self.many


HALF = Tiles(Tile(64, 64, 64, 4, 4), Tile(128, 128, 64, 8, 3))
WIDE = Tiles(Tile(64, 16, 32, 4, 2), Tile(64, 16, 32, 4, 2))  # in float32, without tensor cores


@triton.jit
def _of_blocks(scale, row, column, inside, K, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The scale of the block that a column and each row are in."""
    return tl.load(
        scale + row // ROWS * tl.cdiv(K, COLUMNS) + column // COLUMNS, mask=inside, other=0.0
    ).to(tl.float32)


@triton.jit
def _place(BN: tl.constexpr, BM: tl.constexpr, N: tl.constexpr, rows, TOGETHER: tl.constexpr):
    """Which tiles of the weight and of the rows a program multiplies."""
    across: tl.constexpr = (N + BN - 1) // BN
    down = tl.cdiv(rows, BM)
    program = tl.program_id(0)
    first = program // (TOGETHER * across) * TOGETHER
    some = tl.minimum(down - first, TOGETHER)
    within = program % (TOGETHER * across)
    return within // some, first + within % some


@triton.jit(do_not_specialize=["rows"])
def _kernel(
    x,  # [rows, x_stride]
    weight,  # [N, K]
    scale,  # [N] float32, with WIDENED; with ROWS > 0 [cdiv(N, ROWS), cdiv(K, COLUMNS)]
    bias,  # [N], with BIASED
    out,  # [rows, N]
    rows,
    x_stride,
    N: tl.constexpr,
    K: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    BIASED: tl.constexpr,
    WIDENED: tl.constexpr,
    ROWS: tl.constexpr,  # of a block of scales; 0: there are none
    COLUMNS: tl.constexpr,  # a multiple of BK
    MIXED: tl.constexpr,
    PRECISION: tl.constexpr,
    TOGETHER: tl.constexpr,
    PDL: tl.constexpr,
):
    release(PDL)
    tile, row_tile = _place(BN, BM, N, rows, TOGETHER)
    column = tile * BN + tl.arange(0, BN)
    row = row_tile * BM + tl.arange(0, BM)
    real, there = column < N, row < rows
    k = tl.arange(0, BK)
    weights = weight + column.to(tl.int64)[:, None] * K + k[None, :]
    inputs = x + row.to(tl.int64)[None, :] * x_stride + column_of(k, MIXED)[:, None]
    wait(PDL)
    acc = tl.zeros([BN, BM], tl.float32)
    for start in tl.range(0, K, BK):
        if K % BK == 0 and N % BN == 0:
            part = tl.load(weights + start)
        else:
            known = real[:, None] & (start + k < K)[None, :]
            part = tl.load(weights + start, mask=known, other=0.0)
        if K % BK == 0:
            value = tl.load(inputs + start, mask=there[None, :], other=0.0)
        else:
            value = tl.load(
                inputs + start, mask=there[None, :] & (start + k < K)[:, None], other=0.0
            )
        if ROWS > 0:
            by = _of_blocks(scale, column, start, real, K, ROWS, COLUMNS)
            product = tl.dot(part.to(value.dtype), value, input_precision=PRECISION)
            acc = tl.fma(product, tl.broadcast_to(by[:, None], [BN, BM]), acc)
        else:
            acc = tl.dot(part.to(value.dtype), value, acc, input_precision=PRECISION)
    if WIDENED:
        acc *= tl.load(scale + column, mask=real, other=0.0)[:, None]
    result = acc
    if BIASED:
        result += tl.load(bias + column, mask=real, other=0.0)[:, None].to(tl.float32)
    place = out + row.to(tl.int64)[None, :] * N + column[:, None]
    tl.store(place, result.to(out.dtype.element_ty), mask=there[None, :] & real[:, None])


def invariant_linear(x: Tensor, weight: Weight, tile: Tile, dependent: bool = False) -> Tensor:
    """x W^T + b. x: [rows, k], rows may be strided; weight: [n, k], dense or of 8 bits. Returns
    [rows, n]."""
    rows, n = len(x), weight.n
    out = x.new_empty(rows, n)
    grid = triton.cdiv(n, tile.n) * triton.cdiv(rows, tile.rows)
    if not grid:
        return out
    _kernel[(grid,)](
        x, weight.data, *operands(weight, x), out, rows, x.stride(0), N=n, K=weight.k,
        BM=tile.rows, BN=tile.n, BK=tile.k, **kinds(weight), **block_sizes(weight),
        MIXED=mixed(weight), PRECISION="ieee" if x.dtype == torch.float32 else "tf32",
        TOGETHER=TOGETHER, num_warps=tile.warps, num_stages=tile.stages, **launch(dependent),
    )  # fmt: skip
    return out


def invariant_products(device: torch.device, dtype: torch.dtype) -> ProductTable:
    """The table of a card, for rows of a dtype. Tries tiles on it."""
    tiles = agreed_tiles(device, dtype)
    widened: dict[Layout, Callable[[Weight, torch.dtype, bool], Tensor]] = {
        Layout.FP8: widen.widened,
        Layout.FP8_BLOCKS: widen.widened,
        Layout.INT8: widen.widened,
        Layout.LUT: lut_linear.widened,
        Layout.INT4: int4_linear.widened,
    }
    rows = partial(Product, epilogue=Epilogue.NONE, rows=range(1, MANY))
    in_registers = partial(_in_registers, tiles)
    return ProductTable(
        (
            rows(layout=Layout.DENSE, config=partial(_tile, tiles), launch=_launch),
            rows(layout=Layout.FP8, config=in_registers, launch=_launch),
            rows(layout=Layout.FP8_BLOCKS, config=in_registers, launch=_launch),
            rows(layout=Layout.INT8, config=in_registers, launch=_launch),
            *(
                rows(layout=layout, config=partial(_tile, tiles), launch=partial(_launch_wide, way))
                for layout, way in widened.items()
            ),
        ),
        quantises=_never,
    )


def _never(rows: int, weight: Weight) -> bool:
    return False


def _tile(tiles: Tiles, p: Problem) -> Tile:
    return tiles.of(p.rows)


def _in_registers(tiles: Tiles, p: Problem) -> Tile | None:
    """Where tiles fit the order of columns and blocks of scales, whatever the number of rows."""
    depth = tiles.few.k
    grouped = p.layout is Layout.FP8_BLOCKS or p.grouped
    if (grouped and p.scale_columns % depth) or (p.k % GROUP == 0 and depth % GROUP):
        return None
    if p.zeros or p.ordered or (p.layout is not Layout.INT8 and not has_fp8(p.device)):
        return None
    return tiles.of(p.rows)


def _launch(tile: Tile, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    return invariant_linear(x.x, weight, tile, dependent)


def _launch_wide(
    widened: Callable[[Weight, torch.dtype, bool], Tensor],
    tile: Tile,
    x: Activation,
    weight: Weight,
    dependent: bool,
) -> Tensor:
    """With the weight widened in memory; columns in another order meet their inputs in it."""
    rows, data = x.x, widened(weight, x.x.dtype, dependent)
    if weight.layout is Layout.INT4 and weight.order is not None:
        rows = rows.index_select(1, weight.order)
    return invariant_linear(rows, Weight(data, weight.bias), tile, dependent)


def agreed_tiles(device: torch.device, dtype: torch.dtype) -> Tiles:
    """Tiles that come to the same bits there: equal rows become equal rows in every place of both.

    Terms cancel out, so that what is compared are rounding errors: other orders make others.
    Raises ValueError where even one tile gives equal rows different bits.
    """
    tiles = HALF if dtype != torch.float32 and has_tensor_cores(device) else WIDE
    few, many = _staged(tiles.few, device), _staged(tiles.many, device)
    if disagreement(Tiles(few, few), device, dtype) is not None:
        raise ValueError(
            f"`deterministic` cannot be kept with `device` {device.type} here: equal rows of a "
            "product differ with their places"
        )
    agreed = few == many or disagreement(Tiles(few, many), device, dtype) is None
    return Tiles(few, many if agreed else few)


def _staged(tile: Tile, device: torch.device) -> Tile:
    """With as many stages as fit into shared memory: they change no bit."""
    stage = (tile.n + tile.rows) * tile.k * (2 if tile.k >= 64 else 4)  # bytes
    return replace(tile, stages=max(1, min(tile.stages, shared_bytes(device) // stage)))


def disagreement(tiles: Tiles, device: torch.device, dtype: torch.dtype) -> str | None:
    """Where the bits of two tiles differ, as half a sentence; None: nowhere."""
    x, weight = _probe(device, dtype, tiles.few.k)
    few, many = (invariant_linear(x, weight, tile) for tile in (tiles.few, tiles.many))
    first = few[:1]
    for name, found in (("few", few), ("many", many)):
        if not torch.equal(found, first.expand_as(found)):
            return f"the tile for {name} rows"
    return None


def _probe(device: torch.device, dtype: torch.dtype, depth: int) -> tuple[Tensor, Weight]:
    """Equal rows, and a matrix whose products with them cancel out."""
    random = torch.Generator().manual_seed(0)
    n, half = 256, 4 * depth
    order = torch.randperm(2 * half, generator=random)

    def wide(*size: int) -> Tensor:
        numbers = torch.randn(*size, generator=random)
        return numbers * torch.randint(-3, 4, size, generator=random).exp2()

    left, right = wide(half), wide(n, half)
    row = torch.cat((left, -left))[order].to(device, dtype)
    matrix = torch.cat((right, right), dim=1)[:, order].to(device, dtype).contiguous()
    return row.expand(2 * FEW, -1).contiguous(), Weight(matrix)
