"""Matrix products of few rows for Hopper: weights stream through shared memory at memory's speed.

y = x W^T with W [n, k] as checkpoints store it. A product of up to some hundred rows is one pass
over the weight, and what counts is how many bytes are under way. One warp copies tiles of W and of
x to a ring in shared memory (`hopper_stream`), four others multiply, W's tile being the tall side
of the tensor cores' product.

Weights in FP8 are half as many bytes. They are widened in registers, which feed the tensor cores'
tall side, and the rows keep their precision; the scale of an output is multiplied with its sum. Up
to 16 rows the tensor cores' smaller products (mma.sync) multiply, beside which a warp widens the
next numbers.

Where n alone makes too few programs, k is split and each split leaves a partial sum in float32; the
norm that follows, which reads the result anyway, adds them up.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import mma_v2
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.language.extra.cuda import gdc_launch_dependents

from penstock_kernels.gpu.launch.hopper import multiprocessors, tile_layout, tma_descriptor
from penstock_kernels.gpu.products.hopper_stream import (
    load_stream,
    place_of,
    stream_ring,
    turns,
)
from penstock_kernels.gpu.products.hopper_widen import widened
from penstock_kernels.gpu.products.operands import kinds, operands
from penstock_kernels.weight import Weight

COLUMNS = 64  # rows of the weight (of each half, when gated) in a tile
DEPTH = 128
SHARED = 208 << 10  # bytes of a multiprocessor's shared memory for rings
MOST_ROWS = 64
MOST_FEW = 16  # rows that the smaller products multiply
WIDENED_STAGES = 5  # of a ring of FP8 numbers: ten are up to 7 % slower
MOST_GATED_ROWS = 128  # above MOST_ROWS cuBLAS is faster but where it needs a second kernel


@dataclass(frozen=True, slots=True)
class LinearConfig:
    """Shape of a launch: splits of k, stages of a ring, programs (and rings) a multiprocessor, and
    whether the smaller products multiply, which is for weights that are widened."""

    splits: int
    stages: int
    residents: int
    few: bool = False


def linear_config(
    rows: int, n: int, k: int, gated: bool, split: bool, multiprocessors: int
) -> LinearConfig | None:
    """How to multiply [rows, k] by a weight [n, k]; None: not this way. split: whether k may be.

    By benchmarks/kernels/chain.py, the ring should be as deep as it can; where there are more tiles
    than multiprocessors, two programs each are a better balance than a second turn of some. A
    product of long rows wants nearly all multiprocessors (results in h100_streams.json).

    One that may be split, is not, and has tiles for half of the multiprocessors at most takes half
    a ring for up to 16 rows, where that is not most of what it reads: so it starts beside the
    kernel before, and the gate-up product beside it. A layer of 8B (o), of 8 rows, with attention
    and norms: 164.0 -> 162.9 us; of 32 rows as much as before.
    """
    wide = n // 2 if gated else n
    if rows > (MOST_GATED_ROWS if gated else MOST_ROWS) or wide % COLUMNS or k % DEPTH:
        return None
    tiles = wide // COLUMNS
    splits = min(-(-(64 if k <= 4096 else 96) // tiles), k // DEPTH) if split else 1
    held = (2 if gated else 1) * COLUMNS + row_tile(rows)
    residents = 2 if gated and tiles > multiprocessors and rows <= MOST_ROWS else 1
    stages = SHARED // residents // (held * DEPTH * 2)
    half = split and splits == 1 and rows <= 16 and 2 * tiles <= multiprocessors
    if half and 2 * stages < k // DEPTH:
        stages //= 2
    return LinearConfig(splits, min(stages, k // DEPTH), residents)


def widened_linear_config(
    rows: int, n: int, k: int, gated: bool, split: bool, multiprocessors: int
) -> LinearConfig | None:
    """The same of a weight in FP8, by what each is fastest with on an H200 (8B's products).

    Two programs a multiprocessor, of which one widens numbers while the other multiplies. Where
    there is no tile for each of two, one with twice the memory: queries, keys and values of 64 rows
    take 18.8 us instead of 22.2. Splits of fewer than 1,280 numbers of a row cost more in sums than
    they save, but three are needed for enough programs (o of 8 rows: 10.9 us, 13.3 with four).
    """
    wide = n // 2 if gated else n
    if rows > MOST_ROWS or wide % COLUMNS or k % DEPTH:
        return None
    tiles = wide // COLUMNS
    splits = 1
    if split:
        splits = max(1, min(4, max(3, k // 1280), 2 * multiprocessors // tiles, k // DEPTH))
    residents = 1 if splits == 1 and tiles <= multiprocessors else 2
    held = (2 if gated else 1) * COLUMNS + 2 * row_tile(rows)  # bytes of a column of k
    stages = SHARED // residents // (held * DEPTH)
    if residents > 1:
        stages = min(stages, WIDENED_STAGES)
    return LinearConfig(splits, min(stages, k // DEPTH), residents, rows <= MOST_FEW)


@gluon.jit
def accumulate(ring, acc, acc_up, depths, done, STAGES: gl.constexpr, GATED: gl.constexpr):
    """A tile's products, `acc` and where GATED `acc_up`: [BN, BM] float32. done: stages that went
    through the ring before."""
    w_tiles, x_tiles, full, empty = ring
    for j in range(depths):
        stage = done % STAGES
        mbarrier.wait(full.index(stage), done // STAGES & 1)
        x = x_tiles.index(stage).permute((1, 0))
        if GATED:
            gate, up = w_tiles.index(2 * stage), w_tiles.index(2 * stage + 1)
            acc = warpgroup_mma(gate, x, acc, use_acc=j > 0, is_async=True)
            acc_up = warpgroup_mma(up, x, acc_up, use_acc=j > 0, is_async=True)
            acc, acc_up = warpgroup_mma_wait(0, deps=[acc, acc_up])
        else:
            acc = warpgroup_mma(w_tiles.index(stage), x, acc, use_acc=j > 0, is_async=True)
            acc = warpgroup_mma_wait(0, deps=[acc])
        mbarrier.arrive(empty.index(stage))
        done += 1
    return acc, acc_up, done


@gluon.jit
def accumulate_widened(
    ring, acc, acc_up, depths, done, STAGES: gl.constexpr, GATED: gl.constexpr, FEW: gl.constexpr
):  # fmt: skip
    """`accumulate` of weights in FP8. FEW: by the smaller products.

    A large product is waited for as soon as it is issued: until then it reads its numbers from
    registers, which nobody keeps the compiler from filling with the next ones. Programs beside this
    one multiply meanwhile.
    """
    w_tiles, x_tiles, full, empty = ring
    dtype: gl.constexpr = x_tiles.dtype
    layout: gl.constexpr = acc.type.layout
    operand: gl.constexpr = gl.DotOperandLayout(0, layout, 2)
    if FEW:
        acc = gl.zeros(acc.shape, gl.float32, layout)
        acc_up = acc
    for j in range(depths):
        stage = done % STAGES
        mbarrier.wait(full.index(stage), done // STAGES & 1)
        x = x_tiles.index(stage).permute((1, 0))
        if FEW:
            inputs = x.load(gl.DotOperandLayout(1, layout, 2))
            if GATED:
                acc = mma_v2(widened(w_tiles.index(2 * stage), operand, dtype), inputs, acc)
                up = widened(w_tiles.index(2 * stage + 1), operand, dtype)
                acc_up = mma_v2(up, inputs, acc_up)
            else:
                acc = mma_v2(widened(w_tiles.index(stage), operand, dtype), inputs, acc)
        elif GATED:
            gate = widened(w_tiles.index(2 * stage), operand, dtype)
            up = widened(w_tiles.index(2 * stage + 1), operand, dtype)
            acc = warpgroup_mma(gate, x, acc, use_acc=j > 0, is_async=True)
            acc_up = warpgroup_mma(up, x, acc_up, use_acc=j > 0, is_async=True)
            acc, acc_up, gate, up = warpgroup_mma_wait(0, deps=[acc, acc_up, gate, up])
        else:
            weight = widened(w_tiles.index(stage), operand, dtype)
            acc = warpgroup_mma(weight, x, acc, use_acc=j > 0, is_async=True)
            acc, weight = warpgroup_mma_wait(0, deps=[acc, weight])
        mbarrier.arrive(empty.index(stage))
        done += 1
    return acc, acc_up, done


@gluon.jit
def outputs(acc, first, second, BIASED: gl.constexpr, WIDENED: gl.constexpr, scale, bias):
    """A tile's sums as outputs: scaled, with their bias. acc: [BN, BM] float32; first, second: the
    output of the tile's first row, and of the first of its second half."""
    BN: gl.constexpr = acc.shape[0]
    member = gl.arange(0, BN, gl.SliceLayout(1, acc.type.layout))
    row = gl.where(member < BN // 2, first + member, second + member - BN // 2)
    if WIDENED:
        acc = acc * gl.expand_dims(gl.load(scale + row), 1)
    if BIASED:
        acc = acc + gl.expand_dims(gl.load(bias + row).to(gl.float32), 1)
    return acc


@gluon.jit
def store_outputs(
    target, acc, acc_up, tile, split, GATED: gl.constexpr, BIASED: gl.constexpr,
    SCALED: gl.constexpr, scale, bias,
):  # fmt: skip
    """A tile's outputs from its sums, `acc` and where GATED `acc_up`: [BN, BM] float32."""
    out, rows, columns = target
    BN: gl.constexpr = acc.shape[0]
    BM: gl.constexpr = acc.shape[1]
    io_layout: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0])
    row = gl.arange(0, BM, gl.SliceLayout(1, io_layout))
    member = gl.arange(0, BN, gl.SliceLayout(0, io_layout))
    first = tile * BN
    result = outputs(acc, first, first + BN // 2, BIASED, SCALED, scale, bias)
    dtype: gl.constexpr = out.dtype.element_ty
    if GATED:
        first += columns
        up = outputs(acc_up, first, first + BN // 2, BIASED, SCALED, scale, bias)
        gate = result.to(dtype).to(gl.float32)
        gate = (gate / (1 + gl.exp(-gate))).to(dtype)
        result = (gate * up.to(dtype)).to(gl.float32)
    result = gl.convert_layout(result.permute((1, 0)).to(dtype), io_layout)
    line = (split * rows + row).to(gl.int64) * columns
    place = gl.expand_dims(line, 1) + gl.expand_dims(tile * BN + member, 0)
    gl.store(out + place, result, mask=gl.expand_dims(row < rows, 1))


@gluon.jit
def _multiply(
    plan, ring, target, scale, bias,
    STAGES: gl.constexpr, GATED: gl.constexpr, BIASED: gl.constexpr, WIDENED: gl.constexpr,
    FEW: gl.constexpr,
):  # fmt: skip
    """The warps that multiply and store."""
    w_tiles, x_tiles, full, empty = ring
    BN: gl.constexpr = w_tiles.shape[1]
    BM: gl.constexpr = x_tiles.shape[1]
    VERSION: gl.constexpr = [2, 0] if FEW else [3, 0]
    SHAPE: gl.constexpr = [16, 8] if FEW else [16, BM, 16]
    layout: gl.constexpr = gl.NVMMADistributedLayout(VERSION, [4, 1], SHAPE)
    acc = gl.zeros([BN, BM], gl.float32, layout)
    acc_up = acc
    done = 0
    for turn in range(turns(plan)):
        tile, split, first, depths = place_of(plan, turn)
        if WIDENED:
            acc, acc_up, done = accumulate_widened(
                ring, acc, acc_up, depths, done, STAGES, GATED, FEW
            )
        else:
            acc, acc_up, done = accumulate(ring, acc, acc_up, depths, done, STAGES, GATED)
        store_outputs(target, acc, acc_up, tile, split, GATED, BIASED, WIDENED, scale, bias)


@gluon.jit(do_not_specialize=["rows"])
def _kernel(
    x,  # descriptor of [rows, k] in tiles of [BM, BK]
    weight,  # descriptor of [n, k] ([2 n, k], gate first, when GATED) in tiles of [BN, BK]
    out,  # [rows, n], or [SPLITS, rows, n] float32
    scale,  # [n] float32 ([2 n] when GATED), with WIDENED
    bias,  # [n] ([2 n] when GATED), with BIASED
    rows,
    columns,  # n
    depth,  # k
    SPLITS: gl.constexpr,
    STAGES: gl.constexpr,
    GATED: gl.constexpr,
    BIASED: gl.constexpr,
    WIDENED: gl.constexpr,
    FEW: gl.constexpr,
    W_LAYOUT: gl.constexpr,
    PDL: gl.constexpr,
):
    if PDL:
        gdc_launch_dependents()
    BN: gl.constexpr = weight.block_shape[0]
    BK: gl.constexpr = weight.block_shape[1]
    HELD: gl.constexpr = 2 * STAGES if GATED else STAGES
    W_BYTES: gl.constexpr = 1 if WIDENED else 2
    ring = stream_ring(x, weight, BN, BK, HELD, STAGES, W_LAYOUT)
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
                    scale,
                    bias,
                    STAGES,
                    GATED,
                    BIASED,
                    WIDENED,
                    FEW,
                ),
            ),
            (load_stream, (plan, ring, (x, weight, columns), STAGES, GATED, W_BYTES, False, PDL)),
        ],
        [1],
        [24],
    )


