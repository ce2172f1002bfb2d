"""A stage of the ring of `hopper_row_ring`: 512 columns of a unit of the weight.

Lines of 128 bytes of 16 rows are copied at a time, so of the four warps of a half two share a line
of codes. Scales of codes are eight blocks of 16 rows.
"""

from __future__ import annotations

import functools

from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from penstock_kernels.weight import Layout

GRANULE = 16  # rows of the weight of four warps
LINE = 128  # bytes of a row that are copied at a time
SCALES = 8  # blocks of 64 columns of a step


def step_bytes(layout: Layout, warps: int) -> int:
    """Of shared memory, for a step of a unit."""
    line = GRANULE * LINE
    return warps // 4 * (2 * line + 4 * SCALES * GRANULE if layout is Layout.LUT else 4 * line)


@functools.cache
def step_layout(codes: bool, warps: int) -> gl.DistributedLinearLayout:
    """Which bytes of a stage are whose. Codes: two warps share a line of 128 bytes."""
    own = 8 if codes else 16
    half = [[32, 0]] if codes else [[64, 0]]
    return gl.DistributedLinearLayout(
        reg_bases=[
            *([0, 1 << bit] for bit in range(own.bit_length() - 1)), [8, 0], [0, 4 * own],
        ],
        lane_bases=[[0, own], [0, 2 * own], [1, 0], [2, 0], [4, 0]],
        warp_bases=[
            *([[0, 64], [16, 0]] if codes else [[16, 0], [32, 0]]), *(half if warps == 8 else []),
        ],
        block_bases=[],
        shape=[4 * warps * (2 if codes else 4), LINE],
    )  # fmt: skip


@functools.cache
def scale_layout(warps: int) -> gl.DistributedLinearLayout:
    """Which scales of a stage are whose: of a half eight blocks, two for each warp."""
    return gl.DistributedLinearLayout(
        reg_bases=[[1, 0], [0, 8]],
        lane_bases=[[0, 0], [0, 0], [0, 1], [0, 2], [0, 4]],
        warp_bases=[[2, 0], [4, 0], *([[8, 0]] if warps == 8 else [])],
        block_bases=[],
        shape=[2 * warps, GRANULE],
    )


def scale_tiles(scale: Tensor) -> TensorDescriptor:
    """Scales [k / 64, n] of codes, to be copied as a stage has them."""
    layout = gl.NVMMASharedLayout.get_default_for([SCALES, GRANULE], gl.float32)
    return TensorDescriptor.from_tensor(scale, [SCALES, GRANULE], layout)


@gluon.jit
def stage_blocks(tile, source: gl.constexpr, BYTES: gl.constexpr):
    """The bytes of a stage's two blocks of 64 columns of each warp."""
    MEMBERS: gl.constexpr = BYTES.shape[0]
    WIDTH: gl.constexpr = BYTES.shape[1]
    data = tile.load(source)
    if WIDTH == 32:
        data = data.reshape([MEMBERS // 64, 2, 16, 2, 2, 32]).permute((0, 1, 3, 2, 5, 4))
    else:
        data = data.reshape([MEMBERS, 2, 64]).permute((0, 2, 1))
    first, second = gl.split(data.reshape([MEMBERS, WIDTH, 2]))
    return (
        gl.convert_layout(first, BYTES, assert_trivial=True),
        gl.convert_layout(second, BYTES, assert_trivial=True),
    )


@gluon.jit
def stage_scales(tile, source: gl.constexpr, layout: gl.constexpr, MEMBERS: gl.constexpr):
    """Their scales."""
    values = tile.load(source).reshape([MEMBERS // 64, 4, 2, 16]).permute((0, 1, 3, 2))
    first, second = gl.split(values.reshape([MEMBERS, 2]))
    along: gl.constexpr = gl.SliceLayout(1, layout)
    return (
        gl.convert_layout(first, along, assert_trivial=True),
        gl.convert_layout(second, along, assert_trivial=True),
    )
