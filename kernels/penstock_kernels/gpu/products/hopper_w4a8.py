"""Products of many rows in FP8 with weights in whole numbers of 4 bits, for Hopper's tensor cores.

As `hopper_int4_many`: two groups of four warps multiply, each 64 rows of the weight with the same
rows of x. The weight's numbers become FP8 in registers, exactly, and are multiplied twice as fast
as in half precision; what a group of columns sums up to is multiplied with its scale in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from penstock_kernels.gpu.launch.hopper import multiprocessors, tma_descriptor
from penstock_kernels.gpu.products.hopper_int4_many import load, turns, unit_of
from penstock_kernels.gpu.products.hopper_int4_ring import DEPTH, descriptors, int4_room
from penstock_kernels.gpu.products.hopper_int4_tile import group_scales
from penstock_kernels.gpu.products.hopper_ring import ring_barriers
from penstock_kernels.gpu.products.hopper_w4a8_tile import UNIT, fp8_numbers
from penstock_kernels.int4 import PRODUCT
from penstock_kernels.weight import Weight

COLUMNS = 128  # of the result: rows of the weight
SCALED = gl.constexpr(UNIT)


@gluon.jit
def _added(acc, numbers, scales, x):
    """acc plus the products of a group: [64, rows of x]."""
    layout: gl.constexpr = acc.type.layout
    nothing = gl.zeros(acc.shape, gl.float32, layout)
    part = warpgroup_mma(numbers, x.permute((1, 0)), nothing, use_acc=False, is_async=True)
    part = warpgroup_mma_wait(0, deps=[part])
    return acc + part * scales


@gluon.jit
def sums(
    ring, done, count, HALF: gl.constexpr, G: gl.constexpr, ZEROS: gl.constexpr,
    STAGES: gl.constexpr,
):  # fmt: skip
    """Those of 64 rows of the weight over so many stages, by four warps: one for the first 128 rows
    of x, one for the others."""
    x_tiles, full, empty = ring[3], ring[4], ring[5]
    ROWS: gl.constexpr = x_tiles.shape[1]
    WIDE: gl.constexpr = ROWS > 128  # two products share the numbers
    N: gl.constexpr = ROWS // 2 if WIDE else ROWS
    D: gl.constexpr = 128 // G
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, N, 32])
    acc = gl.zeros([64, N], gl.float32, layout)
    second = acc
    for _ in range(count):
        stage = done % STAGES
        mbarrier.wait(full.index(stage), done // STAGES & 1)
        x = x_tiles.index(stage)
        for g in gl.static_range(G):
            numbers = fp8_numbers(ring, 2 * stage + HALF, g, G, ZEROS, layout)
            scales = group_scales(ring, 2 * stage + HALF, 0, g, G, layout)
            acc = _added(acc, numbers, scales, x.slice(0, N).slice(D * g, D, 1))
            if WIDE:
                second = _added(second, numbers, scales, x.slice(N, N).slice(D * g, D, 1))
        mbarrier.arrive(empty.index(stage))
        done += 1
    return acc, second


@gluon.jit
def scaled(acc, x_scale, bias, first_row, first_column, rows, columns, BIASED: gl.constexpr):
    """Sums times the scales of x, and the bias."""
    layout: gl.constexpr = acc.type.layout
    row = first_row + gl.arange(0, acc.shape[1], gl.SliceLayout(0, layout))
    by = gl.load(x_scale + row, mask=row < rows, other=0.0) * SCALED
    acc = acc * gl.expand_dims(by, 0)
    if BIASED:
        output = first_column + gl.arange(0, 64, gl.SliceLayout(1, layout))
        shift = gl.load(bias + output, mask=output < columns, other=0.0)
        acc = acc + gl.expand_dims(shift.to(gl.float32), 1)
    return acc


@gluon.jit
def store(acc, target, split, first_row, first_column):
    """Results [64, rows] to where they belong."""
    out, rows, columns = target
    io_layout: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0])
    result = gl.convert_layout(acc.permute((1, 0)).to(out.dtype.element_ty), io_layout)
    row = first_row + gl.arange(0, acc.shape[1], gl.SliceLayout(1, io_layout))
    column = first_column + gl.arange(0, 64, gl.SliceLayout(0, io_layout))
    start = gl.expand_dims((split * rows + row).to(gl.int64) * columns, 1)
    at = start + gl.expand_dims(column, 0)
    inside = gl.expand_dims(row < rows, 1) & gl.expand_dims(column < columns, 0)
    gl.store(out + at, result, mask=inside)


@gluon.jit
def _multiply(
    plan, ring, target, x_scale, bias, HALF: gl.constexpr, G: gl.constexpr, ZEROS: gl.constexpr,
    STAGES: gl.constexpr, BIASED: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """Rows 64 * HALF .. 64 * HALF + 63 of the weight's tiles, by four warps."""
    out, rows, columns = target
    ROWS: gl.constexpr = ring[3].shape[1]
    if PDL:
        gdc_wait()
    done = 0
    for turn in range(turns(plan)):
        row, column, split, first, count = unit_of(plan, turn)
        acc, second = sums(ring, done, count, HALF, G, ZEROS, STAGES)
        done += count
        line, member = row * ROWS, column * 128 + HALF * 64
        acc = scaled(acc, x_scale, bias, line, member, rows, columns, BIASED)
        store(acc, target, split, line, member)
        if ROWS > 128:
            line += 128
            second = scaled(second, x_scale, bias, line, member, rows, columns, BIASED)
            store(second, target, split, line, member)


