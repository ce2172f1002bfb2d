"""The stream of a weight through a ring in shared memory, for Hopper's products of few rows.

One warp copies tiles of the weight and of x to the ring (TMA: no registers are held for what is
under way). With dependent launch the ring is filled with weights before the wait for the kernel
before: up to 200 KB a multiprocessor, 9 us of the card's memory at full speed, in which small
kernels disappear.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from penstock_kernels.gpu.products.hopper_ring import ring_barriers


@gluon.jit
def stream_ring(
    x, weight, BN: gl.constexpr, DEPTH: gl.constexpr, HELD: gl.constexpr, STAGES: gl.constexpr,
    W_LAYOUT: gl.constexpr,
):  # fmt: skip
    """HELD tiles of the weight, [BN, DEPTH] each, and STAGES of x, and when a stage is full and
    empty."""
    w_tiles = gl.allocate_shared_memory(weight.dtype, [HELD, BN, DEPTH], W_LAYOUT)
    x_tiles = gl.allocate_shared_memory(
        x.dtype, [STAGES, x.block_shape[0], x.block_shape[1]], x.layout
    )
    full, empty = ring_barriers(STAGES, 1)
    fence_async_shared()
    return w_tiles, x_tiles, full, empty


@gluon.jit
def place_of(plan, turn):
    """The program's unit of a turn: its tile of the weight, its split, and that one's depths."""
    tiles, units, depths, SPLITS = plan
    unit = turn * gl.num_programs(0) + gl.program_id(0)
    tile, split = unit // SPLITS, unit % SPLITS
    first = depths * split // SPLITS
    return tile, split, first, depths * (split + 1) // SPLITS - first


@gluon.jit
def turns(plan):
    return gl.cdiv(plan[1] - gl.program_id(0), gl.num_programs(0))


@gluon.jit
def _load_weight(
    ring, weight, columns, tile, depth, stage, GATED: gl.constexpr, W_BYTES: gl.constexpr
):  # fmt: skip
    w_tiles, x_tiles, full, empty = ring
    BN: gl.constexpr = w_tiles.shape[1]
    DEPTH: gl.constexpr = w_tiles.shape[2]  # half of that of x where two numbers are a byte
    HELD: gl.constexpr = 2 if GATED else 1
    BYTES: gl.constexpr = HELD * BN * DEPTH * W_BYTES + x_tiles.shape[1] * x_tiles.shape[2] * 2
    ready, row, k = full.index(stage), tile * BN, depth * DEPTH
    mbarrier.expect(ready, BYTES)
    if len(weight.block_shape) == 3:  # of a head's first and second half, as many rows of each
        HALF: gl.constexpr = weight.block_shape[1]
        parts = weight.shape[1] // HALF
        place = [tile // parts * 2, tile % parts * HALF, k]
        both = w_tiles.index(stage).reshape([2, HALF, DEPTH])
        tma.async_copy_global_to_shared(weight, place, ready, both)
    else:
        tma.async_copy_global_to_shared(weight, [row, k], ready, w_tiles.index(HELD * stage))
    if GATED:
        up = w_tiles.index(2 * stage + 1)
        tma.async_copy_global_to_shared(weight, [columns + row, k], ready, up)


@gluon.jit
def load_stream(
    plan, ring, source,
    STAGES: gl.constexpr, GATED: gl.constexpr, W_BYTES: gl.constexpr, RELEASE: gl.constexpr,
    PDL: gl.constexpr,
):  # fmt: skip
    """The warp that fills the ring. Two tiles each begin at another depth, so that the programs do
    not all read the same part of x, and of the weight's rows, at a time; two, because the halves of
    a head must be summed in one order, whoever computes them (`hopper_qkv`).

    RELEASE: let what follows start behind the wait; else the kernel did."""
    w_tiles, x_tiles, full, empty = ring
    x, weight, columns = source
    BK: gl.constexpr = x_tiles.shape[2]
    tile, split, first, depths = place_of(plan, 0)
    ahead = gl.minimum(depths, STAGES)
    for j in range(ahead):
        depth = first + (j + tile // 2) % depths
        _load_weight(ring, weight, columns, tile, depth, j, GATED, W_BYTES)
    if PDL:
        gdc_wait()
        if RELEASE:
            gdc_launch_dependents()
    for j in range(ahead):
        depth = (first + (j + tile // 2) % depths) * BK
        tma.async_copy_global_to_shared(x, [0, depth], full.index(j), x_tiles.index(j))
    done = ahead
    for turn in range(turns(plan)):
        tile, split, first, depths = place_of(plan, turn)
        for j in range(gl.where(turn == 0, ahead, 0), depths):
            stage = done % STAGES
            mbarrier.wait(empty.index(stage), (done // STAGES + 1) & 1)
            depth = first + (j + tile // 2) % depths
            _load_weight(ring, weight, columns, tile, depth, stage, GATED, W_BYTES)
            ready = full.index(stage)
            tma.async_copy_global_to_shared(x, [0, depth * BK], ready, x_tiles.index(stage))
            done += 1
