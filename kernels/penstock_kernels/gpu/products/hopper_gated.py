"""silu(x gate^T) * (x up^T) of many rows in one kernel, for Hopper's tensor cores.

Reference: `penstock_kernels.reference.activation.gate` of `torch.nn.functional.linear`. What the
two products have in common is read once, and their results never stand in memory: at 4096 rows of
Llama-3.1-8B that is 235 MB written and read again.
"""

from __future__ import annotations

from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from penstock_kernels.gpu.launch.hopper import multiprocessors, tma_descriptor
from penstock_kernels.gpu.products.hopper_ring import ring_barriers

ROWS = 128  # of a tile, half of them a group's
COLUMNS = 128  # of a tile: as many of the gate and of the other matrix
DEPTH = 64
STAGES = 4
BAND = 16  # at most so many tiles of rows are gone through together: their inputs stay in L2
MOSTLY = 0.9  # of all turns of all programs must have a tile


@gluon.jit
def _place(plan, turn):
    """The program's tile of a turn, in tiles of rows and of columns."""
    row_tiles, column_tiles, most = plan
    index = turn * gl.num_programs(0) + gl.program_id(0)
    band = index // (most * column_tiles)
    height = gl.minimum(row_tiles - band * most, most)
    within = index - band * most * column_tiles
    return band * most + within % height, within // height


@gluon.jit
def _turns(plan):
    """Tiles of this program."""
    return gl.cdiv(plan[0] * plan[1] - gl.program_id(0), gl.num_programs(0))


