"""Gated products of one row that has its norm before it, with weights of 4 bits, for Hopper.

The stream of weights of `hopper_int4`, which waits for nothing here. The warps that multiply fetch
the row themselves, normalise it, and keep all of it in shared memory while they go from tile to
tile: so the norm is no launch (`hopper_int4_row`).

The columns of the tensor cores' product are not rows of x but pieces of its one row: eight of 128
numbers, of which one belongs to a tile. The other seven sums are dropped.
"""

from __future__ import annotations

from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import mma_v2
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from penstock_kernels.gpu.launch.hopper import multiprocessors, tile_layout
from penstock_kernels.gpu.products.hopper_int4 import Int4Config, load_stage
from penstock_kernels.gpu.products.hopper_int4_ring import (
    DEPTH,
    LINES,
    ROWS,
    descriptors,
    int4_room,
)
from penstock_kernels.gpu.products.hopper_int4_row import PIECE, place_row, row_gains
from penstock_kernels.gpu.products.hopper_int4_tile import group_numbers, group_scales
from penstock_kernels.gpu.products.hopper_ring import ring_barriers
from penstock_kernels.gpu.products.hopper_stream import place_of, turns
from penstock_kernels.ops import Norm, NormKind
from penstock_kernels.weight import Weight

SHARED = 200 << 10  # bytes of a multiprocessor's shared memory for rings
MOST = 16384  # of a row


