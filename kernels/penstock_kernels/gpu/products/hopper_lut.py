"""Products of few rows with weights of 4-bit codes, for Hopper.

The stream of weights of `hopper_linear`: one warp fills a ring in shared memory, here with
codes, four others look the numbers up in registers (`hopper_codes`), scale and multiply them.
"""

from __future__ import annotations

from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from penstock_kernels.gpu.launch.hopper import multiprocessors, tma_descriptor
from penstock_kernels.gpu.products.hopper_codes import accumulate_codes, lookup, scale_layout
from penstock_kernels.gpu.products.hopper_linear import (
    COLUMNS,
    DEPTH,
    MOST_ROWS,
    SHARED,
    LinearConfig,
    place_of,
    row_tile,
    store_outputs,
    turns,
)
from penstock_kernels.weight import Weight

BYTES = DEPTH // 2  # of a row of a tile
FEW = 16  # rows up to which the tensor cores' smaller products multiply


def lut_config(
    rows: int, n: int, k: int, gated: bool, split: bool, multiprocessors: int
) -> LinearConfig | None:
    """How to multiply [rows, k] by codes [n, k], as `hopper_linear.linear_config`; blocks of scales
    divide 128 columns.

    By what each is fastest with on an H200 (8B's products, benchmarks/results/h200_codes.json):
    looking numbers up is most of the time, so two programs a multiprocessor, and short rings, since
    more stages bring nothing (down of 64 rows: 38.8 us with three stages, 51.5 with five).
    """
    wide = n // 2 if gated else n
    if rows > MOST_ROWS or wide % COLUMNS or k % DEPTH:
        return None
    tiles, halves = wide // COLUMNS, 2 if gated else 1
    splits = 1
    if split:
        most = 4 if rows <= FEW or k > 4096 else 2
        splits = max(1, min(most, 4 * multiprocessors // tiles, k // DEPTH))
    residents = 1 if splits == 1 and tiles <= multiprocessors else 2
    stage = halves * COLUMNS * BYTES + 2 * row_tile(rows) * DEPTH
    stages = min(SHARED // residents // stage, 4 if residents > 1 else 8)
    return LinearConfig(splits, min(stages, k // DEPTH), residents)


@gluon.jit
def _load_tiles(ring, source, tile, depth, stage, GATED: gl.constexpr, STAGE_BYTES: gl.constexpr):
    """Codes of a stage."""
    w_tiles, x_tiles, full, empty = ring
    x, weight, columns = source
    BN: gl.constexpr = w_tiles.shape[1]
    HELD: gl.constexpr = 2 if GATED else 1
    ready, row, at = full.index(stage), tile * BN, depth * w_tiles.shape[2]
    mbarrier.expect(ready, STAGE_BYTES)
    tma.async_copy_global_to_shared(weight, [row, at], ready, w_tiles.index(HELD * stage))
    if GATED:
        up = w_tiles.index(2 * stage + 1)
        tma.async_copy_global_to_shared(weight, [columns + row, at], ready, up)


@gluon.jit
def _load(
    plan, ring, source,
    STAGES: gl.constexpr, GATED: gl.constexpr, STAGE_BYTES: gl.constexpr, RELEASE: gl.constexpr,
    PDL: gl.constexpr,
):  # fmt: skip
    """The warp that fills the ring, as `hopper_linear.load_stream` does."""
    w_tiles, x_tiles, full, empty = ring
    x = source[0]
    BK: gl.constexpr = x_tiles.shape[2]
    tile, split, first, depths = place_of(plan, 0)
    ahead = gl.minimum(depths, STAGES)
    for j in range(ahead):
        depth = first + (j + tile // 2) % depths
        _load_tiles(ring, source, tile, depth, j, GATED, STAGE_BYTES)
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
            _load_tiles(ring, source, tile, depth, stage, GATED, STAGE_BYTES)
            ready = full.index(stage)
            tma.async_copy_global_to_shared(x, [0, depth * BK], ready, x_tiles.index(stage))
            done += 1


@gluon.jit
def _multiply(
    plan, ring, target, scales, outer, bias,
    STAGES: gl.constexpr, GATED: gl.constexpr, FEW: gl.constexpr, BIASED: gl.constexpr,
    OUTER: gl.constexpr, LOOKUP: gl.constexpr, SCALES: gl.constexpr,
):  # fmt: skip
    """The warps that multiply and store."""
    w_tiles, x_tiles, full, empty = ring
    columns = target[2]
    BN: gl.constexpr = w_tiles.shape[1]
    BM: gl.constexpr = x_tiles.shape[1]
    small: gl.constexpr = gl.NVMMADistributedLayout([2, 0], [4, 1], [16, 8])
    large: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BM, 16])
    layout: gl.constexpr = small if FEW else large
    done = 0
    for turn in range(turns(plan)):
        tile, split, first, depths = place_of(plan, turn)
        acc = gl.zeros([BN, BM], gl.float32, layout)
        acc, acc_up, done = accumulate_codes(
            ring, scales, columns, acc, acc, (tile, first, depths), done, STAGES, GATED, FEW,
            LOOKUP, SCALES,
        )  # fmt: skip
        store_outputs(target, acc, acc_up, tile, split, GATED, BIASED, OUTER, outer, bias)


@gluon.jit(do_not_specialize=["rows"])
def _kernel(
    x,  # descriptor of [rows, k] in tiles of [BM, BK]
    weight,  # descriptor of [n, k / 2] bytes ([2 n, k / 2], gate first, when GATED), [BN, BK / 2]
    scale,  # [k / G, n] ([k / G, 2 n] when GATED)
    out,  # [rows, n], or [SPLITS, rows, n] float32
    outer,  # [n] float32 ([2 n] when GATED), with OUTER
    bias,  # [n] ([2 n] when GATED), with BIASED
    rows,
    columns,  # n
    depth,  # k
    SPLITS: gl.constexpr,
    STAGES: gl.constexpr,
    GATED: gl.constexpr,
    BIASED: gl.constexpr,
    OUTER: gl.constexpr,
    FEW: gl.constexpr,
    LOOKUP: gl.constexpr,
    SCALES: gl.constexpr,  # the layout of a stage's
    STAGE_BYTES: gl.constexpr,  # of codes and x
    PDL: gl.constexpr,
):
    if PDL:
        gdc_launch_dependents()
    BN: gl.constexpr = weight.block_shape[0]
    BK: gl.constexpr = x.block_shape[1]
    HELD: gl.constexpr = 2 * STAGES if GATED else STAGES
    w_tiles = gl.allocate_shared_memory(weight.dtype, [HELD, BN, BK // 2], weight.layout)
    x_tiles = gl.allocate_shared_memory(x.dtype, [STAGES, x.block_shape[0], BK], x.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=1)
    fence_async_shared()
    ring = (w_tiles, x_tiles, full, empty)
    rows, columns = gl.to_tensor(rows), gl.to_tensor(columns)
    tiles = columns // BN
    plan = (tiles, tiles * SPLITS, gl.to_tensor(depth) // BK, gl.to_tensor(SPLITS))
    source = (x, weight, columns)
    gl.warp_specialize(
        [
            (
                _multiply,
                (
                    plan,
                    ring,
                    (out, rows, columns),
                    (scale, 2 * columns if GATED else columns),
                    outer,
                    bias,
                    STAGES,
                    GATED,
                    FEW,
                    BIASED,
                    OUTER,
                    LOOKUP,
                    SCALES,
                ),
            ),
            (_load, (plan, ring, source, STAGES, GATED, STAGE_BYTES, False, PDL)),
        ],
        [1],
        [24],
    )


def hopper_lut(
    x: Tensor, weight: Weight, out: Tensor, config: LinearConfig, gated: bool, dependent: bool
) -> None:
    """out = x W^T + b, or silu(gate) * up of it when gated.

    x: [rows, k]; weight: [n, k] of layout LUT with a known table and scales, gate rows before up
    rows when gated; out: [rows, n] ([rows, n / 2] when gated), or without a bias [splits, rows, n]
    float32 partial sums.
    """
    rows, depth = x.shape
    columns = weight.n // 2 if gated else weight.n
    units = columns // COLUMNS * config.splits
    programs = min(units, config.residents * multiprocessors(x.device))
    assert weight.scale is not None
    tiles = (2 if gated else 1) * COLUMNS * BYTES
    _kernel[(programs,)](
        tma_descriptor(x, row_tile(rows), DEPTH), tma_descriptor(weight.data, COLUMNS, BYTES),
        weight.scale, out, x if weight.outer is None else weight.outer,
        x if weight.bias is None else weight.bias, rows, columns, depth, SPLITS=config.splits,
        STAGES=config.stages, GATED=gated, BIASED=weight.bias is not None,
        OUTER=weight.outer is not None, FEW=rows <= FEW, LOOKUP=lookup(weight.code, x.dtype),
        SCALES=scale_layout(DEPTH // weight.scale_columns),
        STAGE_BYTES=tiles + row_tile(rows) * DEPTH * 2, PDL=dependent,
        num_warps=4, maxnreg=128, launch_pdl=dependent,
    )  # fmt: skip