def row_tile(rows: int) -> int:
    """Columns of the tensor cores' product."""
    return max(8, 1 << (rows - 1).bit_length())


def hopper_linear(
    x: Tensor, weight: Weight, out: Tensor, config: LinearConfig, gated: bool, dependent: bool
) -> None:
    """out = x W^T + b, or silu(gate) * up of it when gated.

    x: [rows, k]; weight: [n, k], gate rows before up rows when gated, dense or FP8; out: [rows, n]
    ([rows, n / 2] when gated), or without a bias [splits, rows, n] float32 partial sums.
    """
    rows, depth = x.shape
    columns = weight.n // 2 if gated else weight.n
    units = columns // COLUMNS * config.splits
    programs = min(units, config.residents * multiprocessors(x.device))
    _kernel[(programs,)](
        tma_descriptor(x, row_tile(rows), DEPTH), tma_descriptor(weight.data, COLUMNS, DEPTH), out,
        *operands(weight, x), rows, columns, depth, SPLITS=config.splits, STAGES=config.stages,
        GATED=gated, **kinds(weight), FEW=config.few,
        W_LAYOUT=tile_layout(COLUMNS, DEPTH, weight.data.dtype), PDL=dependent,
        num_warps=4, maxnreg=128, launch_pdl=dependent,
    )  # fmt: skip