@gluon.jit
def _load(plan, ring, source, STAGES: gl.constexpr):
    """The warp that fills the ring."""
    x_tiles, w_tiles, full, empty = ring
    x, weight, columns, depth = source
    ROWS: gl.constexpr = x.block_shape[0]
    COLUMNS: gl.constexpr = weight.block_shape[0]
    DEPTH: gl.constexpr = x.block_shape[1]
    done = 0
    for turn in range(_turns(plan)):
        row, column = _place(plan, turn)
        for k in range(0, depth, DEPTH):
            stage = done % STAGES
            ready = full.index(stage)
            mbarrier.wait(empty.index(stage), (done // STAGES + 1) & 1)
            mbarrier.expect(ready, (ROWS + 2 * COLUMNS) * DEPTH * 2)
            tma.async_copy_global_to_shared(x, [row * ROWS, k], ready, x_tiles.index(stage))
            both = w_tiles.index(stage)
            tma.async_copy_global_to_shared(
                weight, [column * COLUMNS, k], ready, both.slice(0, COLUMNS)
            )
            tma.async_copy_global_to_shared(
                weight, [columns + column * COLUMNS, k], ready, both.slice(COLUMNS, COLUMNS)
            )
            done += 1


@gluon.jit
def _multiply(plan, ring, target, HALF: gl.constexpr, STAGES: gl.constexpr):
    """Rows 64 * HALF .. 64 * HALF + 63 of each tile, by four warps."""
    x_tiles, w_tiles, full, empty = ring
    out, rows, columns, depth = target
    COLUMNS: gl.constexpr = w_tiles.shape[1] // 2
    DEPTH: gl.constexpr = w_tiles.shape[2]
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 2 * COLUMNS, 16])
    io_layout: gl.constexpr = gl.BlockedLayout([1, 8], [2, 16], [4, 1], [1, 0])
    member = HALF * 64 + gl.arange(0, 64, gl.SliceLayout(1, io_layout))
    dims = gl.arange(0, COLUMNS, gl.SliceLayout(0, io_layout))
    acc = gl.zeros([64, 2 * COLUMNS], gl.float32, layout)
    steps = depth // DEPTH
    done = 0
    for turn in range(_turns(plan)):
        for k in range(steps):
            stage = done % STAGES
            mbarrier.wait(full.index(stage), done // STAGES & 1)
            x = x_tiles.index(stage).slice(HALF * 64, 64)
            weight = w_tiles.index(stage).permute((1, 0))
            acc = warpgroup_mma(x, weight, acc, use_acc=k > 0, is_async=True)
            # One product stays under way; the tiles of the one before are free.
            acc = warpgroup_mma_wait(1, deps=[acc])
            mbarrier.arrive(empty.index((done + STAGES - 1) % STAGES), pred=k > 0)
            done += 1
        acc = warpgroup_mma_wait(0, deps=[acc])
        mbarrier.arrive(empty.index((done + STAGES - 1) % STAGES))
        gate, up = acc.reshape([64, 2, COLUMNS]).permute((0, 2, 1)).split()
        result = gate / (1 + gl.exp(-gate)) * up
        result = gl.convert_layout(result.to(out.dtype.element_ty), io_layout)
        row, column = _place(plan, turn)
        row = row * 2 * 64 + member
        place = gl.expand_dims(row.to(gl.int64) * columns, 1) + gl.expand_dims(
            column * COLUMNS + dims, 0
        )
        gl.store(out + place, result, mask=gl.expand_dims(row < rows, 1))


@gluon.jit(do_not_specialize=["rows", "band"])
def _kernel(
    x,  # descriptor of [rows, depth] in tiles of [ROWS, DEPTH]
    weight,  # descriptor of [2 * columns, depth], the gate first, in tiles of [COLUMNS, DEPTH]
    out,  # [rows, columns]
    rows,
    columns,
    depth,
    band,  # tiles of rows that are gone through together
    STAGES: gl.constexpr,
):
    ROWS: gl.constexpr = x.block_shape[0]
    COLUMNS: gl.constexpr = weight.block_shape[0]
    DEPTH: gl.constexpr = x.block_shape[1]
    x_tiles = gl.allocate_shared_memory(x.dtype, [STAGES, ROWS, DEPTH], x.layout)
    w_tiles = gl.allocate_shared_memory(x.dtype, [STAGES, 2 * COLUMNS, DEPTH], weight.layout)
    full, empty = ring_barriers(STAGES, 2)
    fence_async_shared()
    ring = (x_tiles, w_tiles, full, empty)
    row_tiles = gl.cdiv(gl.to_tensor(rows), ROWS)
    plan = (row_tiles, gl.to_tensor(columns) // COLUMNS, gl.to_tensor(band))
    target = (out, gl.to_tensor(rows), gl.to_tensor(columns), gl.to_tensor(depth))
    source = (x, weight, gl.to_tensor(columns), gl.to_tensor(depth))
    gl.warp_specialize(
        [
            (_multiply, (plan, ring, target, gl.constexpr(0), STAGES)),
            (_multiply, (plan, ring, target, gl.constexpr(1), STAGES)),
            (_load, (plan, ring, source, STAGES)),
        ],
        [4, 1],
        [240, 24],
    )


def supports_hopper_gated(rows: int, n: int, k: int, multiprocessors: int) -> bool:
    """Whether shapes [rows, k] and [n, k] are those of this kernel, and its tiles leave few
    programs idle.

    Against cuBLAS and `gate` it takes 1,430 for 1,510 us at 4096 rows of Llama-3.1-8B and 437
    for 505 us of Llama-3.2-1B, 345 for 365 and 93 for 108 us at 1024 rows; but up to 200 for 173 us
    at 512 rows of the former, whose 448 tiles are 3.4 for each of 132 programs.
    """
    if n % (2 * COLUMNS) or k % DEPTH:
        return False
    tiles = _tiles(rows, n // 2)
    return tiles >= MOSTLY * -(-tiles // multiprocessors) * multiprocessors


def _tiles(rows: int, columns: int) -> int:
    return -(-rows // ROWS) * (columns // COLUMNS)


def hopper_gated_linear(x: Tensor, weight: Tensor, out: Tensor) -> None:
    """x: [rows, k] dense; weight: [2 * n, k], the gate's rows first; out: [rows, n]."""
    (rows, depth), columns = x.shape, weight.shape[0] // 2
    tiles = -(-rows // ROWS)
    band = -(-tiles // -(-tiles // BAND))  # bands of equal height
    _kernel[(min(_tiles(rows, columns), multiprocessors(x.device)),)](
        tma_descriptor(x, ROWS, DEPTH), tma_descriptor(weight, COLUMNS, DEPTH), out, rows, columns,
        depth, band, STAGES=STAGES, num_warps=4, maxnreg=168,
    )  # fmt: skip
