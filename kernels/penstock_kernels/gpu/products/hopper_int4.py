"""Products of few rows with weights in whole numbers of 4 bits, for Hopper.

The stream of weights of `hopper_linear`: one warp fills a ring in shared memory, four others
multiply. A tile of 64 rows and 128 columns stands together in memory (`penstock_kernels.int4`), and
a thread finds its numbers as the tensor cores take them: a mask and a shift widen two at once, in
registers. They are multiplied as whole numbers, which is exact, and each group's sum with its
scale.

Up to 16 rows the tensor cores' smaller products (mma.sync) multiply: a warp widens the next numbers
while they work, and they take a quarter of the time that eight columns cost otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
)
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from penstock_kernels.gpu.launch.hopper import multiprocessors, tma_descriptor
from penstock_kernels.gpu.products.hopper_int4_ring import (
    DEPTH,
    LINES,
    ROWS,
    descriptors,
    int4_room,
    load_tiles,
)
from penstock_kernels.gpu.products.hopper_int4_tile import group_product
from penstock_kernels.gpu.products.hopper_linear import row_tile
from penstock_kernels.gpu.products.hopper_ring import ring_barriers
from penstock_kernels.gpu.products.hopper_stream import place_of, turns
from penstock_kernels.weight import Weight


@dataclass(frozen=True, slots=True)
class Int4Config:
    """Shape of a launch: splits of k, tiles of the weight's rows that a program multiplies with
    the same x, tiles along k of a stage, stages, programs a multiprocessor."""

    splits: int
    depths: int
    stages: int
    residents: int
    few: bool  # whether the smaller products multiply


SHARED = 216 << 10  # bytes of a multiprocessor's shared memory for rings
MOST_ROWS = 64
MOST_FEW = 16  # rows that the smaller products multiply
LEAST_STAGES = 8  # of a split: fewer cost more in sums than they save


def int4_config(
    rows: int, n: int, k: int, group: int, zeros: bool, gated: bool, split: bool,
    multiprocessors: int,
) -> Int4Config | None:  # fmt: skip
    """How to multiply [rows, k] by a weight [n, k] in groups of so many columns; None: not this
    way. split: whether k may be. By what was fastest of some 600 for Llama-3.1-8B on an H200
    (results in h200_int4_variants.json).

    Few rows: rings of three stages of two tiles, and two programs a multiprocessor, are enough
    bytes under way; more of them would keep the next kernel from starting.
    """
    wide, held = (n // 2, 2) if gated else (n, 1)
    if rows > MOST_ROWS or wide % ROWS or k % (2 * DEPTH) or group not in (DEPTH, DEPTH // 2):
        return None
    tiles, few = wide // ROWS, rows <= MOST_FEW
    splits = min(2 * multiprocessors // tiles, k // DEPTH // 2 // LEAST_STAGES) if split else 1
    splits = max(1, splits if few else min(splits, 2))
    alone = tiles * splits <= multiprocessors  # each program has a multiprocessor
    depths = 4 if alone and k % (4 * DEPTH) == 0 else 2
    if gated and not few:
        depths = 1
    scales = (2 if zeros else 1) * 2 * ROWS * DEPTH // group  # bytes beside a tile
    stage = depths * (held * (LINES * 128 + scales) + row_tile(rows) * DEPTH * 2)
    residents = 1 if alone else 2
    stages = min(SHARED // residents // stage, k // DEPTH // depths)
    if few:
        most = 5 if alone and splits == 1 else 4 if gated else 3
        stages = min(stages, most)
    return Int4Config(splits, depths, stages, residents, few) if stages >= 2 else None


@gluon.jit
def load_stage(
    ring, source, tile, depth, stage,
    HELD: gl.constexpr, D: gl.constexpr, G: gl.constexpr, ZEROS: gl.constexpr,
    BYTES: gl.constexpr,
):  # fmt: skip
    """Numbers, scales and zeros of D tiles along k, from `depth` on."""
    x, weight, scale, zero, tiles, depths = source
    ready = ring[4].index(stage)
    mbarrier.expect(ready, BYTES)
    for h in gl.static_range(HELD):
        at = (h * tiles + tile) * depths + depth
        load_tiles(ring, (weight, scale, zero), at, HELD * stage + h, ready, G, ZEROS)


@gluon.jit
def _load_x(ring, x, depth, stage, D: gl.constexpr):
    ready = ring[4].index(stage)
    for d in gl.static_range(D):
        tma.async_copy_global_to_shared(
            x, [0, (depth + d) * 128], ready, ring[3].index(stage * D + d)
        )


@gluon.jit
def _load(
    plan, ring, source,
    HELD: gl.constexpr, D: gl.constexpr, G: gl.constexpr, ZEROS: gl.constexpr,
    STAGES: gl.constexpr, BYTES: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """The warp that fills the ring. plan counts stages where `place_of` says depths."""
    empty = ring[5]
    tile, split, first, depths = place_of(plan, 0)
    ahead = gl.minimum(depths, STAGES)
    for j in range(ahead):
        depth = (first + (j + tile) % depths) * D
        load_stage(ring, source, tile, depth, j, HELD, D, G, ZEROS, BYTES)
    if PDL:
        gdc_wait()
    for j in range(ahead):
        _load_x(ring, source[0], (first + (j + tile) % depths) * D, j, D)
    done = ahead
    for turn in range(turns(plan)):
        tile, split, first, depths = place_of(plan, turn)
        for j in range(gl.where(turn == 0, ahead, 0), depths):
            stage = done % STAGES
            mbarrier.wait(empty.index(stage), (done // STAGES + 1) & 1)
            depth = (first + (j + tile) % depths) * D
            load_stage(ring, source, tile, depth, stage, HELD, D, G, ZEROS, BYTES)
            _load_x(ring, source[0], depth, stage, D)
            done += 1


@gluon.jit
def _outputs(acc, row, BIASED: gl.constexpr, bias):
    if BIASED:
        acc = acc + gl.expand_dims(gl.load(bias + row).to(gl.float32), 1)
    return acc


@gluon.jit
def _multiply(
    plan, ring, target, bias,
    HELD: gl.constexpr, D: gl.constexpr, G: gl.constexpr, ZEROS: gl.constexpr, FEW: gl.constexpr,
    STAGES: gl.constexpr, BIASED: gl.constexpr,
):  # fmt: skip
    """The warps that multiply and store."""
    w_tiles, s_tiles, z_tiles, x_tiles, full, empty = ring
    out, rows, columns = target
    BM: gl.constexpr = x_tiles.shape[1]
    VERSION: gl.constexpr = [2, 0] if FEW else [3, 0]
    SHAPE: gl.constexpr = [16, 8] if FEW else [16, BM, 16]
    layout: gl.constexpr = gl.NVMMADistributedLayout(VERSION, [4, 1], SHAPE)
    io_layout: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0])
    line = gl.arange(0, BM, gl.SliceLayout(1, io_layout))
    member = gl.arange(0, 64, gl.SliceLayout(0, io_layout))
    place = gl.arange(0, 64, gl.SliceLayout(1, layout))
    dtype: gl.constexpr = out.dtype.element_ty
    done = 0
    for turn in range(turns(plan)):
        tile, split, first, depths = place_of(plan, turn)
        acc = gl.zeros([64, BM], gl.float32, layout)
        up = acc
        for _ in range(depths):
            stage = done % STAGES
            mbarrier.wait(full.index(stage), done // STAGES & 1)
            for d in gl.static_range(D):
                for g in gl.static_range(G):
                    at = stage * D + d
                    acc = group_product(acc, ring, HELD * stage, at, d, g, G, ZEROS, FEW)
                    if HELD == 2:
                        up = group_product(up, ring, 2 * stage + 1, at, d, g, G, ZEROS, FEW)
            mbarrier.arrive(empty.index(stage))
            done += 1
        result = _outputs(acc, tile * 64 + place, BIASED, bias)
        if HELD == 2:
            second = _outputs(up, columns + tile * 64 + place, BIASED, bias)
            gate = result.to(dtype).to(gl.float32)
            gate = (gate / (1 + gl.exp(-gate))).to(dtype)
            result = (gate * second.to(dtype)).to(gl.float32)
        result = gl.convert_layout(result.permute((1, 0)).to(dtype), io_layout)
        start = (split * rows + line).to(gl.int64) * columns
        at = gl.expand_dims(start, 1) + gl.expand_dims(tile * 64 + member, 0)
        gl.store(out + at, result, mask=gl.expand_dims(line < rows, 1))


@gluon.jit(do_not_specialize=["rows"])
def _kernel(
    x,  # descriptor of [rows, k] in tiles of [BM, 128]
    weight,  # descriptor of lines [n / 64 * k / 128 * 32, 128] in stages of [32 D, 128]
    scale,  # descriptor of [n * k / 128 * G] in stages of [64 D G]
    zero,  # the same, with ZEROS
    out,  # [rows, n], or [SPLITS, rows, n] float32
    bias,  # [n] ([2 n] when HELD is 2), with BIASED
    rows,
    columns,  # n
    depth,  # k
    SPLITS: gl.constexpr,
    HELD: gl.constexpr,  # 2: gate and up
    D: gl.constexpr,
    G: gl.constexpr,  # groups of a tile
    ZEROS: gl.constexpr,
    FEW: gl.constexpr,
    STAGES: gl.constexpr,
    BIASED: gl.constexpr,
    PDL: gl.constexpr,
):
    if PDL:
        gdc_launch_dependents()
    BM: gl.constexpr = x.block_shape[0]
    w_tiles, s_tiles, z_tiles = int4_room(weight, scale, zero, HELD * STAGES, ZEROS)
    x_tiles = gl.allocate_shared_memory(x.dtype, [STAGES * D, BM, 128], x.layout)
    full, empty = ring_barriers(STAGES, 1)
    fence_async_shared()
    ring = (w_tiles, s_tiles, z_tiles, x_tiles, full, empty)
    KINDS: gl.constexpr = 2 if ZEROS else 1
    BYTES: gl.constexpr = D * (HELD * (4096 + KINDS * 128 * G) + BM * 256)
    rows, columns = gl.to_tensor(rows), gl.to_tensor(columns)
    tiles, depths = columns // 64, gl.to_tensor(depth) // 128
    plan = (tiles, tiles * SPLITS, depths // D, gl.to_tensor(SPLITS))
    source = (x, weight, scale, zero, tiles, depths)
    gl.warp_specialize(
        [
            (
                _multiply,
                (
                    plan,
                    ring,
                    (out, rows, columns),
                    bias,
                    HELD,
                    D,
                    G,
                    ZEROS,
                    FEW,
                    STAGES,
                    BIASED,
                ),
            ),
            (_load, (plan, ring, source, HELD, D, G, ZEROS, STAGES, BYTES, PDL)),
        ],
        [1],
        [24],
    )


def hopper_int4(
    x: Tensor, weight: Weight, out: Tensor, config: Int4Config, gated: bool, dependent: bool,
    maxnreg: int = 128,
) -> None:  # fmt: skip
    """out = x W^T + b, or silu(gate) * up of it when gated.

    x: [rows, k]; weight: INT4 [n, k], gate rows before up rows when gated; out: [rows, n] ([rows,
    n / 2] when gated), or without a bias [splits, rows, n] float32 partial sums.
    """
    rows, depth = x.shape
    columns = weight.n // 2 if gated else weight.n
    units = columns // ROWS * config.splits
    programs = min(units, config.residents * multiprocessors(x.device))
    _kernel[(programs,)](
        tma_descriptor(x, row_tile(rows), DEPTH), *descriptors(weight, config.depths), out,
        x if weight.bias is None else weight.bias, rows, columns, depth,
        SPLITS=config.splits, HELD=2 if gated else 1, D=config.depths,
        G=DEPTH // weight.scale_columns, ZEROS=weight.zero is not None, FEW=config.few,
        STAGES=config.stages, BIASED=weight.bias is not None,
        PDL=dependent, num_warps=4, maxnreg=maxnreg, launch_pdl=dependent,
    )  # fmt: skip
