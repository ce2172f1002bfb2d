"""Products of few rows with weights of 4-bit codes, for Hopper.

The stream of weights of `hopper_linear` (`hopper_stream`), here of codes: the warps that multiply
look the numbers up in registers (`hopper_codes`) and scale them.
"""

from __future__ import annotations

from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.language.extra.cuda import gdc_launch_dependents

from penstock_kernels.gpu.launch.hopper import multiprocessors, tma_descriptor
from penstock_kernels.gpu.products.hopper_codes import accumulate_codes, lookup, scale_layout
from penstock_kernels.gpu.products.hopper_linear import (
    COLUMNS,
    DEPTH,
    MOST_ROWS,
    SHARED,
    LinearConfig,
    row_tile,
    store_outputs,
)
from penstock_kernels.gpu.products.hopper_stream import (
    load_stream,
    place_of,
    stream_ring,
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
    PDL: gl.constexpr,
):
    if PDL:
        gdc_launch_dependents()
    BN: gl.constexpr = weight.block_shape[0]
    BK: gl.constexpr = x.block_shape[1]
    HELD: gl.constexpr = 2 * STAGES if GATED else STAGES
    W_LAYOUT: gl.constexpr = weight.layout
    ring = stream_ring(x, weight, BN, BK // 2, HELD, STAGES, W_LAYOUT)
    rows, columns = gl.to_tensor(rows), gl.to_tensor(columns)
    tiles = columns // BN
    plan = (tiles, tiles * SPLITS, gl.to_tensor(depth) // BK, gl.to_tensor(SPLITS))
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
            (load_stream, (plan, ring, (x, weight, columns), STAGES, GATED, 1, False, PDL)),
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
    _kernel[(programs,)](
        tma_descriptor(x, row_tile(rows), DEPTH), tma_descriptor(weight.data, COLUMNS, BYTES),
        weight.scale, out, x if weight.outer is None else weight.outer,
        x if weight.bias is None else weight.bias, rows, columns, depth, SPLITS=config.splits,
        STAGES=config.stages, GATED=gated, BIASED=weight.bias is not None,
        OUTER=weight.outer is not None, FEW=rows <= FEW, LOOKUP=lookup(weight.code, x.dtype),
        SCALES=scale_layout(DEPTH // weight.scale_columns), PDL=dependent,
        num_warps=4, maxnreg=128, launch_pdl=dependent,
    )  # fmt: skip
