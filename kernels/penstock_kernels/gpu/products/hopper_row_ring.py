"""`hopper_row` by programs that stay: a warp streams the weight through a ring in shared memory.

What it reads ahead stands there and not in registers, and goes on while programs wait for the
kernel before, normalise, and go from one unit of the weight to the next. The row's digits are made
once a program: so this is the way where a multiprocessor has many units, or the row is long.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from penstock_kernels.gpu.launch.hopper import multiprocessors, tile_layout, tma_descriptor
from penstock_kernels.gpu.products.hopper_digits import (
    pieces,
    place_row,
    row_layout,
    row_pieces,
    row_room,
)
from penstock_kernels.gpu.products.hopper_ring import ring_barriers
from penstock_kernels.gpu.products.hopper_row_parts import (
    add_step,
    byte_layout,
    rows_of,
    store_row,
    table_words,
)
from penstock_kernels.gpu.products.hopper_row_stage import (
    GRANULE,
    LINE,
    scale_layout,
    scale_tiles,
    stage_blocks,
    stage_scales,
    step_layout,
)
from penstock_kernels.gpu.products.hopper_row_table import digits_of, lookup, words_of
from penstock_kernels.ops import Norm, NormKind
from penstock_kernels.weight import Layout, Weight


@dataclass(frozen=True, slots=True)
class RingConfig:
    """Shape of a launch: warps that multiply, steps of 512 columns in a stage of a ring, stages,
    programs a multiprocessor, and registers of a thread."""

    warps: int
    depths: int
    stages: int
    residents: int
    registers: int


@gluon.jit
def _none():
    """What tuples begin as."""
    return ()


@gluon.jit
def _load(
    ring, weight, scale, count, N: gl.constexpr, K: gl.constexpr, GATED: gl.constexpr,
    CODES: gl.constexpr, MEMBERS: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """The warp that fills the ring."""
    tiles, scales, full, empty = ring
    HALVES: gl.constexpr = MEMBERS // 64
    LINES: gl.constexpr = 2 if CODES else 4  # of a row's step
    SCALE_BYTES: gl.constexpr = 512 if CODES else 0
    done = 0
    for unit in range(gl.program_id(0), count, gl.num_programs(0)):
        for j in range(K // 512 // D):
            stage = done % STAGES
            mbarrier.wait(empty.index(stage), (done // STAGES + 1) & 1)
            ready = full.index(stage)
            mbarrier.expect(ready, D * HALVES * (LINES * 2048 + SCALE_BYTES))
            for d in gl.static_range(D):
                for h in gl.static_range(HALVES):
                    row = rows_of(unit, 64 * h, MEMBERS, N, GATED)
                    for i in gl.static_range(LINES):
                        part = tiles.index(stage * D + d).slice(16 * (h * LINES + i), 16)
                        column = ((j * D + d) * LINES + i) * 128
                        tma.async_copy_global_to_shared(weight, [row, column], ready, part)
                    if CODES:
                        part = scales.index(stage * D + d).slice(8 * h, 8)
                        at = [8 * (j * D + d), row]
                        tma.async_copy_global_to_shared(scale, at, ready, part)
            done += 1


@gluon.jit
def _multiply(
    ring, row, given, out, scale, words, bias, count, N: gl.constexpr, K: gl.constexpr,
    GATED: gl.constexpr, BIASED: gl.constexpr, NORMED: gl.constexpr, ONE: gl.constexpr,
    ADDS: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr, LOOKUP: gl.constexpr,
    UNIT: gl.constexpr, RATIO: gl.constexpr, SOURCE: gl.constexpr, SCALE_SOURCE: gl.constexpr,
    BYTES: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """The warps that normalise, multiply and store."""
    tiles, scales, full, empty = ring
    x, gain, eps = given
    PIECES: gl.constexpr = row[2].shape[0] // 2
    MEMBERS: gl.constexpr = BYTES.shape[0]
    WARPS: gl.constexpr = MEMBERS // 16
    layout: gl.constexpr = gl.NVMMADistributedLayout([2, 0], [WARPS, 1], [16, 8])
    block: gl.constexpr = gl.BlockedLayout([1, 16], [4, 8], [WARPS, 1], [1, 0])
    CODES: gl.constexpr = LOOKUP != ""
    table = table_words(words, CODES, BYTES)
    if NORMED:
        gain = row_pieces(gain, K, PIECES, block)
    if PDL:
        gdc_wait()
    place_row(x, gain, eps, row, K, NORMED, ONE, CODES, RATIO, block)
    done = 0
    for unit in range(gl.program_id(0), count, gl.num_programs(0)):
        acc = gl.zeros([MEMBERS, 8], gl.float32, layout)
        for j in range(K // 512 // D):
            stage = done % STAGES
            mbarrier.wait(full.index(stage), done // STAGES & 1)
            held = _none()
            for d in gl.static_range(D):
                first, second = stage_blocks(tiles.index(stage * D + d), SOURCE, BYTES)
                by, by_second = 0.0, 0.0
                if CODES:
                    here = scales.index(stage * D + d)
                    by, by_second = stage_scales(here, SCALE_SOURCE, layout, MEMBERS)
                held = held + (((first, by), (second, by_second)),)
            mbarrier.arrive(empty.index(stage))
            for d in gl.static_range(D):
                acc = add_step(acc, held[d], row, table, j * D + d, LOOKUP)
            done += 1
        store_row(acc, unit, out, scale, bias, N, GATED, BIASED, ADDS, CODES, UNIT)


@gluon.jit
def _kernel(
    x,  # [K]
    weight,  # descriptor of [N, K / 2] uint8 with CODES, else of [N, K] int8, in tiles [16, 128]
    scales,  # descriptor of [K / 64, N] in tiles [8, 16], with CODES
    scale,  # [N] float32, without
    words,  # of `words_of`, with CODES
    bias,  # [N], with BIASED
    gain,  # [K], with NORMED
    eps,
    out,  # [N], [N / 2] when GATED; with ADDS it is added to
    count,  # units
    N: gl.constexpr,
    K: gl.constexpr,
    GATED: gl.constexpr,
    BIASED: gl.constexpr,
    NORMED: gl.constexpr,
    ONE: gl.constexpr,
    ADDS: gl.constexpr,
    D: gl.constexpr,  # steps of a stage
    STAGES: gl.constexpr,
    LOOKUP: gl.constexpr,  # PTX with CODES; empty: whole numbers, or FP8
    UNIT: gl.constexpr,
    RATIO: gl.constexpr,
    SOURCE: gl.constexpr,
    SCALE_SOURCE: gl.constexpr,
    BYTES: gl.constexpr,
    W_LAYOUT: gl.constexpr,
    PIECES: gl.constexpr,  # of the row
    X_LAYOUT: gl.constexpr,
    PDL: gl.constexpr,
):
    if PDL:
        gdc_launch_dependents()
    MEMBERS: gl.constexpr = BYTES.shape[0]
    CODES: gl.constexpr = LOOKUP != ""
    tiles = gl.allocate_shared_memory(weight.dtype, [STAGES * D, SOURCE.shape[0], 128], W_LAYOUT)
    s_tiles = tiles
    if CODES:
        s_tiles = gl.allocate_shared_memory(
            scales.dtype, [STAGES * D, MEMBERS // 8, 16], scales.layout
        )
    HALVES: gl.constexpr = weight.dtype == gl.float8e4nv
    row = row_room(PIECES, CODES, HALVES, X_LAYOUT)
    full, empty = ring_barriers(STAGES, 1)
    fence_async_shared()
    ring = (tiles, s_tiles, full, empty)
    count = gl.to_tensor(count)
    gl.warp_specialize(
        [
            (
                _multiply,
                (
                    ring,
                    row,
                    (x, gain, eps),
                    out,
                    scale,
                    words,
                    bias,
                    count,
                    N,
                    K,
                    GATED,
                    BIASED,
                    NORMED,
                    ONE,
                    ADDS,
                    D,
                    STAGES,
                    LOOKUP,
                    UNIT,
                    RATIO,
                    SOURCE,
                    SCALE_SOURCE,
                    BYTES,
                    PDL,
                ),
            ),
            (_load, (ring, weight, scales, count, N, K, GATED, CODES, MEMBERS, D, STAGES)),
        ],
        [1],
        [24],
    )


def hopper_row_ring(
    x: Tensor, weight: Weight, out: Tensor, config: RingConfig, dependent: bool,
    norm: Norm | None = None, gated: bool = False, adds: bool = False,
) -> None:  # fmt: skip
    """`hopper_row.hopper_row`, and of LUT: codes of a known table, with a float32 scale for each 64
    columns and no others."""
    bias, warps = weight.bias, config.warps
    assert weight.scale is not None
    gain, eps = (x, 0.0) if norm is None else (norm.weight, norm.eps)
    codes = weight.layout is Layout.LUT
    digits = digits_of(weight.code) if codes else None
    lines = 4 * warps * (2 if codes else 4)
    units = weight.n // (GRANULE * warps // 4)
    tiles = tma_descriptor(weight.data, GRANULE, LINE)
    _kernel[(min(units, config.residents * multiprocessors(x.device)),)](
        x, tiles, scale_tiles(weight.scale) if codes else tiles, weight.scale,
        words_of(digits, x.device) if digits else x, x if bias is None else bias, gain, eps,
        out, units, N=weight.n, K=weight.k, GATED=gated, BIASED=bias is not None,
        NORMED=norm is not None, ONE=norm is not None and norm.kind is NormKind.RMS_ONE,
        ADDS=adds, D=config.depths, STAGES=config.stages,
        LOOKUP=lookup(digits) if digits else "",
        UNIT=digits.unit if digits else 1.0, RATIO=digits.ratio if digits else 1.0,
        SOURCE=step_layout(codes, warps), SCALE_SOURCE=scale_layout(warps),
        BYTES=byte_layout(32 if codes else 64, warps),
        W_LAYOUT=tile_layout(lines, LINE, weight.data.dtype),
        PIECES=pieces(weight.k), X_LAYOUT=row_layout(weight),
        PDL=dependent, num_warps=warps,
        maxnreg=config.registers, launch_pdl=dependent,
    )  # fmt: skip
