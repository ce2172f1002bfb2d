"""Products of many rows with weights in whole numbers of 4 bits, for Hopper's tensor cores.

As `hopper_int4` widens them, but two groups of four warps multiply, each 64 rows of the weight
with the same 128 rows of x: while one of them widens its next tile, the other one's product keeps
the tensor cores busy. So the weight never stands widened in memory, which for a layer of
Llama-3.1-8B costs 150 us, whatever the number of rows.
"""

from __future__ import annotations

from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from penstock_kernels.gpu.launch.hopper import multiprocessors, tma_descriptor
from penstock_kernels.gpu.products.hopper_int4_ring import (
    DEPTH,
    descriptors,
    int4_room,
    load_tiles,
)
from penstock_kernels.gpu.products.hopper_int4_tile import group_product
from penstock_kernels.gpu.products.hopper_ring import ring_barriers
from penstock_kernels.weight import Weight

ROWS = 128  # of x in a tile, at most
COLUMNS = 128  # of the result: rows of the weight
STAGES = {128: 4, 64: 8, 32: 10}  # by rows of a tile
MOST_ROWS = 2048  # beyond, widening in memory is a small part of what cuBLAS takes
MOST_SPLITS = 4
LEAST = 0.2  # of the multiprocessors must have a tile


@gluon.jit
def unit_of(plan, turn):
    """The program's unit of a turn: its tile in tiles of rows and of columns, its split, and that
    one's depths. All rows of a column stand after one another, so that its weight is read once."""
    row_tiles, column_tiles, depths, SPLITS = plan
    unit = turn * gl.num_programs(0) + gl.program_id(0)
    tile, split = unit // SPLITS, unit % SPLITS
    first = depths * split // SPLITS
    count = depths * (split + 1) // SPLITS - first
    return tile % row_tiles, tile // row_tiles, split, first, count


@gluon.jit
def turns(plan):
    return gl.cdiv(plan[0] * plan[1] * plan[3] - gl.program_id(0), gl.num_programs(0))


@gluon.jit
def _load_weight(
    ring, source, column, depth, stage,
    G: gl.constexpr, ZEROS: gl.constexpr, BYTES: gl.constexpr,
):  # fmt: skip
    x, weight, scale, zero, depths, step, apart = source
    ready = ring[4].index(stage)
    mbarrier.expect(ready, BYTES)
    for h in gl.static_range(2):
        at = (step * column + apart * h) * depths + depth
        load_tiles(ring, (weight, scale, zero), at, 2 * stage + h, ready, G, ZEROS)


@gluon.jit
def _load_x(ring, x, row, depth, stage):
    corner = [row * x.block_shape[0], depth * 128]
    tma.async_copy_global_to_shared(x, corner, ring[4].index(stage), ring[3].index(stage))