def raw_config(n: int, k: int, group: int, zeros: bool) -> Int4Config | None:
    """How to multiply one row of k by a gated weight [n, k], as `hopper_int4.int4_config`."""
    wide = n // 2
    if wide % ROWS or k % PIECE or k > MOST or group not in (DEPTH, DEPTH // 2):
        return None
    scales = (2 if zeros else 1) * 2 * ROWS * DEPTH // group
    room = SHARED // 2 - 2 * k
    stages = min(room // (4 * (LINES * 128 + scales)), k // DEPTH // 2, 4)
    return Int4Config(1, 2, stages, 2, True) if stages >= 2 else None


@gluon.jit
def _load(
    plan, ring, source, D: gl.constexpr, G: gl.constexpr, ZEROS: gl.constexpr,
    STAGES: gl.constexpr, BYTES: gl.constexpr,
):  # fmt: skip
    """The warp that fills the ring."""
    done = 0
    for turn in range(turns(plan)):
        tile, split, first, depths = place_of(plan, turn)
        for j in range(depths):
            stage = done % STAGES
            mbarrier.wait(ring[5].index(stage), (done // STAGES + 1) & 1)
            depth = (first + (j + tile) % depths) * D
            load_stage(ring, source, tile, depth, stage, 2, D, G, ZEROS, BYTES)
            done += 1


@gluon.jit
def _product(
    acc, ring, slot, x, own, d: gl.constexpr, g: gl.constexpr, G: gl.constexpr, ZEROS: gl.constexpr
):
    """acc plus the group's products with its own piece, of eight in x."""
    layout: gl.constexpr = acc.type.layout
    numbers = group_numbers(ring, slot, d, g, G, ZEROS, layout, x.dtype)
    part = mma_v2(numbers, x, gl.zeros(acc.shape, gl.float32, layout))
    return acc + part * (group_scales(ring, slot, d, g, G, layout) * own)


@gluon.jit
def _output(acc, row, bias, BIASED: gl.constexpr):
    result = gl.sum(acc, 1)
    if BIASED:
        result = result + gl.load(bias + row).to(gl.float32)
    return result


@gluon.jit
def _multiply(
    plan, ring, given, out, columns, bias, K: gl.constexpr, ONE: gl.constexpr, D: gl.constexpr,
    G: gl.constexpr, ZEROS: gl.constexpr, STAGES: gl.constexpr, BIASED: gl.constexpr,
    PDL: gl.constexpr,
):  # fmt: skip
    """The warps that normalise, multiply and store."""
    x, gain, eps = given
    row, full, empty = ring[3], ring[4], ring[5]
    layout: gl.constexpr = gl.NVMMADistributedLayout([2, 0], [4, 1], [16, 8])
    block: gl.constexpr = gl.BlockedLayout([1, 8], [2, 16], [4, 1], [1, 0])
    inputs: gl.constexpr = gl.DotOperandLayout(1, layout, 2)
    piece = gl.arange(0, 8, gl.SliceLayout(0, layout))
    member = gl.arange(0, 64, gl.SliceLayout(1, layout))
    dtype: gl.constexpr = out.dtype.element_ty
    gains = row_gains(gain, K, block)
    if PDL:
        gdc_wait()
    place_row(x, gains, eps, row, K, True, ONE, block)
    done = 0
    for turn in range(turns(plan)):
        tile, split, first, depths = place_of(plan, turn)
        acc = gl.zeros([64, 8], gl.float32, layout)
        up = acc
        for j in range(depths):
            stage = done % STAGES
            depth = (first + (j + tile) % depths) * D
            mbarrier.wait(full.index(stage), done // STAGES & 1)
            for d in gl.static_range(D):
                own = gl.where(piece == (depth + d) % 8, 1.0, 0.0)
                own = gl.expand_dims(own, 0)
                eight = row.index((depth + d) // 8)
                for g in gl.static_range(G):
                    value = eight.slice(128 // G * g, 128 // G, 1).permute((1, 0)).load(inputs)
                    acc = _product(acc, ring, 2 * stage, value, own, d, g, G, ZEROS)
                    up = _product(up, ring, 2 * stage + 1, value, own, d, g, G, ZEROS)
            mbarrier.arrive(empty.index(stage))
            done += 1
        place = tile * 64 + member
        gate = _output(acc, place, bias, BIASED).to(dtype).to(gl.float32)
        gate = (gate / (1 + gl.exp(-gate))).to(dtype)
        second = _output(up, columns + place, bias, BIASED).to(dtype)
        gl.store(out + place, (gate * second).to(dtype))


@gluon.jit
def _kernel(
    x,  # [K]
    weight,  # descriptor of lines [2 n / 64 * K / 128 * 32, 128] in stages of [32 D, 128]
    scale,  # descriptor of [2 n * K / 128 * G] in stages of [64 D G]
    zero,  # the same, with ZEROS
    gain,  # [K]
    eps,
    out,  # [n]
    bias,  # [2 n], with BIASED
    columns,  # n
    K: gl.constexpr,
    D: gl.constexpr,  # tiles along k of a stage
    G: gl.constexpr,  # groups of a tile
    ZEROS: gl.constexpr,
    STAGES: gl.constexpr,
    BIASED: gl.constexpr,
    ONE: gl.constexpr,
    X_LAYOUT: gl.constexpr,
    PDL: gl.constexpr,
):
    if PDL:
        gdc_launch_dependents()
    w_tiles, s_tiles, z_tiles = int4_room(weight, scale, zero, 2 * STAGES, ZEROS)
    row = gl.allocate_shared_memory(x.dtype.element_ty, [K // 1024, 8, 128], X_LAYOUT)
    full, empty = ring_barriers(STAGES, 1)
    fence_async_shared()
    ring = (w_tiles, s_tiles, z_tiles, row, full, empty)
    KINDS: gl.constexpr = 2 if ZEROS else 1
    BYTES: gl.constexpr = 2 * D * (4096 + KINDS * 128 * G)
    columns = gl.to_tensor(columns)
    tiles = columns // 64
    plan = (tiles, tiles, gl.to_tensor(K // 128 // D), gl.to_tensor(1))
    source = (x, weight, scale, zero, tiles, gl.to_tensor(K // 128))
    given = (x, gain, eps)
    gl.warp_specialize(
        [
            (
                _multiply,
                (plan, ring, given, out, columns, bias, K, ONE, D, G, ZEROS, STAGES, BIASED, PDL),
            ),
            (_load, (plan, ring, source, D, G, ZEROS, STAGES, BYTES)),
        ],
        [1],
        [24],
    )


def hopper_int4_raw(
    x: Tensor, norm: Norm, weight: Weight, out: Tensor, config: Int4Config, dependent: bool
) -> None:
    """out = silu(gate) * up of y W^T + b, where y is x normalised by root mean squares.

    x: [1, k]; weight: INT4 [n, k], gate rows before up rows; out: [1, n / 2].
    """
    columns = weight.n // 2
    programs = min(columns // ROWS, config.residents * multiprocessors(x.device))
    _kernel[(programs,)](
        x, *descriptors(weight, config.depths), norm.weight,
        norm.eps, out, x if weight.bias is None else weight.bias, columns, K=weight.k,
        D=config.depths, G=DEPTH // weight.scale_columns, ZEROS=weight.zero is not None,
        STAGES=config.stages, BIASED=weight.bias is not None, ONE=norm.kind is NormKind.RMS_ONE,
        X_LAYOUT=tile_layout(8, DEPTH, x.dtype),
        PDL=dependent, num_warps=4, maxnreg=128, launch_pdl=dependent,
    )  # fmt: skip
