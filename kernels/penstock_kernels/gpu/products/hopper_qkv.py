"""The product of queries, keys and values for Hopper, which rotates and stores what it made.

The stream of weights of `hopper_linear` with another end: `rope` without its launch. A tile
holds 32 rows of a head's first half and those of the second half that they are rotated against,
copied together by a descriptor that has the halves as a dimension; so a program holds both numbers
of every pair. The product is rounded before it is rotated, and results are those of two launches,
bit for bit.

The kernel lets the next one start behind its wait: decode attention reads early what was written
before this launch. Slots, positions and block table are read before the wait, while the ring fills:
they were written before the embedding, which does not launch dependently.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from penstock_kernels.fp8 import bits
from penstock_kernels.gpu.attention.hopper_kv8 import narrowed
from penstock_kernels.gpu.attention.kv8 import exponent_bits
from penstock_kernels.gpu.launch.dependent import launch
from penstock_kernels.gpu.launch.hopper import multiprocessors, tile_layout, tma_descriptor
from penstock_kernels.gpu.products.hopper_linear import (
    COLUMNS,
    DEPTH,
    LinearConfig,
    accumulate,
    accumulate_widened,
    outputs,
    row_tile,
)
from penstock_kernels.gpu.products.hopper_stream import (
    load_stream,
    place_of,
    stream_ring,
    turns,
)
from penstock_kernels.gpu.products.operands import kinds, operands
from penstock_kernels.gpu.step.rope import RowPlacement
from penstock_kernels.weight import Weight

HALF = COLUMNS // 2  # rows of a tile from each half of a head


@gluon.jit
def _rotated(low, high, cos, sin):
    """Both halves of a head, rounded as they are stored."""
    dtype: gl.constexpr = low.dtype
    a, b = low.to(gl.float32), high.to(gl.float32)
    return gl.fma(a, cos, -(b * sin)).to(dtype), gl.fma(b, cos, a * sin).to(dtype)


@gluon.jit
def _cache_places(placement, row, inside, PAGE: gl.constexpr):
    """Position and place in the cache, in tokens, of each row."""
    slots, positions, table, width = placement
    position = gl.load(positions + row, mask=inside, other=0, cache_modifier=".cg")
    slot = gl.load(slots + row, mask=inside, other=0, cache_modifier=".cg")
    entry = table + (slot.to(gl.int64) * width + position // PAGE)
    page = gl.load(entry, mask=inside, other=0, cache_modifier=".cg")
    return position, page.to(gl.int64) * PAGE + position % PAGE


@gluon.jit
def _multiply(
    plan, ring, target, placement, angles, scale, bias,
    heads: gl.constexpr, kv_heads: gl.constexpr, D: gl.constexpr, PAGE: gl.constexpr,
    STAGES: gl.constexpr, BIASED: gl.constexpr, WIDENED: gl.constexpr, FEW: gl.constexpr,
    FP8: gl.constexpr,
):  # fmt: skip
    """The warps that multiply, rotate and store."""
    query, cache, rows, plane, by_key, by_value = target
    BM: gl.constexpr = ring[1].shape[1]
    BN: gl.constexpr = ring[0].shape[1]
    HALF: gl.constexpr = BN // 2
    VERSION: gl.constexpr = [2, 0] if FEW else [3, 0]
    SHAPE: gl.constexpr = [16, 8] if FEW else [16, BM, 16]
    layout: gl.constexpr = gl.NVMMADistributedLayout(VERSION, [4, 1], SHAPE)
    pairs: gl.constexpr = gl.BlockedLayout([1, 2, 8], [8, 1, 4], [4, 1, 1], [2, 1, 0])
    io_layout: gl.constexpr = gl.BlockedLayout([1, 8], [8, 4], [4, 1], [1, 0])
    row = gl.arange(0, BM, gl.SliceLayout(1, io_layout))
    inside = row < rows
    position, token = _cache_places(placement, row, inside, PAGE)
    turning = gl.expand_dims(position * D, 1)
    inside = gl.expand_dims(inside, 1)
    acc = gl.zeros([BN, BM], gl.float32, layout)
    done = 0
    for turn in range(turns(plan)):
        tile, _, _, depths = place_of(plan, turn)
        head, part = tile // (D // BN), tile % (D // BN)
        is_query, is_rotated = head < heads, head < heads + kv_heads
        dims = gl.expand_dims(part * HALF + gl.arange(0, HALF, gl.SliceLayout(0, io_layout)), 0)
        angle = angles + (turning + dims)
        cos = gl.load(angle, mask=inside & is_rotated, other=0.0)
        sin = gl.load(angle + D // 2, mask=inside & is_rotated, other=0.0)
        if WIDENED:
            acc, _, done = accumulate_widened(ring, acc, acc, depths, done, STAGES, False, FEW)
        else:
            acc, _, done = accumulate(ring, acc, acc, depths, done, STAGES, False)
        first = head * D + part * HALF
        result = outputs(acc, first, first + D // 2, BIASED, WIDENED, scale, bias)
        result = result.permute((1, 0)).to(query.dtype.element_ty).reshape([BM, 2, HALF])
        result = gl.convert_layout(result, pairs).permute((0, 2, 1))
        low, high = gl.split(result)
        low = gl.convert_layout(low, io_layout, assert_trivial=True)
        high = gl.convert_layout(high, io_layout, assert_trivial=True)
        turned_low, turned_high = _rotated(low, high, cos, sin)
        low = gl.where(is_rotated, turned_low, low)
        high = gl.where(is_rotated, turned_high, high)
        line = gl.where(is_query, row.to(gl.int64) * heads + head, (head - heads) * plane + token)
        place = gl.expand_dims(line * D, 1) + dims
        gl.store(query + place, low, mask=inside & is_query)
        gl.store(query + (place + D // 2), high, mask=inside & is_query)
        if FP8:
            by = gl.where(is_rotated, by_key, by_value)
            low, high = narrowed(low, by, FP8), narrowed(high, by, FP8)
        gl.store(cache + place, low, mask=inside & (head >= heads))
        gl.store(cache + (place + D // 2), high, mask=inside & (head >= heads))


@gluon.jit(do_not_specialize=["rows", "blocks", "width"])
def _kernel(
    x,  # descriptor of [rows, k] in tiles of [BM, BK]
    weight,  # descriptor of [2 * (heads + 2 * kv_heads), D / 2, k] in tiles of [2, HALF, BK]
    query,  # [rows, heads * D]
    cache,  # [2, kv_heads, blocks, PAGE, D], bytes with FP8
    table,  # [slots, width] int32
    slots,  # [rows] integers
    positions,  # [rows] int64
    angles,  # [positions, 2, D / 2] float32, cosines then sines
    scale,  # [(heads + 2 * kv_heads) * D] float32, with WIDENED
    bias,  # [(heads + 2 * kv_heads) * D], with BIASED
    by_key,  # with FP8: see `RowPlacement`
    by_value,
    rows,
    depth,  # k
    blocks,
    width,
    heads: gl.constexpr,
    kv_heads: gl.constexpr,
    D: gl.constexpr,
    PAGE: gl.constexpr,
    STAGES: gl.constexpr,
    BIASED: gl.constexpr,
    WIDENED: gl.constexpr,
    FEW: gl.constexpr,
    FP8: gl.constexpr,
    W_LAYOUT: gl.constexpr,
    PDL: gl.constexpr,
):
    BN: gl.constexpr = 2 * weight.block_shape[1]
    BK: gl.constexpr = weight.block_shape[2]
    W_BYTES: gl.constexpr = 1 if WIDENED else 2
    ring = stream_ring(x, weight, BN, BK, STAGES, STAGES, W_LAYOUT)
    tiles = gl.to_tensor((heads + 2 * kv_heads) * D // BN)
    plan = (tiles, tiles, gl.to_tensor(depth) // BK, gl.to_tensor(1))
    plane = gl.to_tensor(blocks).to(gl.int64) * PAGE
    target = (query, cache, gl.to_tensor(rows), plane, by_key, by_value)
    placement = (slots, positions, table, gl.to_tensor(width))
    gl.warp_specialize(
        [
            (
                _multiply,
                (
                    plan,
                    ring,
                    target,
                    placement,
                    angles,
                    scale,
                    bias,
                    heads,
                    kv_heads,
                    D,
                    PAGE,
                    STAGES,
                    BIASED,
                    WIDENED,
                    FEW,
                    FP8,
                ),
            ),
            (load_stream, (plan, ring, (x, weight, tiles), STAGES, False, W_BYTES, True, PDL)),
        ],
        [1],
        [24],
    )


def hopper_qkv(
    x: Tensor,
    weight: Weight,
    query: Tensor,
    cache: Tensor,
    placement: RowPlacement,
    config: LinearConfig,
    dependent: bool,
) -> None:
    """x W^T + b: the queries rotated, the keys rotated and stored, the values stored.

    x: [rows, k]; weight: [(heads + 2 * kv_heads) * d, k], d 64 or 128, dense or FP8; query: [rows,
    heads * d], written; cache: [2, kv_heads, blocks, page, d], written; these in half precision,
    the cache also in FP8. config: of this product, unsplit.
    """
    (rows, depth), (_, kv_heads, blocks, page, d) = x.shape, cache.shape
    programs = min(weight.n // COLUMNS, config.residents * multiprocessors(x.device))
    _kernel[(programs,)](
        tma_descriptor(x, row_tile(rows), DEPTH), _halves(weight.data, d), query, bits(cache),
        placement.table, placement.slots, placement.positions, placement.angles,
        *operands(weight, x), *placement.inverses, rows, depth, blocks, placement.table.stride(0),
        heads=query.shape[1] // d, kv_heads=kv_heads, D=d, PAGE=page, STAGES=config.stages,
        **kinds(weight), FEW=config.few, FP8=exponent_bits(cache),
        W_LAYOUT=tile_layout(COLUMNS, DEPTH, weight.data.dtype), num_warps=4, maxnreg=128,
        **launch(dependent),
    )  # fmt: skip


def _halves(weight: Tensor, d: int) -> TensorDescriptor:
    """Heads of d rows, to be copied in tiles that hold as many rows of either half."""
    halves = weight.view(-1, d // 2, weight.shape[1])
    return TensorDescriptor.from_tensor(halves, [2, HALF, DEPTH], _layout(weight.dtype))


@functools.cache
def _layout(dtype: torch.dtype) -> gl.NVMMASharedLayout:
    element = gl.float16 if dtype.itemsize == 2 else gl.float8e4nv
    return gl.NVMMASharedLayout.get_default_for([2, HALF, DEPTH], element)