@gluon.jit(do_not_specialize=["rows"])
def _kernel(
    x,  # descriptor of [rows, k] in tiles of [ROWS, 128], columns as `int4.interleave` has them
    x_scale,  # [rows]
    weight,  # descriptor of lines [n / 64 * k / 128 * 32, 128] in tiles of 32
    scale,  # descriptor of [n * k / 128 * G] in tiles of [64 G]
    zero,  # the same, with ZEROS
    out,  # [rows, n], or [SPLITS, rows, n] float32
    bias,  # [n], with BIASED
    rows,
    columns,  # n
    depth,  # k
    SPLITS: gl.constexpr,
    G: gl.constexpr,  # groups of a tile
    ZEROS: gl.constexpr,
    BIASED: gl.constexpr,
    STAGES: gl.constexpr,
    PDL: gl.constexpr,
):
    if PDL:
        gdc_launch_dependents()
    ROWS: gl.constexpr = x.block_shape[0]
    w_tiles, s_tiles, z_tiles = int4_room(weight, scale, zero, 2 * STAGES, ZEROS)
    x_tiles = gl.allocate_shared_memory(x.dtype, [STAGES, ROWS, 128], x.layout)
    full, empty = ring_barriers(STAGES, 2)
    fence_async_shared()
    ring = (w_tiles, s_tiles, z_tiles, x_tiles, full, empty)
    KINDS: gl.constexpr = 2 if ZEROS else 1
    BYTES: gl.constexpr = 2 * (4096 + KINDS * 128 * G) + ROWS * 128
    rows, columns = gl.to_tensor(rows), gl.to_tensor(columns)
    depths = gl.cdiv(gl.to_tensor(depth), 128)
    plan = (gl.cdiv(rows, ROWS), gl.cdiv(columns, 128), depths, gl.to_tensor(SPLITS))
    to = (out, rows, columns)
    source = (x, weight, scale, zero, depths, gl.to_tensor(2), gl.to_tensor(1))
    FIRST: gl.constexpr = gl.constexpr(0)
    SECOND: gl.constexpr = gl.constexpr(1)
    gl.warp_specialize(
        [
            (
                _multiply,
                (plan, ring, to, x_scale, bias, FIRST, G, ZEROS, STAGES, BIASED, PDL),
            ),
            (
                _multiply,
                (plan, ring, to, x_scale, bias, SECOND, G, ZEROS, STAGES, BIASED, PDL),
            ),
            (load, (plan, ring, source, G, ZEROS, STAGES, BYTES, PDL)),
        ],
        [4, 1],
        [232, 24],
    )


@dataclass(frozen=True, slots=True)
class W4A8Config:
    """Shape of a launch: rows of x in a tile, and splits of k."""

    rows: int
    splits: int


# By rows of a tile; one less where parts leave in float32.
STAGES = {64: 10, 128: 7, 256: 5}
# Microseconds: of a tile of so many rows along k, of a launch, and of a million bytes of parts.
TILE_US = {64: 0.44, 128: 0.59, 256: 0.96}
LAUNCH_US, PARTS_US = 1.5, 0.9
SPLITS = (1, 2, 4)  # the last two of tiles of up to 128 rows


def w4a8_config(
    rows: int, n: int, k: int, group: int, split: bool, multiprocessors: int
) -> W4A8Config | None:
    """How to multiply [rows, k] by a weight [n, k] in groups of so many columns; None: not this
    way. split: whether k may be.

    What should be fastest: a program's tiles take the same time whatever the product, and those of
    Llama-3.1-8B from 64 to 2,048 rows take within 10 % of what this says (H200).
    """
    if group not in (DEPTH, DEPTH // 2) or k % PRODUCT:
        return None
    depths = -(-k // DEPTH)

    def microseconds(config: W4A8Config) -> float:
        units = _tiles(rows, n, config.rows) * config.splits
        turns = -(-units // multiprocessors) * -(-depths // config.splits)
        parts = config.splits * rows * n * 4 / 1e6 if config.splits > 1 else 0
        return turns * TILE_US[config.rows] + LAUNCH_US + parts * PARTS_US

    tiles = [tile for tile in TILE_US if group == DEPTH or tile <= 128]
    splits = [count for count in SPLITS if count <= depths] if split else [1]
    each = (W4A8Config(*pair) for pair in product(tiles, splits))
    return min((one for one in each if one.splits == 1 or one.rows <= 128), key=microseconds)


def _tiles(rows: int, n: int, tile: int) -> int:
    return -(-rows // tile) * -(-n // COLUMNS)


def hopper_w4a8(
    x: Tensor, x_scale: Tensor, weight: Weight, out: Tensor, config: W4A8Config,
    dependent: bool = False,
) -> None:  # fmt: skip
    """out = x W^T + b.

    x: [rows, k] e4m3, dense, columns as `int4.interleave` has them; x_scale: [rows, 1] float32;
    weight: INT4 [n, k] whose zeros are whole numbers from -8 to 8; out: [rows, n], or without a
    bias [splits, rows, n] float32 partial sums.
    """
    rows, depth = x.shape
    units = _tiles(rows, weight.n, config.rows) * config.splits
    _kernel[(min(units, multiprocessors(x.device)),)](
        tma_descriptor(x, config.rows, DEPTH), x_scale, *descriptors(weight), out,
        x_scale if weight.bias is None else weight.bias, rows, weight.n, depth,
        SPLITS=config.splits, G=DEPTH // weight.scale_columns, ZEROS=weight.zero is not None,
        BIASED=weight.bias is not None, STAGES=STAGES[config.rows] - (config.splits > 1),
        PDL=dependent, num_warps=4, maxnreg=168, launch_pdl=dependent,
    )  # fmt: skip