@gluon.jit
def load(
    plan, ring, source,
    G: gl.constexpr, ZEROS: gl.constexpr, STAGES: gl.constexpr, BYTES: gl.constexpr,
    PDL: gl.constexpr,
):  # fmt: skip
    """The warp that fills the ring, at first with weights alone. source ends with the tiles of the
    weight from a column's first to that of the next column, and to its second."""
    empty = ring[5]
    row, column, split, first, count = unit_of(plan, 0)
    ahead = gl.minimum(count, STAGES)
    for j in range(ahead):
        _load_weight(ring, source, column, first + j, j, G, ZEROS, BYTES)
    if PDL:
        gdc_wait()
    for j in range(ahead):
        _load_x(ring, source[0], row, first + j, j)
    done = ahead
    for turn in range(turns(plan)):
        row, column, split, first, count = unit_of(plan, turn)
        for j in range(gl.where(turn == 0, ahead, 0), count):
            stage = done % STAGES
            mbarrier.wait(empty.index(stage), (done // STAGES + 1) & 1)
            _load_weight(ring, source, column, first + j, stage, G, ZEROS, BYTES)
            _load_x(ring, source[0], row, first + j, stage)
            done += 1


@gluon.jit
def _multiply(
    plan, ring, target, bias, HALF: gl.constexpr,
    G: gl.constexpr, ZEROS: gl.constexpr, STAGES: gl.constexpr, BIASED: gl.constexpr,
):  # fmt: skip
    """Rows 64 * HALF .. 64 * HALF + 63 of the weight's tiles, by four warps."""
    w_tiles, s_tiles, z_tiles, x_tiles, full, empty = ring
    out, rows, columns = target
    ROWS: gl.constexpr = x_tiles.shape[1]
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, ROWS, 16])
    io_layout: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0])
    line = gl.arange(0, ROWS, gl.SliceLayout(1, io_layout))
    member = HALF * 64 + gl.arange(0, 64, gl.SliceLayout(0, io_layout))
    output = HALF * 64 + gl.arange(0, 64, gl.SliceLayout(1, layout))
    done = 0
    for turn in range(turns(plan)):
        row, column, split, first, count = unit_of(plan, turn)
        acc = gl.zeros([64, ROWS], gl.float32, layout)
        for _ in range(count):
            stage = done % STAGES
            mbarrier.wait(full.index(stage), done // STAGES & 1)
            for g in gl.static_range(G):
                acc = group_product(acc, ring, 2 * stage + HALF, stage, 0, g, G, ZEROS, False)
            mbarrier.arrive(empty.index(stage))
            done += 1
        if BIASED:
            by = gl.load(bias + (column * 128 + output)).to(gl.float32)
            acc = acc + gl.expand_dims(by, 1)
        result = gl.convert_layout(acc.permute((1, 0)).to(out.dtype.element_ty), io_layout)
        place = row * ROWS + line
        start = (split * rows + place).to(gl.int64) * columns
        at = gl.expand_dims(start, 1)
        at = at + gl.expand_dims(column * 128 + member, 0)
        gl.store(out + at, result, mask=gl.expand_dims(place < rows, 1))


@gluon.jit(do_not_specialize=["rows"])
def _kernel(
    x,  # descriptor of [rows, k] in tiles of [ROWS, 128]
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
    BYTES: gl.constexpr = 2 * (4096 + KINDS * 128 * G) + ROWS * 256
    rows, columns = gl.to_tensor(rows), gl.to_tensor(columns)
    depths = gl.to_tensor(depth) // 128
    plan = (gl.cdiv(rows, ROWS), columns // 128, depths, gl.to_tensor(SPLITS))
    target = (out, rows, columns)
    source = (x, weight, scale, zero, depths, gl.to_tensor(2), gl.to_tensor(1))
    gl.warp_specialize(
        [
            (_multiply, (plan, ring, target, bias, gl.constexpr(0), G, ZEROS, STAGES, BIASED)),
            (_multiply, (plan, ring, target, bias, gl.constexpr(1), G, ZEROS, STAGES, BIASED)),
            (load, (plan, ring, source, G, ZEROS, STAGES, BYTES, PDL)),
        ],
        [4, 1],
        [232, 24],
    )


def splits_for(
    rows: int, n: int, k: int, group: int, split: bool, multiprocessors: int
) -> int | None:
    """Of k, to multiply [rows, k] by a weight [n, k]; None: not this way. split: whether it may be.

    As many as there are multiprocessors for.
    """
    if rows > MOST_ROWS or n % COLUMNS or k % DEPTH or group not in (DEPTH, DEPTH // 2):
        return None
    tiles = _tiles(rows, n)
    if split:
        return min(multiprocessors // tiles, MOST_SPLITS, k // DEPTH) or None
    return 1 if tiles >= LEAST * multiprocessors else None


def _tiles(rows: int, n: int) -> int:
    return -(-rows // _tile(rows)) * (n // COLUMNS)


def hopper_int4_many(
    x: Tensor, weight: Weight, out: Tensor, splits: int = 1, dependent: bool = False
) -> None:
    """out = x W^T + b. x: [rows, k] dense; weight: INT4 [n, k]; out: [rows, n], or without a bias
    [splits, rows, n] float32 partial sums."""
    rows, depth = x.shape
    tile, units = _tile(rows), _tiles(rows, weight.n) * splits
    _kernel[(min(units, multiprocessors(x.device)),)](
        tma_descriptor(x, tile, DEPTH), *descriptors(weight), out,
        x if weight.bias is None else weight.bias, rows, weight.n, depth,
        SPLITS=splits, G=DEPTH // weight.scale_columns, ZEROS=weight.zero is not None,
        BIASED=weight.bias is not None, STAGES=STAGES[tile], PDL=dependent,
        num_warps=4, maxnreg=168, launch_pdl=dependent,
    )  # fmt: skip


def _tile(rows: int) -> int:
    """Rows of x in a tile."""
    return next((size for size in (32, 64) if rows <= size), ROWS)
